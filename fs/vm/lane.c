/*
 * Lanes: connections with room for jobs (lane.h).
 *
 * sshd allows MaxSessions channels on a connection, 10 unless configured. Of the first
 * connection jobs have 8: one is for the disk, one for ending jobs. When jobs wait and none
 * could be started for STARVED_MS, one more connection is made; never two at a time, and
 * none for PAUSE_MS after one that failed. So short jobs, however many, share what there is,
 * and a hundred long ones have their channels within a few logins. A connection that no job
 * uses is closed after IDLE_MS. What a server really allows is learned when it refuses.
 */
#include "lane.h"

#include <stdlib.h>

#include "disk.h"
#include "job_internal.h"
#include "log.h"

#define MAIN_CHANNELS 8
#define FURTHER_CHANNELS 10
#define STARVED_MS 100
#define IDLE_MS 10000
#define PAUSE_MS 10000
#define LOGIN_MS 20000
#define RECLAIM_MS 2000		/* so long the server may take to see that a channel was closed */

static struct lane *lane_create(struct vm *vm, unsigned limit)
{
	struct lane *l = xcalloc(1, sizeof(*l));

	l->vm = vm;
	l->limit = limit;
	list_init(&l->link);
	list_init(&l->lingering);
	return l;
}

static void lane_free(struct lane *l)
{
	loop_timer_cancel(&l->idle);
	list_del(&l->link);
	free(l);
}

void lane_main_up(struct vm *vm)
{
	struct lane *l = lane_create(vm, MAIN_CHANNELS);

	l->ssh = vm->ssh;
	l->main = true;
	list_add(&vm->lanes, &l->link);
}

void lane_main_down(struct vm *vm)
{
	list_for_each_safe(l, &vm->lanes, struct lane, link)
		if (l->main)
			lane_free(l);
}

/* --- further connections ---------------------------------------------------- */

static void look_again(struct loop_timer *t)
{
	jobs_pump(container_of(t, struct vm, lane_timer));
}

static unsigned allowed(const struct vm *vm)
{
	unsigned ours = vm->fleet->jobs.connections, theirs = vm->to.max_connections;

	return theirs && theirs < ours ? theirs : ours;
}

unsigned lanes_count(const struct vm *vm)
{
	unsigned n = vm->opening ? 1 : 0;

	list_for_each(l, &vm->lanes, struct lane, link)
		n++;
	return n;
}

static void idle(struct loop_timer *t)
{
	struct lane *l = container_of(t, struct lane, idle);

	log_debug("vm=%s a further connection is idle: closed", vm_name(l->vm));
	list_del(&l->link);
	ssh_destroy(l->ssh);
	lane_free(l);
}

static void further_up(void *user)
{
	struct lane *l = user;
	struct vm *vm = l->vm;

	log_debug("vm=%s connection %u is up", vm_name(vm), lanes_count(vm));
	vm->opening = NULL;
	list_add_tail(&vm->lanes, &l->link);
	/* the queue may be empty by now */
	loop_timer_set(vm->fleet->loop, &l->idle, IDLE_MS, idle);
	vm_ref(vm);
	killer_go(vm);
	jobs_pump(vm);
	vm_unref(vm);
}

static void further_down(void *user, const struct err *why)
{
	struct lane *l = user;
	struct vm *vm = l->vm;

	log_debug("vm=%s a further connection ended: %s", vm_name(vm), why->text);
	if (vm->opening == l) {
		vm->opening = NULL;
		loop_timer_set(vm->fleet->loop, &vm->lane_timer, PAUSE_MS, look_again);
	}
	ssh_destroy(l->ssh);
	lane_free(l);
	vm_ref(vm);
	jobs_pump(vm);
	vm_unref(vm);
}

static const struct ssh_events further_events = { .up = further_up, .down = further_down };

bool lane_open(struct vm *vm)
{
	struct lane *l;

	if (vm->opening || loop_timer_is_set(&vm->lane_timer) || lanes_count(vm) >= allowed(vm))
		return false;
	l = vm->opening = lane_create(vm, FURTHER_CHANNELS);
	l->ssh = ssh_create(vm->fleet->loop, &vm->to, LOGIN_MS, &further_events, l);
	return true;
}

void lanes_hold(struct vm *vm, bool hold)
{
	list_for_each(l, &vm->lanes, struct lane, link)
		if (l->ssh)
			ssh_hold(l->ssh, hold);
}

void lanes_close(struct vm *vm)
{
	struct lane *l = vm->opening;

	vm->opening = NULL;
	loop_timer_cancel(&vm->lane_timer);
	if (l) {
		ssh_destroy(l->ssh);
		lane_free(l);
	}
	list_for_each_safe(further, &vm->lanes, struct lane, link) {
		if (further->main)
			continue;
		list_del(&further->link);	/* nothing new is started on it */
		ssh_destroy(further->ssh);
		lane_free(further);
	}
}

/* --- room --------------------------------------------------------------------- */

static bool usable(const struct lane *l)
{
	return l->ssh && ssh_is_up(l->ssh);
}

bool lanes_busy(const struct vm *vm)
{
	list_for_each(l, &vm->lanes, struct lane, link)
		if (l->active > 0)
			return true;
	return false;
}

struct lane *lane_at(struct vm *vm, unsigned n)
{
	list_for_each(l, &vm->lanes, struct lane, link)
		if (usable(l) && n-- == 0)
			return l;
	return NULL;
}

/* Close the channel that a job which is over has held longest: others wait for it. */
static struct lane *reclaim(struct vm *vm)
{
	list_for_each(l, &vm->lanes, struct lane, link)
		if (usable(l) && !list_empty(&l->lingering)) {
			job_let_go(list_entry(l->lingering.next, struct job, lingering));
			l->reclaimed = clock_ms();
			return l;
		}
	return NULL;
}

struct lane *lane_take(struct vm *vm, int64_t waiting_since)
{
	int64_t since = vm->last_start > waiting_since ? vm->last_start : waiting_since, left;

	list_for_each(l, &vm->lanes, struct lane, link)
		if (usable(l) && l->active < l->limit)
			return l;
	if (lanes_count(vm) >= allowed(vm))
		return reclaim(vm);
	left = since + STARVED_MS - clock_ms();
	if (left <= 0)
		lane_open(vm);
	else if (!vm->opening && !loop_timer_is_set(&vm->lane_timer))
		loop_timer_set(vm->fleet->loop, &vm->lane_timer, left, look_again);
	return NULL;
}

void lane_used(struct lane *l)
{
	l->active++;
	loop_timer_cancel(&l->idle);
}

void lane_freed(struct lane *l)
{
	l->active--;
	if (l->active == 0 && !l->main && usable(l))
		loop_timer_set(l->vm->fleet->loop, &l->idle, IDLE_MS, idle);
}

bool lane_refused(struct lane *l)
{
	if (clock_ms() - l->reclaimed < RECLAIM_MS || (l->main && disk_yields_channel(l->vm->disk)))
		return false;
	if (l->active > 0 || (l->main && allowed(l->vm) > 1)) {
		/* 0: the disk has the only channel there is; jobs go elsewhere. */
		l->limit = l->active;
		return true;
	}
	return false;
}
