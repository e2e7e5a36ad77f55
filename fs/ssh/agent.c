/* The SSH agent's client: see agent.h. A request is sent whole, then its answer is awaited. */
#include "agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "loop.h"

#define MESSAGE_MAX (256 * 1024)

enum { AGENT_FAILURE = 5, REQUEST_IDENTITIES = 11, IDENTITIES_ANSWER = 12, SIGN_REQUEST = 13,
       SIGN_RESPONSE = 14 };

struct agent {
	struct loop *loop;
	struct loop_fd fd;
	int sock;
	uint8_t expect;
	struct buf out, in;
	agent_cb *cb;
	void *user;
};

static void answer(struct agent *a, const uint8_t *body, size_t len, const struct err *why)
{
	agent_cb *cb = a->cb;

	a->cb = NULL;
	if (cb)
		cb(a->user, body, len, why);
}

static void broken(struct agent *a, const char *what)
{
	struct err why;

	loop_fd_del(&a->fd);
	err_set(&why, -EACCES, "the SSH agent %s", what);
	answer(a, NULL, 0, &why);
}

/* A whole message: uint32 length, byte type, body. */
static void take_message(struct agent *a)
{
	struct rbuf r = { buf_peek(&a->in), buf_size(&a->in) };
	struct err why;
	uint32_t len;
	uint8_t type;

	if (rbuf_u32(&r, &len) < 0)
		return;
	if (len < 1 || len > MESSAGE_MAX) {
		broken(a, "broke its protocol");
		return;
	}
	if (r.len < len)
		return;
	rbuf_u8(&r, &type);
	if (type == a->expect) {
		answer(a, r.data, len - 1, NULL);
		return;
	}
	err_set(&why, -EACCES, "the SSH agent refused (message %u): is the key there and usable?",
		type);
	answer(a, NULL, 0, &why);
}

static void on_socket(struct loop_fd *f, uint32_t events)
{
	struct agent *a = container_of(f, struct agent, fd);
	ssize_t n;

	while (buf_size(&a->out) > 0) {
		n = send(a->sock, buf_peek(&a->out), buf_size(&a->out), MSG_NOSIGNAL);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0) {
			broken(a, "went away");
			return;
		}
		buf_consume(&a->out, (size_t)n);
	}
	loop_fd_set(&a->fd, EPOLLIN);
	n = recv(a->sock, buf_reserve(&a->in, 4096), 4096, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		broken(a, "closed the connection");
		return;
	}
	buf_commit(&a->in, (size_t)n);
	take_message(a);
}

struct agent *agent_create(struct loop *loop, struct err *err)
{
	const char *path = getenv("SSH_AUTH_SOCK");
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct agent *a;
	int sock;

	if (!path || !*path || strlen(path) >= sizeof(addr.sun_path)) {
		err_set(err, -EACCES, "there is no SSH agent: SSH_AUTH_SOCK is not set");
		return NULL;
	}
	strcpy(addr.sun_path, path);
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (sock < 0 || connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		err_set(err, -EACCES, "the SSH agent at %s does not answer: %s", path,
			strerror(errno));
		if (sock >= 0)
			close(sock);
		return NULL;
	}
	a = xcalloc(1, sizeof(*a));
	a->loop = loop;
	a->sock = sock;
	return a;
}

void agent_destroy(struct agent *a)
{
	if (!a)
		return;
	loop_fd_del(&a->fd);
	close(a->sock);
	buf_finish(&a->in);
	buf_finish(&a->out);
	free(a);
}

/* The message in a->out, but for its length. */
static void ask(struct agent *a, uint8_t expect, agent_cb *cb, void *user)
{
	buf_poke_u32(&a->out, a->out.off, (uint32_t)buf_size(&a->out) - 4);
	buf_clear(&a->in);
	a->expect = expect;
	a->cb = cb;
	a->user = user;
	loop_fd_del(&a->fd);
	loop_fd_add(a->loop, &a->fd, a->sock, EPOLLIN | EPOLLOUT, on_socket);
}

void agent_list(struct agent *a, agent_cb *cb, void *user)
{
	buf_clear(&a->out);
	buf_put_u32(&a->out, 0);
	buf_put_u8(&a->out, REQUEST_IDENTITIES);
	ask(a, IDENTITIES_ANSWER, cb, user);
}

void agent_sign(struct agent *a, const void *key, size_t key_len, const void *data, size_t len,
		uint32_t flags, agent_cb *cb, void *user)
{
	buf_clear(&a->out);
	buf_put_u32(&a->out, 0);
	buf_put_u8(&a->out, SIGN_REQUEST);
	buf_put_string(&a->out, key, key_len);
	buf_put_string(&a->out, data, len);
	buf_put_u32(&a->out, flags);
	ask(a, SIGN_RESPONSE, cb, user);
}
