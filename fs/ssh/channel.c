/*
 * Channels of an SSH connection (RFC 4254). Each is moved on by channel_step,
 * which the session's pump calls; the API calls only note what is wanted.
 *
 * libssh2 wants a call that could not send all of its packet repeated, with
 * the same arguments, before anything else is sent: c->op remembers which
 * call of a running channel that was, and ssh->stuck stops all other channels.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ssh_internal.h"

#define DEFAULT_WINDOW (4 * 1024 * 1024)
#define PACKET_MAX 32768	/* more ends in LIBSSH2_ERROR_OUT_OF_BOUNDARY */
#define READ_CHUNK (64 * 1024)
/* What one step may deliver before the others have their turn. */
#define STEP_BYTES (512 * 1024)

struct ssh_channel *channel_create(struct ssh *s, const struct ssh_channel_ops *ops, void *user)
{
	struct ssh_channel *c = xcalloc(1, sizeof(*c));

	c->ssh = s;
	c->ops = ops;
	c->user = user;
	c->window = DEFAULT_WINDOW;
	list_add_tail(&s->channels, &c->link);
	ssh_kick(s);
	return c;
}

static void channel_free(struct ssh_channel *c)
{
	if (c->ssh->opening == c)
		c->ssh->opening = NULL;
	if (c->ssh->ping == c)
		c->ssh->ping = NULL;
	if (c->ssh->asking == c)
		c->ssh->asking = NULL;
	list_del(&c->link);
	buf_finish(&c->request);
	buf_finish(&c->sending);
	buf_finish(&c->queued);
	free(c->term);
	free(c);
}

/* Tell the owner that it is over; it is not called again. */
static void tell_closed(struct ssh_channel *c, const struct ssh_exit *how)
{
	const struct ssh_channel_ops *ops = c->ops;

	c->ops = NULL;
	c->state = CH_ENDED;
	if (ops)
		ops->closed(c->user, how);
}

static void refuse(struct ssh_channel *c, int error)
{
	tell_closed(c, &(struct ssh_exit){
		.error = error, .status = -1, .requested = c->state >= CH_REQUESTING });
}

void channel_orphan(struct ssh_channel *c)
{
	refuse(c, -EHOSTDOWN);
}

void channel_lost(struct ssh_channel *c)
{
	channel_orphan(c);
	channel_free(c);
}

/* --- opening ------------------------------------------------------------ */

static bool step_open(struct ssh_channel *c)
{
	struct ssh *s = c->ssh;
	const char *type = c->ping ? "ping@sbxfs" : "session";
	int r;

	s->opening = c;
	c->state = CH_OPENING;
	c->ch = libssh2_channel_open_ex(s->session, type, (unsigned)strlen(type), c->window,
					PACKET_MAX, NULL, 0);
	if (c->ch) {
		s->opening = NULL;
		c->state = !c->ops ? CH_ENDED : c->term ? CH_TERMINAL : CH_REQUESTING;
		/* granted by a server that grants everything: an answer all the same */
		if (c->ping)
			refuse(c, 0);
		return true;
	}
	r = libssh2_session_last_errno(s->session);
	if (r == LIBSSH2_ERROR_CHANNEL_FAILURE) {
		s->opening = NULL;
		refuse(c, -EMFILE);
		return true;
	}
	return ssh_again(s, r);
}

/*
 * May it ask the server for something now? libssh2 as it comes (1.11.1) gives up on a request
 * when it reads the answer to another channel's; so there it is one at a time, and whoever was
 * let go meanwhile keeps the turn until it is closed, when its answer has surely come. That
 * delays next to nothing: opening is one at a time anyway, and the next channel is opened
 * while this one waits. But an answer that is late, or never comes, holds all others up: where
 * contrib/libssh2.patch is in, each asks at once.
 */
static bool may_ask(struct ssh_channel *c)
{
#ifdef SSH_OWN_ANSWERS
	return true;
#else
	if (!c->ssh->asking)
		c->ssh->asking = c;
	return c->ssh->asking == c;
#endif
}

