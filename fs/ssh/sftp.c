/*
 * The SFTP request table. disk/ calls; a pipe (an SSH channel) carries.
 *
 * States: GREETING (INIT sent, then perhaps limits) -> READY -> DEAD (failed or
 * being destroyed: every call has been or is being answered, none is accepted).
 *
 * A call stands in the table from its start to its reply. READs and WRITEs that
 * exceed what may be on the way stand on the pending list as well, as
 * finished packets. What has to wait for a channel beside this one (or was told to stop) is on
 * the held list, as finished packets too. A cancelled call that was sent stays, without a callback,
 * until its reply: ids are never reused while the server may answer them, and
 * a handle that comes too late is closed.
 */
#include "sftp.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "err.h"
#include "list.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"

/* What every server takes (draft, section 3), and the most we ever use. */
#define DEFAULT_IO 32768u
#define MIN_IO 4096u
#define MAX_IO (255u * 1024)
#define PACKET_OVERHEAD 1024u
#define ROUND_TRIP_MS 10000

enum sftp_state { SFTP_GREETING, SFTP_READY, SFTP_DEAD };

struct sftp_call {
	struct sftp *sftp;
	UT_hash_handle hh;
	struct list pending;		/* or held */
	uint32_t id;
	uint8_t type;			/* of the request */
	uint8_t expect;			/* the type of a good reply */
	bool sent, slow, apart;
	uint32_t weight;		/* bytes asked for or carried, of READ and WRITE */
	int64_t since;
	struct buf packet;		/* while not sent */
	sftp_cb *done;			/* NULL: nobody waits for the answer */
	void (*on_sent)(void *user);
	void *user;
};

struct sftp {
	struct loop *loop;
	const struct sftp_pipe *ops;
	void *pipe;
	const struct sftp_events *events;
	void *user;
	enum sftp_state state;
	struct err why;			/* it failed */
	bool busy, doomed;		/* doomed: destroyed from a callback */
	struct buf in, out;
	struct sftp_call *calls;	/* by id, oldest first */
	struct list pending, held;
	struct sftp *beside, *front;	/* see sftp_set_beside; front: it is beside that one */
	unsigned apart;			/* calls in the table */
	bool stopped;
	uint32_t next_id;
	size_t in_flight, waiting;	/* bytes on the way; that wait for it */
	uint32_t extensions, max_read, max_write;
	int64_t round_trip, round_trip_since;	/* ms; < 0: not known */
	int64_t heard;			/* when the peer last showed a sign of life */
	int64_t patience;
	struct loop_timer watchdog;
};

static void fail(struct sftp *, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* --- calls --------------------------------------------------------------- */

static void call_free(struct sftp_call *c)
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

static void watch(struct sftp *, int64_t ms);

static struct sftp_call *call_new(struct sftp *s, uint8_t type, sftp_cb *done, void *user,
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
	if (!s->calls) {
		s->heard = c->since;
		if (!loop_timer_is_set(&s->watchdog))
			watch(s, s->patience);
	}
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

static int send_or_queue(struct sftp *s, struct sftp_call *c)
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

/* Calls back only to have it noted that something was sent. */
static void pump(struct sftp *s)
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
	pump(s);
}

/* Calls of it have ended. */
static void tell_front(struct sftp *s)
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
		call_free(c);
		tell_front(s);
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
	pump(s);
	release(s);
}

size_t sftp_load(const struct sftp *s)
{
	return s->in_flight + s->waiting;
}

/* --- the end ------------------------------------------------------------- */

static void answer_all(struct sftp *s, int error)
{
	struct sftp_reply reply = { 0 };
	const struct sftp_answer answer = { .reply = &reply };

	while (s->calls) {
		struct sftp_call *c = s->calls;
		sftp_cb *done = c->done;
		void *user = c->user;

		call_free(c);
		if (done)
			done(user, error, &answer);
	}
	tell_front(s);
}

static void sftp_free(struct sftp *s)
{
	buf_finish(&s->in);
	buf_finish(&s->out);
	free(s);
}

