/*
 * QMP: an object a line in both directions. QEMU says hello first:
 * {"QMP": ...}; then it wants qmp_capabilities before anything else. Replies
 * carry the id of their command.
 *
 * States: greeted is false until QEMU's hello; commands wait in out until then.
 */
#include "qmp.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "list.h"
#include "log.h"
#include "loop.h"

#define LINE_MAX_BYTES (1 << 20)

struct call {
	struct list link;
	uint32_t id;
	qmp_cb *cb;
	void *user;
};

struct qmp {
	struct loop *loop;
	struct loop_fd fd;
	const struct qmp_events *events;
	void *user;
	struct buf in, out;
	int passed;		/* a descriptor that goes with the byte at passed_at of out; -1 */
	size_t passed_at;
	struct list calls;
	uint32_t last_id;
	bool greeted;
	bool dead;		/* closed has been told */
	bool busy;		/* a callback runs: qmp_close leaves the freeing to us */
	bool closed;
};

/* --- out ----------------------------------------------------------------- */

static ssize_t send_some(struct qmp *q)
{
	bool now = q->passed >= 0 && q->passed_at == 0;
	size_t len = buf_size(&q->out);
	struct iovec iov = { .iov_base = buf_peek(&q->out) };
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	iov.iov_len = q->passed >= 0 && !now && q->passed_at < len ? q->passed_at : len;
	if (now) {
		m.msg_control = control.space;
		m.msg_controllen = sizeof(control.space);
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.head), &q->passed, sizeof(int));
	}
	n = sendmsg(q->fd.fd, &m, MSG_NOSIGNAL);
	if (n > 0 && now) {
		close(q->passed);
		q->passed = -1;
	} else if (n > 0 && q->passed >= 0) {
		q->passed_at -= (size_t)n;
	}
	return n;
}

static void flush(struct qmp *q)
{
	ssize_t n = 1;

	if (q->dead || !q->greeted)
		return;
	while (buf_size(&q->out) && n > 0) {
		n = send_some(q);
		if (n > 0)
			buf_consume(&q->out, (size_t)n);
	}
	/* An error shows as the end of what we read. */
	loop_fd_set(&q->fd, EPOLLIN | (buf_size(&q->out) ? EPOLLOUT : 0));
}

static void put_command(struct buf *out, const char *command, cJSON *args, uint32_t id)
{
	cJSON *j = cJSON_CreateObject();
	char *text;

	cJSON_AddStringToObject(j, "execute", command);
	if (args)
		cJSON_AddItemToObject(j, "arguments", args);
	cJSON_AddNumberToObject(j, "id", id);
	text = cJSON_PrintUnformatted(j);
	buf_printf(out, "%s\n", text);
	free(text);
	cJSON_Delete(j);
}

void qmp_command(struct qmp *q, const char *command, struct cJSON *args, qmp_cb *cb, void *user)
{
	struct call *call = xcalloc(1, sizeof(*call));

	call->id = ++q->last_id;
	call->cb = cb;
	call->user = user;
	list_add_tail(&q->calls, &call->link);
	put_command(&q->out, command, args, call->id);
	flush(q);
}

void qmp_command_fd(struct qmp *q, const char *command, struct cJSON *args, int fd, qmp_cb *cb,
		    void *user)
{
	if (q->passed >= 0)
		close(q->passed);	/* never seen: one at a time, and QEMU reads quickly */
	q->passed = fd;
	q->passed_at = buf_size(&q->out);
	qmp_command(q, command, args, cb, user);
}

/* --- in ------------------------------------------------------------------ */

static struct call *find_call(struct qmp *q, const cJSON *id)
{
	list_for_each (call, &q->calls, struct call, link)
		if (cJSON_IsNumber(id) && id->valuedouble == call->id)
			return call;
	return NULL;
}

static void answer(struct call *call, const cJSON *result, const struct err *err)
{
	list_del(&call->link);
	if (call->cb)
		call->cb(call->user, result, err);
	else if (err)
		log_warn("qmp: %s", err->text);
	free(call);
}

static void take_reply(struct qmp *q, const cJSON *j)
{
	const cJSON *result = cJSON_GetObjectItemCaseSensitive(j, "return");
	const cJSON *error = cJSON_GetObjectItemCaseSensitive(j, "error");
	const char *desc = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(error, "desc"));
	struct call *call = find_call(q, cJSON_GetObjectItemCaseSensitive(j, "id"));
	struct err err = ERR_NONE;

	if (!call || (!result && !error))
		return;
	if (error)
		err_set(&err, -EIO, "QEMU says: %s", desc ? desc : "an error without words");
	answer(call, result, error ? &err : NULL);
}