/* What a request that the server answers has come to: 1 granted, 0 no answer yet, or refused. */
static int request_answer(struct ssh_channel *c, int r, int refused)
{
	if (r == LIBSSH2_ERROR_EAGAIN) {
		ssh_again(c->ssh, r);
		if (!c->ssh->stuck)
			c->op = OP_NONE;
		return 0;
	}
	c->ssh->asking = NULL;
	c->op = OP_NONE;
	if (r == LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED || r == LIBSSH2_ERROR_CHANNEL_FAILURE) {
		refuse(c, refused);
		return refused;
	}
	return r < 0 ? ssh_again(c->ssh, r) : 1;
}

static bool step_terminal(struct ssh_channel *c)
{
	int r;

	if (!may_ask(c))
		return false;
	c->op = OP_TERMINAL;
	r = libssh2_channel_request_pty_ex(c->ch, c->term, (unsigned)strlen(c->term), NULL, 0,
					   (int)c->cols, (int)c->rows, 0, 0);
	r = request_answer(c, r, -ENOTTY);
	if (r == 1)
		c->state = CH_REQUESTING;
	return r != 0;
}

static bool step_request(struct ssh_channel *c)
{
	const char *what = c->subsystem ? "subsystem" : "exec";
	int r;

	if (!may_ask(c))
		return false;
	c->op = OP_REQUEST;
	r = libssh2_channel_process_startup(c->ch, what, (unsigned)strlen(what),
						(const char *)buf_peek(&c->request),
						(unsigned)buf_size(&c->request));
	r = request_answer(c, r, c->subsystem ? -ENOSYS : -EACCES);
	if (r != 1)
		return r != 0;
	buf_finish(&c->request);
	c->state = CH_RUNNING;
	if (c->ops && c->ops->started)
		c->ops->started(c->user);
	return true;
}

/* --- running ------------------------------------------------------------ */

/* Deliver what has come on one stream. */
static bool read_stream(struct ssh_channel *c, int stream, size_t *budget)
{
	static uint8_t chunk[READ_CHUNK]; /* stays put: a repeated call needs the same buffer */
	bool moved = false;
	ssize_t n;

	c->op = stream ? OP_READ_ERR : OP_READ_OUT;
	while (*budget > 0 && !c->ssh->doomed) {
		n = libssh2_channel_read_ex(c->ch, stream ? SSH_EXTENDED_DATA_STDERR : 0,
					    (char *)chunk, sizeof(chunk));
		if (n <= 0) {
			if (n < 0 && n != LIBSSH2_ERROR_CHANNEL_CLOSED)
				ssh_again(c->ssh, (int)n);
			break;
		}
		moved = true;
		*budget -= (size_t)n < *budget ? (size_t)n : *budget;
		if (c->ops)
			c->ops->data(c->user, stream, chunk, (size_t)n);
	}
	if (!c->ssh->stuck)
		c->op = OP_NONE;
	if (*budget == 0)
		ssh_kick(c->ssh);
	return moved;
}

static bool write_queued(struct ssh_channel *c)
{
	size_t before = ssh_channel_queued(c);
	bool moved = false;

	c->op = OP_WRITE;
	while (!c->eof_sent) {
		ssize_t n;

		if (buf_size(&c->sending) == 0) {
			struct buf empty = c->sending;

			c->sending = c->queued;
			c->queued = empty;
			if (buf_size(&c->sending) == 0)
				break;
		}
		n = libssh2_channel_write_ex(c->ch, 0, (const char *)buf_peek(&c->sending),
					     buf_size(&c->sending));
		if (n == LIBSSH2_ERROR_CHANNEL_CLOSED || n == LIBSSH2_ERROR_CHANNEL_EOF_SENT) {
			buf_clear(&c->sending);	/* nobody is going to read it */
			buf_clear(&c->queued);
			break;
		}
		if (n <= 0) {
			if (n < 0)
				ssh_again(c->ssh, (int)n);
			break;
		}
		buf_consume(&c->sending, (size_t)n);
		moved = true;
	}
	if (!c->ssh->stuck)
		c->op = OP_NONE;
	if (moved && before >= SSH_WRITE_LOW && ssh_channel_queued(c) < SSH_WRITE_LOW &&
	    c->ops && c->ops->drained)
		c->ops->drained(c->user);
	return moved;
}