void sftp_destroy(struct sftp *s, int error)
{
	if (!s)
		return;
	s->state = SFTP_DEAD;
	s->events = NULL;
	loop_timer_cancel(&s->watchdog);
	sftp_set_beside(s, NULL);
	answer_all(s, error);
	if (s->front)
		sftp_set_beside(s->front, NULL);
	if (s->busy)
		s->doomed = true;
	else
		sftp_free(s);
}

static void fail(struct sftp *s, int code, const char *fmt, ...)
{
	char text[ERR_TEXT_MAX];
	struct err err;			/* s may be gone after the last callback */
	bool busy = s->busy;
	va_list ap;

	if (s->state == SFTP_DEAD)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	err_set(&err, code, "the sandbox's SFTP server %s", text);
	s->why = err;
	s->state = SFTP_DEAD;
	s->busy = true;
	loop_timer_cancel(&s->watchdog);
	answer_all(s, code);
	if (s->events)
		s->events->failed(s->user, &err);
	s->busy = busy;
	if (s->doomed && !busy)
		sftp_free(s);
}

static void watchdog_fired(struct loop_timer *t)
{
	struct sftp *s = container_of(t, struct sftp, watchdog);
	int64_t now = clock_ms(), limit = s->patience;

	if (!s->calls)
		return;
	for (struct sftp_call *c = s->calls; c; c = c->hh.next)
		if (c->slow)
			limit = SFTP_FSYNC_MS;
	/* The oldest call is bounded too: chatter about others does not excuse it. */
	if (now - s->heard >= limit)
		fail(s, -ETIMEDOUT, "owes an answer and has been silent for %lld s",
		     (long long)(now - s->heard) / 1000);
	else if (now - s->calls->since >= SFTP_FSYNC_MS)
		fail(s, -ETIMEDOUT, "has not answered a call for %lld s",
		     (long long)(now - s->calls->since) / 1000);
	else
		watch(s, limit - (now - s->heard));
}

static void watch(struct sftp *s, int64_t ms)
{
	loop_timer_set(s->loop, &s->watchdog, ms, watchdog_fired);
}

/* --- replies -------------------------------------------------------------- */

/* 0: the answer is good; < 0: its error; -EPROTO: the server broke the protocol. */
static int judge(const struct sftp_call *c, struct sftp_reply *reply, struct sftp_answer *answer)
{
	int error;

	if (reply->type == c->expect && c->type == SFTP_READ) {
		metric_add(METRIC_DISK_READ_BYTES, reply->data.len);
		return reply->data.len > c->weight ? -EPROTO : 0;
	}
	if (reply->type == c->expect && reply->type != SFTP_STATUS)
		return 0;
	if (reply->type != SFTP_STATUS)
		return -EPROTO;
	if (reply->status.code == SFTP_FX_EOF && c->type == SFTP_READ) {
		reply->data.bytes = (const uint8_t *)"";
		reply->data.len = 0;
		return 0;
	}
	if (reply->status.code == SFTP_FX_EOF && c->type == SFTP_READDIR) {
		reply->names.count = 0;
		reply->names.rest = (struct rbuf){ 0 };
		return 0;
	}
	error = sftp_status_errno(reply->status.code, reply->status.text, reply->status.len,
				  &answer->vague);
	/* "OK" where something was asked for is no answer. */
	return error == 0 && c->expect != SFTP_STATUS ? -EPROTO : error;
}

static int take_handle(struct sftp *s, const struct sftp_reply *reply, bool wanted,
		       struct sftp_answer *answer)
{
	struct sftp_handle *h = xmalloc(sizeof(*h));

	if (sftp_get_handle(reply, h)) {
		free(h);
		return -EPROTO;
	}
	if (wanted)
		answer->handle = h;
	else
		sftp_close(s, h);
	return 0;
}

/* The least of the last ROUND_TRIP_MS: what waits behind data takes longer. */
static void measure(struct sftp *s, const struct sftp_call *c)
{
	int64_t now = clock_ms(), took = now - c->since;

	if (c->weight || c->slow)
		return;
	if (s->round_trip < 0 || took < s->round_trip ||
	    now - s->round_trip_since > ROUND_TRIP_MS) {
		s->round_trip = took;
		s->round_trip_since = now;
	}
}