static void take_greeting(struct qmp *q)
{
	struct buf waiting = q->out;

	q->greeted = true;
	q->out = BUF_INIT;
	put_command(&q->out, "qmp_capabilities", NULL, 0);
	if (buf_size(&waiting))
		buf_put(&q->out, buf_peek(&waiting), buf_size(&waiting));
	if (q->passed >= 0)
		q->passed_at += buf_size(&q->out) - buf_size(&waiting);
	buf_finish(&waiting);
	flush(q);
}

/* 0, or -EBADMSG for what is no QMP. */
static int take_line(struct qmp *q, const char *line, size_t len)
{
	cJSON *j = cJSON_ParseWithLength(line, len);
	const cJSON *event = cJSON_GetObjectItemCaseSensitive(j, "event");

	if (!cJSON_IsObject(j)) {
		cJSON_Delete(j);
		return -EBADMSG;
	}
	if (cJSON_IsString(event))
		q->events->event(q->user, event->valuestring,
				 cJSON_GetObjectItemCaseSensitive(j, "data"));
	else if (cJSON_GetObjectItemCaseSensitive(j, "QMP"))
		take_greeting(q);
	else
		take_reply(q, j);
	cJSON_Delete(j);
	return 0;
}

/* All whole lines that are there. */
static int take_lines(struct qmp *q)
{
	uint8_t *end;
	int r = 0;

	while (!r && !q->closed && buf_size(&q->in) &&
	       (end = memchr(buf_peek(&q->in), '\n', buf_size(&q->in)))) {
		size_t len = (size_t)(end - buf_peek(&q->in));
		char *line = xstrndup((char *)buf_peek(&q->in), len);

		buf_consume(&q->in, len + 1);
		r = line[strspn(line, " \r\t")] ? take_line(q, line, len) : 0;
		free(line);
	}
	return r < 0 ? r : buf_size(&q->in) > LINE_MAX_BYTES ? -EBADMSG : 0;
}

static void hang_up(struct qmp *q)
{
	int fd = q->fd.fd;

	if (!q->fd.loop)
		return;
	loop_fd_del(&q->fd);
	close(fd);
}

static void die(struct qmp *q, const struct err *why)
{
	q->dead = true;
	hang_up(q);
	while (!q->closed && !list_empty(&q->calls))
		answer(list_entry(q->calls.next, struct call, link), NULL, why);
	if (!q->closed)
		q->events->closed(q->user, why);
}

static void qmp_free(struct qmp *q)
{
	if (q->passed >= 0)
		close(q->passed);
	list_for_each_safe (call, &q->calls, struct call, link)
		free(call);
	buf_finish(&q->in);
	buf_finish(&q->out);
	free(q);
}

static void readable(struct loop_fd *f, uint32_t events)
{
	struct qmp *q = container_of(f, struct qmp, fd);
	struct err why = ERR_NONE;
	ssize_t n;

	if (events & EPOLLOUT)
		flush(q);
	n = recv(f->fd, buf_reserve(&q->in, 65536), 65536, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	q->busy = true;
	if (n > 0) {
		buf_commit(&q->in, (size_t)n);
		if (take_lines(q) < 0)
			err_set(&why, -EBADMSG, "QEMU said something that is not QMP");
	} else {
		err_set(&why, -EPIPE, "QEMU closed its QMP connection");
	}
	if (!q->closed && why.code)
		die(q, &why);
	q->busy = false;
	if (q->closed)
		qmp_free(q);
}

/* --- life ---------------------------------------------------------------- */

int qmp_open(struct qmp **qmp, struct loop *loop, int fd, const struct qmp_events *events,
	     void *user, struct err *err)
{
	struct qmp *q = xcalloc(1, sizeof(*q));
	int r;

	q->loop = loop;
	q->passed = -1;
	q->events = events;
	q->user = user;
	list_init(&q->calls);
	r = loop_fd_add(loop, &q->fd, fd, EPOLLIN, readable);
	if (r < 0) {
		err_sys(err, r, "cannot watch the QMP connection");
		close(fd);
		free(q);
		return r;
	}
	*qmp = q;
	return 0;
}

void qmp_close(struct qmp *q)
{
	if (!q)
		return;
	q->dead = true;
	hang_up(q);
	if (q->busy)
		q->closed = true;
	else
		qmp_free(q);
}