static bool send_size(struct ssh_channel *c)
{
	int r;

	if (!c->resized && c->op != OP_RESIZE)
		return false;
	c->op = OP_RESIZE;
	c->resized = false;
	r = libssh2_channel_request_pty_size_ex(c->ch, (int)c->cols, (int)c->rows, 0, 0);
	if (r == LIBSSH2_ERROR_EAGAIN)
		return ssh_again(c->ssh, r);
	c->op = OP_NONE;
	return r == 0 || ssh_again(c->ssh, r);
}

static bool send_eof(struct ssh_channel *c)
{
	int r;

	if (!c->eof_wanted || c->eof_sent || ssh_channel_queued(c) > 0)
		return false;
	c->op = OP_EOF;
	r = libssh2_channel_send_eof(c->ch);
	if (r == LIBSSH2_ERROR_EAGAIN)
		return ssh_again(c->ssh, r);
	c->op = OP_NONE;
	c->eof_sent = true;
	return r == 0 || ssh_again(c->ssh, r);
}

void ssh_channel_result(struct ssh_channel *c, struct ssh_exit *how)
{
	char *signal = NULL;
	size_t len = 0;

	*how = (struct ssh_exit){ .requested = true };
	how->status = libssh2_channel_get_exit_status(c->ch);
	/* libssh2 says 0 when the server told no status: believed only with evidence. */
	if (how->status == 0 && c->ssh->status_proven && !c->status_seen)
		how->status = -1;
	libssh2_channel_get_exit_signal(c->ch, &signal, &len, NULL, NULL, NULL, NULL);
	if (signal) {
		if (len >= sizeof(how->signal))
			len = sizeof(how->signal) - 1;
		memcpy(how->signal, signal, len);
		libssh2_free(c->ssh->session, signal);
		how->status = -1;
	}
}

/* The end: all data has been read, and the server has closed the channel. */
static bool check_end(struct ssh_channel *c)
{
	struct ssh_exit how;
	int r;

	if (c->status_seen && !c->exit_told) {
		c->exit_told = true;
		if (c->ops && c->ops->exited)
			c->ops->exited(c->user);
		return true;
	}
	if (libssh2_channel_eof(c->ch) != 1)
		return false;
	r = libssh2_channel_wait_closed(c->ch);
	if (r < 0)
		return ssh_again(c->ssh, r);
	ssh_channel_result(c, &how);
	tell_closed(c, &how);
	return true;
}

static bool step_running(struct ssh_channel *c)
{
	size_t budget = STEP_BYTES;
	enum channel_op first = c->op;
	bool moved = false;

	/* What was cut short comes first. */
	switch (first) {
	case OP_NONE:
	case OP_TERMINAL:
	case OP_REQUEST:
		break;
	case OP_RESIZE:
		moved |= send_size(c);
		break;
	case OP_READ_OUT:
	case OP_READ_ERR:
		moved |= read_stream(c, first == OP_READ_ERR, &budget);
		break;
	case OP_WRITE:
		moved |= write_queued(c);
		break;
	case OP_EOF:
		moved |= send_eof(c);
		break;
	}
#define GO_ON (c->state == CH_RUNNING && !c->ssh->stuck && !c->ssh->doomed && !c->ssh->why.code)
	if (GO_ON)
		moved |= read_stream(c, 0, &budget);
	if (GO_ON && budget > 0)
		moved |= read_stream(c, 1, &budget);
	if (GO_ON)
		moved |= send_size(c);
	if (GO_ON)
		moved |= write_queued(c);
	if (GO_ON)
		moved |= send_eof(c);
	if (GO_ON && budget > 0)
		moved |= check_end(c);
	return moved;
}