static void answer_call(struct sftp *s, struct sftp_call *c, struct sftp_reply *reply)
{
	struct sftp_answer answer = { .reply = reply };
	int error = judge(c, reply, &answer);
	uint8_t type = c->type;
	sftp_cb *done = c->done;
	void *user = c->user;

	if (error == 0 && reply->type == SFTP_HANDLE)
		error = take_handle(s, reply, done != NULL, &answer);
	if (error == 0 && type == SFTP_READDIR && (error = sftp_check_names(reply))) {
		fail(s, -EPROTO, error == -EINVAL ? "listed a name that cannot be one" :
						    "sent a listing that cannot be read");
		return;
	}
	if (error == -EPROTO) {
		fail(s, -EPROTO, "gave an answer of type %u that does not fit a call of type %u",
		     reply->type, type);
		return;
	}
	measure(s, c);
	call_free(c);
	pump(s);
	tell_front(s);
	if (done)
		done(user, error, &answer);
}

/* A call of our own while GREETING. */
static void limits_done(void *user, int error, const struct sftp_answer *answer)
{
	struct sftp *s = user;
	struct sftp_limits l = { 0 };

	if (s->state != SFTP_GREETING)
		return;
	if (error == 0 && sftp_get_limits(&answer->reply->extended, &l)) {
		fail(s, -EPROTO, "sent limits that are cut short");
		return;
	}
	/* 0 is "no limit told"; what is absurdly small would cost more calls than it is worth. */
#define CLAMP(n) ((n) < MIN_IO ? MIN_IO : (n) > MAX_IO ? MAX_IO : (uint32_t)(n))
	if (l.read)
		s->max_read = CLAMP(l.read);
	if (l.write)
		s->max_write = CLAMP(l.write);
	if (l.packet && l.packet < s->max_write + PACKET_OVERHEAD)
		s->max_write = l.packet < MIN_IO + PACKET_OVERHEAD ? MIN_IO :
			       (uint32_t)l.packet - PACKET_OVERHEAD;
#undef CLAMP
	s->state = SFTP_READY;
	s->events->ready(s->user);
}

static void greeted(struct sftp *s, const struct sftp_reply *reply)
{
	struct sftp_call *c;

	if (s->state != SFTP_GREETING || s->calls) {
		fail(s, -EPROTO, "greeted twice");
		return;
	}
	if (reply->version.number != 3) {
		fail(s, -EPROTO, "speaks version %u of the protocol, not 3", reply->version.number);
		return;
	}
	s->extensions = reply->version.extensions;
	loop_timer_cancel(&s->watchdog);
	if (!(s->extensions & SFTP_EXT_LIMITS)) {
		s->state = SFTP_READY;
		s->events->ready(s->user);
		return;
	}
	c = call_new(s, SFTP_EXTENDED, limits_done, s, NULL);
	c->expect = SFTP_EXTENDED_REPLY;
	sftp_put_ext(&s->out, SFTP_EXT_LIMITS, c->id);
	send_or_queue(s, c);
}

static void take_packet(struct sftp *s, const uint8_t *packet, size_t len)
{
	struct sftp_reply reply;
	struct sftp_call *c;

	if (sftp_get_reply(packet, len, &reply)) {
		fail(s, -EPROTO, "sent a packet of type %u that cannot be read", packet[0]);
		return;
	}
	if (reply.type == SFTP_VERSION) {
		greeted(s, &reply);
		return;
	}
	HASH_FIND(hh, s->calls, &reply.id, sizeof(reply.id), c);
	if (!c || !c->sent)
		fail(s, -EPROTO, "answered a call that was not made");
	else
		answer_call(s, c, &reply);
}

