/*
 * Turns to connect: see pace.h. A service is known from the first turn asked for
 * and never forgotten, since what it holds against us outlives our connections.
 *
 *	nobody waits, nobody has a turn: no timer is set
 *	somebody waits: the timer is set for when the next may go (or `holder` has it)
 */
#include "pace.h"

#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "log.h"
#include "loop.h"

struct pace {
	struct pace *next;
	char *service;
	struct loop *loop;
	unsigned gap_ms;
	struct list waiting;
	struct pace_turn *holder;
	int64_t next_go;		/* not before */
	int64_t silent_until;
	int64_t silent_ms;		/* of the next time it is found silent */
	struct loop_timer timer;
};

static struct pace *services;

static struct pace *find(const char *service)
{
	for (struct pace *p = services; p; p = p->next)
		if (!strcmp(p->service, service))
			return p;
	return NULL;
}

static void schedule(struct pace *);

static void on_timer(struct loop_timer *t)
{
	struct pace *p = container_of(t, struct pace, timer);
	struct pace_turn *turn = list_entry(p->waiting.next, struct pace_turn, link);
	bool go = clock_ms() >= p->silent_until;

	list_del(&turn->link);
	if (go)
		p->holder = turn;
	else
		turn->pace = NULL;
	turn->cb(turn, go);
	schedule(p);
}

static void schedule(struct pace *p)
{
	int64_t now = clock_ms(), wait = 0;

	loop_timer_cancel(&p->timer);
	if (list_empty(&p->waiting) || p->holder)
		return;
	if (now >= p->silent_until && now < p->next_go)
		wait = p->next_go - now;
	loop_timer_set(p->loop, &p->timer, wait, on_timer);
}

void pace_ask(struct loop *loop, const char *service, unsigned gap_ms, struct pace_turn *turn,
	      pace_cb *cb)
{
	struct pace *p = find(service);

	if (!p) {
		p = xcalloc(1, sizeof(*p));
		p->service = xstrdup(service);
		p->silent_ms = PACE_SILENT_MS;
		list_init(&p->waiting);
		p->next = services;
		services = p;
	}
	p->loop = loop;
	p->gap_ms = gap_ms;
	turn->pace = p;
	turn->cb = cb;
	list_add_tail(&p->waiting, &turn->link);
	schedule(p);
}

static void leave(struct pace_turn *turn)
{
	struct pace *p = turn->pace;

	turn->pace = NULL;
	if (p->holder == turn) {
		p->holder = NULL;
		/* An address was looked up before it knocked: the distance is from now. */
		p->next_go = clock_ms() + p->gap_ms;
	} else {
		list_del(&turn->link);
	}
}

void pace_done(struct pace_turn *turn, bool answered)
{
	struct pace *p = turn->pace;

	if (!p)
		return;
	leave(turn);
	if (answered) {
		p->silent_ms = PACE_SILENT_MS;
	} else {
		p->silent_until = clock_ms() + p->silent_ms;
		log_warn("%s does not answer connections: none is tried for %d s", p->service,
			 (int)(p->silent_ms / 1000));
		if (p->silent_ms < PACE_SILENT_MAX_MS)
			p->silent_ms *= 2;
	}
	schedule(p);
}

void pace_cancel(struct pace_turn *turn)
{
	struct pace *p = turn->pace;

	if (!p)
		return;
	leave(turn);
	schedule(p);
}

int64_t pace_silent(const char *service)
{
	const struct pace *p = find(service);
	int64_t left = p ? p->silent_until - clock_ms() : 0;

	return left > 0 ? left : 0;
}