static bool step_ended(struct ssh_channel *c)
{
	int r;

	if (!c->ch) {
		channel_free(c);
		return true;
	}
	/*
	 * Wait until the server has closed too: a number that is free again must
	 * not meet a late message of its last owner.
	 */
	r = libssh2_channel_close(c->ch);
	if (r == LIBSSH2_ERROR_EAGAIN)
		return ssh_again(c->ssh, r);
	r = libssh2_channel_free(c->ch);
	if (r == LIBSSH2_ERROR_EAGAIN)
		return ssh_again(c->ssh, r);
	channel_free(c);
	return true;
}

bool channel_step(struct ssh_channel *c)
{
	if (!c->ops && c->state == CH_QUEUED) {
		channel_free(c);
		return true;
	}
	/* Let go of: end it, but not in the middle of a packet. */
	if (!c->ops && c->op == OP_NONE &&
	    (c->state == CH_RUNNING || c->state == CH_REQUESTING || c->state == CH_TERMINAL))
		c->state = CH_ENDED;
	switch (c->state) {
	case CH_QUEUED:
		return c->ssh->opening ? false : step_open(c);
	case CH_OPENING:
		return step_open(c);
	case CH_TERMINAL:
		return step_terminal(c);
	case CH_REQUESTING:
		return step_request(c);
	case CH_RUNNING:
		return step_running(c);
	case CH_ENDED:
		return step_ended(c);
	}
	return false;
}

/* --- what others call ---------------------------------------------------- */

static int channel_start(struct ssh *s, const void *request, size_t len,
			 const struct ssh_channel_ops *ops, void *user, struct ssh_channel **ch)
{
	struct ssh_channel *c;

	if (!ssh_is_up(s))
		return -EHOSTDOWN;
	if (len > SSH_COMMAND_MAX)
		return -E2BIG;
	c = channel_create(s, ops, user);
	buf_put(&c->request, request, len);
	*ch = c;
	return 0;
}

int ssh_exec(struct ssh *s, const void *command, size_t len, const struct ssh_channel_ops *ops,
	     void *user, struct ssh_channel **ch)
{
	return channel_start(s, command, len, ops, user, ch);
}

int ssh_ping(struct ssh *s, const struct ssh_channel_ops *ops, void *user, struct ssh_channel **ch)
{
	int r = channel_start(s, "", 0, ops, user, ch);

	if (r == 0)
		(*ch)->ping = true;
	return r;
}

int ssh_subsystem(struct ssh *s, const char *name, uint32_t window,
		  const struct ssh_channel_ops *ops, void *user, struct ssh_channel **ch)
{
	int r = channel_start(s, name, strlen(name), ops, user, ch);

	if (r == 0) {
		(*ch)->subsystem = true;
		if (window)
			(*ch)->window = window;
	}
	return r;
}

void ssh_channel_terminal(struct ssh_channel *c, const char *term, unsigned cols, unsigned rows)
{
	if (c->term)
		c->resized = true;
	else
		c->term = xstrdup(term);
	c->cols = cols;
	c->rows = rows;
	ssh_kick(c->ssh);
}

void ssh_channel_write(struct ssh_channel *c, const void *data, size_t len)
{
	assert(!c->eof_wanted);
	buf_put(&c->queued, data, len);
	ssh_kick(c->ssh);
}

size_t ssh_channel_queued(const struct ssh_channel *c)
{
	return buf_size(&c->sending) + buf_size(&c->queued);
}

void ssh_channel_eof(struct ssh_channel *c)
{
	c->eof_wanted = true;
	ssh_kick(c->ssh);
}

void ssh_channel_reject(struct ssh_channel *c, const char *why)
{
	ssh_fail(c->ssh, -EACCES, "%s", why);
}

void ssh_channel_destroy(struct ssh_channel *c)
{
	if (!c)
		return;
	c->ops = NULL;
	ssh_kick(c->ssh);
}
