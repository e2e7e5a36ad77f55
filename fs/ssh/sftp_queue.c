/*
 * The calls of an SFTP client from their start to their reply: which of them are sent now, and
 * which wait. sftp_request.c makes them, sftp_reply.c ends them.
 *
 * A call stands in the table all that time. READs and WRITEs that exceed what may be on the way
 * stand on the pending list as well, as finished packets. What has to wait for a channel beside
 * this one (or was told to stop) is on the held list, as finished packets too. A cancelled call
 * that was sent stays, without a callback, until its reply: ids are never reused while the server
 * may answer them, and a handle that comes too late is closed.
 */
#include <stdlib.h>

#include "metrics.h"
#include "sftp_internal.h"

void sftp_call_free(struct sftp_call *c)
{
	struct sftp *s = c->sftp;

	HASH_DEL(s->calls, c);
	list_del(&c->pending);
	if (c->sent)
		s->in_flight -= c->weight;
	else
		s->waiting -= c->weight;
	s->apart -= c->apart;
	buf_finish(&c->packet);
	free(c);
}

static uint8_t expected(uint8_t type)
{
	switch (type) {
	case SFTP_OPEN:
	case SFTP_OPENDIR:
		return SFTP_HANDLE;
	case SFTP_READ:
		return SFTP_DATA;
	case SFTP_READDIR:
	case SFTP_READLINK:
	case SFTP_REALPATH:
		return SFTP_NAME;
	case SFTP_LSTAT:
	case SFTP_STAT:
	case SFTP_FSTAT:
		return SFTP_ATTRS;
	default:
		return SFTP_STATUS;
	}
}

struct sftp_call *sftp_call_new(struct sftp *s, uint8_t type, sftp_cb *done, void *user,
				struct sftp_call **out)
{
	struct sftp_call *c = xcalloc(1, sizeof(*c)), *taken;

	c->sftp = s;
	c->type = type;
	c->expect = expected(type);
	c->done = done;
	c->user = user;
	c->since = clock_ms();
	list_init(&c->pending);
	do {
		c->id = s->next_id++;
		HASH_FIND(hh, s->calls, &c->id, sizeof(c->id), taken);
	} while (taken);
	if (!s->calls && !loop_timer_is_set(&s->watchdog))
		sftp_watch(s, s->patience);
	HASH_ADD(hh, s->calls, id, sizeof(c->id), c);
	if (out)
		*out = c;
	return c;
}

/* Send what was built in packet. */
static void send_now(struct sftp *s, struct sftp_call *c, struct buf *packet)
{
	c->sent = true;
	s->waiting -= c->weight;
	metric_add(METRIC_SFTP_REQUESTS, 1);
	if (c->type == SFTP_WRITE)
		metric_add(METRIC_DISK_WRITTEN_BYTES, c->weight);
	s->in_flight += c->weight;
	s->ops->send(s->pipe, buf_peek(packet), buf_size(packet));
	buf_clear(packet);
}

static bool has_room(const struct sftp *s, const struct sftp_call *c)
{
	if (c->type == SFTP_WRITE && s->ops->queued(s->pipe) > SFTP_SEND_HIGH)
		return false;
	return s->in_flight == 0 || s->in_flight + c->weight <= sftp_pipeline(s);
}

static bool must_hold(const struct sftp *s, const struct sftp_call *c)
{
	return s->stopped || !list_empty(&s->held) ||
	       (s->beside && s->beside->apart > 0 && !c->apart);
}

int sftp_call_send(struct sftp *s, struct sftp_call *c)
{
	bool hold = must_hold(s, c);

	s->waiting += c->weight;
	if (!hold && (c->weight == 0 || (list_empty(&s->pending) && has_room(s, c)))) {
		send_now(s, c, &s->out);
		return 0;
	}
	c->packet = s->out;
	s->out = BUF_INIT;
	list_add_tail(hold ? &s->held : &s->pending, &c->pending);
	return 0;
}

static void send_waiting(struct sftp *s, struct sftp_call *c)
{
	list_del(&c->pending);
	c->since = clock_ms();
	send_now(s, c, &c->packet);
	buf_finish(&c->packet);
	if (c->on_sent && c->done)
		c->on_sent(c->user);
}

void sftp_pump(struct sftp *s)
{
	while (s->state != SFTP_DEAD && !s->stopped && !list_empty(&s->pending)) {
		struct sftp_call *c = list_entry(s->pending.next, struct sftp_call, pending);

		if (!has_room(s, c))
			break;
		send_waiting(s, c);
	}
}

/* What was held goes on, in its order, if nothing holds it any more. */
static void release(struct sftp *s)
{
	LIST_HEAD(held);

	if (s->state == SFTP_DEAD || s->stopped || (s->beside && s->beside->apart > 0))
		return;
	list_splice_tail(&held, &s->held);
	while (!list_empty(&held)) {
		struct sftp_call *c = list_entry(held.next, struct sftp_call, pending);

		if (c->weight == 0) {
			send_waiting(s, c);
		} else {
			list_del(&c->pending);
			list_add_tail(&s->pending, &c->pending);
		}
	}
	sftp_pump(s);
}

void sftp_tell_front(struct sftp *s)
{
	if (s->front && s->apart == 0)
		release(s->front);
}

bool sftp_is_sent(struct sftp_call *c, void (*sent)(void *user))
{
	if (!c->sent)
		c->on_sent = sent;
	return c->sent;
}

void sftp_cancel(struct sftp_call *c)
{
	struct sftp *s = c->sftp;

	c->done = NULL;
	if (!c->sent) {
		sftp_call_free(c);
		sftp_tell_front(s);
	}
}

void sftp_set_beside(struct sftp *s, struct sftp *beside)
{
	if (s->beside)
		s->beside->front = NULL;
	s->beside = beside;
	if (beside)
		beside->front = s;
	release(s);
}

bool sftp_is_apart(const struct sftp *s)
{
	return s->state == SFTP_READY && list_empty(&s->held) && !s->stopped &&
	       HASH_COUNT(s->calls) == s->apart;
}

unsigned sftp_apart(const struct sftp *s)
{
	return s->apart;
}

void sftp_stop(struct sftp *s, bool stop)
{
	s->stopped = stop;
	sftp_pump(s);
	release(s);
}

size_t sftp_load(const struct sftp *s)
{
	return s->in_flight + s->waiting;
}

size_t sftp_pipeline(const struct sftp *s)
{
	size_t most = SFTP_IN_FLIGHT;

	if (s->round_trip > SFTP_NEAR_MS)
		most = SFTP_IN_FLIGHT / SFTP_NEAR_MS *
		       (size_t)(s->round_trip < 1000 ? s->round_trip : 1000);
	return most < SFTP_IN_FLIGHT_MAX ? most : SFTP_IN_FLIGHT_MAX;
}

size_t sftp_room(const struct sftp *s)
{
	size_t most = sftp_pipeline(s);

	if (!list_empty(&s->pending) || !list_empty(&s->held) || s->stopped || s->in_flight >= most)
		return 0;
	return most - s->in_flight;
}