/* No packet is that long, or it has nothing in it. */
static void bad_frame(struct sftp *s, const uint8_t *data, size_t len)
{
	char said[40];
	size_t n = 0;

	/* A start-up file of the login shell that prints something is the usual reason. */
	while (n < len && n < sizeof(said) - 1 && data[n] >= ' ' && data[n] <= '~') {
		said[n] = (char)data[n];
		n++;
	}
	said[n] = 0;
	if (s->state == SFTP_GREETING && n >= 4)
		fail(s, -EPROTO, "says something before the greeting (\"%s\"): a start-up file of "
		     "the guest's shell must print nothing", said);
	else
		fail(s, -EPROTO, "announced a packet that is empty or longer than %d bytes",
		     SFTP_PACKET_MAX);
}

/* Take the whole packets at the front; returns the bytes taken. */
static size_t take_packets(struct sftp *s, const uint8_t *data, size_t len)
{
	size_t taken = 0;

	while (s->state != SFTP_DEAD) {
		int n = sftp_frame(data + taken, len - taken);

		if (n == 0)
			break;
		if (n < 0) {
			bad_frame(s, data + taken, len - taken);
			break;
		}
		take_packet(s, data + taken + 4, (size_t)n - 4);
		taken += (size_t)n;
	}
	return taken;
}

void sftp_input(struct sftp *s, const uint8_t *data, size_t len)
{
	size_t taken;

	if (s->state == SFTP_DEAD)
		return;
	assert(!s->busy);
	s->busy = true;
	s->heard = clock_ms();
	if (buf_size(&s->in) == 0) {
		/* Nothing is left over: no copy of what is whole. */
		taken = take_packets(s, data, len);
		buf_put(&s->in, data + taken, len - taken);
	} else {
		buf_put(&s->in, data, len);
		taken = take_packets(s, buf_peek(&s->in), buf_size(&s->in));
		buf_consume(&s->in, taken);
	}
	s->busy = false;
	if (s->doomed)
		sftp_free(s);
}

void sftp_drained(struct sftp *s)
{
	s->heard = clock_ms();
	pump(s);
}

/* --- life ------------------------------------------------------------------ */

static void greeting_late(struct loop_timer *t)
{
	fail(container_of(t, struct sftp, watchdog), -ETIMEDOUT, "did not greet within %d s",
	     SFTP_OPENING_MS / 1000);
}

struct sftp *sftp_create(struct loop *loop, const struct sftp_pipe *ops, void *pipe,
			 const struct sftp_events *events, void *user)
{
	struct sftp *s = xcalloc(1, sizeof(*s));

	s->loop = loop;
	s->ops = ops;
	s->pipe = pipe;
	s->events = events;
	s->user = user;
	s->max_read = s->max_write = DEFAULT_IO;
	s->round_trip = -1;
	s->patience = SFTP_SILENCE_MS;
	list_init(&s->pending);
	list_init(&s->held);
	sftp_put_init(&s->out);
	ops->send(pipe, buf_peek(&s->out), buf_size(&s->out));
	buf_clear(&s->out);
	loop_timer_set(loop, &s->watchdog, SFTP_OPENING_MS, greeting_late);
	return s;
}

const struct err *sftp_why(const struct sftp *s)
{
	return &s->why;
}

bool sftp_is_ready(const struct sftp *s)
{
	return s->state == SFTP_READY;
}

void sftp_set_patience(struct sftp *s, int64_t ms)
{
	s->patience = ms;
	if (s->calls)
		watch(s, ms);
}

