/*
 * The life of an SFTP client: greeting, answers that stay out, the end. disk/ calls; a pipe (an SSH
 * channel) carries. Its calls are in sftp_queue.c, sftp_request.c and sftp_reply.c.
 *
 * States: GREETING (INIT sent, then perhaps limits) -> READY -> DEAD (failed or
 * being destroyed: every call has been or is being answered, none is accepted).
 */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "sftp_internal.h"

#define DEFAULT_IO 32768u	/* what every server takes (draft, section 3) */

/* --- the end ------------------------------------------------------------- */

static void answer_all(struct sftp *s, int error)
{
	struct sftp_reply reply = { 0 };
	const struct sftp_answer answer = { .reply = &reply };

	while (s->calls) {
		struct sftp_call *c = s->calls;
		sftp_cb *done = c->done;
		void *user = c->user;

		sftp_call_free(c);
		if (done)
			done(user, error, &answer);
	}
	sftp_tell_front(s);
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

void sftp_fail(struct sftp *s, int code, const char *fmt, ...)
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

/* What was not sent yet is owed nothing: it may wait for long behind a channel beside this one. */
static void watchdog_fired(struct loop_timer *t)
{
	struct sftp *s = container_of(t, struct sftp, watchdog);
	int64_t now = clock_ms(), oldest = now, silent, limit = s->patience;

	if (!s->calls)
		return;
	for (struct sftp_call *c = s->calls; c; c = c->hh.next) {
		if (c->sent && c->since < oldest)
			oldest = c->since;
		if (c->sent && c->slow)
			limit = SFTP_FSYNC_MS;
	}
	silent = now - (s->heard > oldest ? s->heard : oldest);
	/* The oldest call is bounded too: chatter about others does not excuse it. */
	if (silent >= limit)
		sftp_fail(s, -ETIMEDOUT, "owes an answer and has been silent for %lld s",
			  (long long)silent / 1000);
	else if (now - oldest >= SFTP_FSYNC_MS)
		sftp_fail(s, -ETIMEDOUT, "has not answered a call for %lld s",
			  (long long)(now - oldest) / 1000);
	else
		sftp_watch(s, limit - silent);
}

void sftp_watch(struct sftp *s, int64_t ms)
{
	loop_timer_set(s->loop, &s->watchdog, ms, watchdog_fired);
}

/* --- the beginning, and what comes ------------------------------------------ */

static void greeting_late(struct loop_timer *t)
{
	sftp_fail(container_of(t, struct sftp, watchdog), -ETIMEDOUT, "did not greet within %d s",
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
		taken = sftp_take_packets(s, data, len);
		buf_put(&s->in, data + taken, len - taken);
	} else {
		buf_put(&s->in, data, len);
		taken = sftp_take_packets(s, buf_peek(&s->in), buf_size(&s->in));
		buf_consume(&s->in, taken);
	}
	s->busy = false;
	if (s->doomed)
		sftp_free(s);
}

void sftp_drained(struct sftp *s)
{
	s->heard = clock_ms();
	sftp_pump(s);
}

/* --- what is known of it ---------------------------------------------------- */

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
		sftp_watch(s, ms);
}

int64_t sftp_round_trip(const struct sftp *s)
{
	return s->round_trip > 0 ? s->round_trip : 0;
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