int64_t sftp_round_trip(const struct sftp *s)
{
	return s->round_trip > 0 ? s->round_trip : 0;
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

bool sftp_has(const struct sftp *s, enum sftp_ext ext)
{
	return s->extensions & ext;
}

uint32_t sftp_max_read(const struct sftp *s)
{
	return s->max_read;
}

uint32_t sftp_max_write(const struct sftp *s)
{
	return s->max_write;
}

/* --- requests -------------------------------------------------------------- */

/*
 * Every request is the same three steps: a call, its packet in s->out, off it
 * goes. (A macro, for the packet is what differs.)
 */
#define START(type)						\
	struct sftp_call *c;					\
								\
	if (s->state != SFTP_READY)				\
		return -EHOSTDOWN;				\
	c = call_new(s, type, done, user, out)

#define SEND() return send_or_queue(s, c)

int sftp_open(struct sftp *s, const char *path, uint32_t flags, const struct sftp_attrs *attrs,
	      sftp_cb *done, void *user, struct sftp_call **out)
{
	START(SFTP_OPEN);
	sftp_put_open(&s->out, c->id, path, flags, attrs);
	SEND();
}

void sftp_close(struct sftp *s, struct sftp_handle *h)
{
	struct sftp_call *c;

	if (s->state == SFTP_READY) {
		c = call_new(s, SFTP_CLOSE, NULL, NULL, NULL);
		sftp_put_handle(&s->out, SFTP_CLOSE, c->id, h);
		send_or_queue(s, c);
	}
	free(h);
}

int sftp_read(struct sftp *s, const struct sftp_handle *h, uint64_t off, uint32_t len,
	      sftp_cb *done, void *user, struct sftp_call **out)
{
	START(SFTP_READ);
	c->weight = len;
	sftp_put_read(&s->out, c->id, h, off, len);
	SEND();
}

static int write_call(struct sftp *s, bool apart, const struct sftp_handle *h, uint64_t off,
		      const void *data, uint32_t len, sftp_cb *done, void *user,
		      struct sftp_call **out)
{
	if (len > s->max_write)
		return -EMSGSIZE;
	START(SFTP_WRITE);
	c->weight = len;
	c->apart = apart;
	s->apart += apart;
	sftp_put_write(&s->out, c->id, h, off, data, len);
	SEND();
}

int sftp_write(struct sftp *s, const struct sftp_handle *h, uint64_t off, const void *data,
	       uint32_t len, sftp_cb *done, void *user, struct sftp_call **out)
{
	return write_call(s, false, h, off, data, len, done, user, out);
}

int sftp_write_apart(struct sftp *s, const struct sftp_handle *h, uint64_t off, const void *data,
		     uint32_t len, sftp_cb *done, void *user, struct sftp_call **out)
{
	return write_call(s, true, h, off, data, len, done, user, out);
}

static int path_call(struct sftp *s, enum sftp_type type, const char *path, sftp_cb *done,
		     void *user, struct sftp_call **out)
{
	START(type);
	sftp_put_path(&s->out, type, c->id, path);
	SEND();
}

static int handle_call(struct sftp *s, enum sftp_type type, const struct sftp_handle *h,
		       sftp_cb *done, void *user, struct sftp_call **out)
{
	START(type);
	sftp_put_handle(&s->out, type, c->id, h);
	SEND();
}

static int path_attrs_call(struct sftp *s, enum sftp_type type, const char *path,
			   const struct sftp_attrs *attrs, sftp_cb *done, void *user,
			   struct sftp_call **out)
{
	START(type);
	sftp_put_path_attrs(&s->out, type, c->id, path, attrs);
	SEND();
}

static int paths_call(struct sftp *s, enum sftp_type type, const char *one, const char *two,
		      sftp_cb *done, void *user, struct sftp_call **out)
{
	START(type);
	sftp_put_paths(&s->out, type, c->id, one, two);
	SEND();
}

static int ext_paths_call(struct sftp *s, enum sftp_ext ext, const char *one, const char *two,
			  sftp_cb *done, void *user, struct sftp_call **out)
{
	START(SFTP_EXTENDED);
	sftp_put_ext_paths(&s->out, ext, c->id, one, two);
	SEND();
}

int sftp_opendir(struct sftp *s, const char *path, sftp_cb *done, void *user,
		 struct sftp_call **out)
{
	return path_call(s, SFTP_OPENDIR, path, done, user, out);
}

int sftp_readdir(struct sftp *s, const struct sftp_handle *h, sftp_cb *done, void *user,
		 struct sftp_call **out)
{
	return handle_call(s, SFTP_READDIR, h, done, user, out);
}

int sftp_fstat(struct sftp *s, const struct sftp_handle *h, sftp_cb *done, void *user,
	       struct sftp_call **out)
{
	return handle_call(s, SFTP_FSTAT, h, done, user, out);
}

int sftp_fsetstat(struct sftp *s, const struct sftp_handle *h, const struct sftp_attrs *attrs,
		  sftp_cb *done, void *user, struct sftp_call **out)
{
	START(SFTP_FSETSTAT);
	sftp_put_fsetstat(&s->out, c->id, h, attrs);
	SEND();
}

int sftp_fsync(struct sftp *s, const struct sftp_handle *h, sftp_cb *done, void *user,
	       struct sftp_call **out)
{
	START(SFTP_EXTENDED);
	c->slow = true;
	sftp_put_ext_handle(&s->out, SFTP_EXT_FSYNC, c->id, h);
	SEND();
}

int sftp_copy(struct sftp *s, const struct sftp_handle *from, uint64_t off, uint64_t len,
	      const struct sftp_handle *to, uint64_t to_off, sftp_cb *done, void *user,
	      struct sftp_call **out)
{
	START(SFTP_EXTENDED);
	sftp_put_ext_copy(&s->out, c->id, from, off, len, to, to_off);
	SEND();
}

int sftp_lstat(struct sftp *s, const char *path, sftp_cb *done, void *user,
	       struct sftp_call **out)
{
	return path_call(s, SFTP_LSTAT, path, done, user, out);
}

int sftp_stat(struct sftp *s, const char *path, sftp_cb *done, void *user,
	      struct sftp_call **out)
{
	return path_call(s, SFTP_STAT, path, done, user, out);
}

int sftp_setstat(struct sftp *s, const char *path, const struct sftp_attrs *attrs, sftp_cb *done,
		 void *user, struct sftp_call **out)
{
	return path_attrs_call(s, SFTP_SETSTAT, path, attrs, done, user, out);
}

int sftp_lsetstat(struct sftp *s, const char *path, const struct sftp_attrs *attrs, sftp_cb *done,
		  void *user, struct sftp_call **out)
{
	START(SFTP_EXTENDED);
	sftp_put_ext_path_attrs(&s->out, SFTP_EXT_LSETSTAT, c->id, path, attrs);
	SEND();
}

int sftp_remove(struct sftp *s, const char *path, sftp_cb *done, void *user,
		struct sftp_call **out)
{
	return path_call(s, SFTP_REMOVE, path, done, user, out);
}

int sftp_mkdir(struct sftp *s, const char *path, const struct sftp_attrs *attrs, sftp_cb *done,
	       void *user, struct sftp_call **out)
{
	return path_attrs_call(s, SFTP_MKDIR, path, attrs, done, user, out);
}

int sftp_rmdir(struct sftp *s, const char *path, sftp_cb *done, void *user,
	       struct sftp_call **out)
{
	return path_call(s, SFTP_RMDIR, path, done, user, out);
}

int sftp_rename(struct sftp *s, const char *from, const char *to, bool replace, sftp_cb *done,
		void *user, struct sftp_call **out)
{
	if (replace)
		return ext_paths_call(s, SFTP_EXT_POSIX_RENAME, from, to, done, user, out);
	return paths_call(s, SFTP_RENAME, from, to, done, user, out);
}

int sftp_hardlink(struct sftp *s, const char *from, const char *to, sftp_cb *done, void *user,
		  struct sftp_call **out)
{
	return ext_paths_call(s, SFTP_EXT_HARDLINK, from, to, done, user, out);
}

int sftp_symlink(struct sftp *s, const char *text, const char *path, sftp_cb *done, void *user,
		 struct sftp_call **out)
{
	return paths_call(s, SFTP_SYMLINK, text, path, done, user, out);
}

int sftp_readlink(struct sftp *s, const char *path, sftp_cb *done, void *user,
		  struct sftp_call **out)
{
	return path_call(s, SFTP_READLINK, path, done, user, out);
}

int sftp_realpath(struct sftp *s, const char *path, sftp_cb *done, void *user,
		  struct sftp_call **out)
{
	return path_call(s, SFTP_REALPATH, path, done, user, out);
}

int sftp_statvfs(struct sftp *s, const char *path, sftp_cb *done, void *user,
		 struct sftp_call **out)
{
	START(SFTP_EXTENDED);
	c->expect = SFTP_EXTENDED_REPLY;
	sftp_put_ext_path(&s->out, SFTP_EXT_STATVFS, c->id, path);
	SEND();
}
