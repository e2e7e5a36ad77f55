/*
 * For tests of SFTP: a byte pipe on a loop with the system's sftp-server, or a peer
 * that the test plays itself, at the other end of a socket pair.
 */
#ifndef SBXFS_TEST_SFTP_PEER_H
#define SBXFS_TEST_SFTP_PEER_H

#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "loop.h"

/* No event of a test takes this long: it fails then. */
#define PATIENCE_MS 60000

struct peer {
	struct loop *loop;
	struct loop_fd fd;
	struct buf out;
	pid_t server;			/* 0: played by the test */
	int other;			/* the test's end, when it plays; else -1 */
	size_t drain_below;		/* tell drained when the queue falls below this */
	void (*data)(void *user, const uint8_t *, size_t);
	void (*drained)(void *user);
	void (*closed)(void *user);
	void *user;
};

static inline const char *sftp_server_path(void)
{
	static const char *const paths[] = {
		"/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server",
		"/usr/lib/ssh/sftp-server", "/usr/libexec/sftp-server", NULL,
	};

	for (int i = 0; paths[i]; i++)
		if (access(paths[i], X_OK) == 0)
			return paths[i];
	return NULL;
}

#define NEEDS_SFTP_SERVER()						\
	do {								\
		if (!sftp_server_path()) {				\
			print_message("# no sftp-server on this machine\n");	\
			skip();						\
		}							\
	} while (0)

static inline void peer_events(struct peer *p)
{
	loop_fd_set(&p->fd, EPOLLIN | (buf_size(&p->out) ? EPOLLOUT : 0));
}

static inline void peer_hang_up(struct peer *p)
{
	int fd = p->fd.fd;

	if (!p->fd.loop)
		return;
	loop_fd_del(&p->fd);
	close(fd);
	buf_finish(&p->out);
}

static inline void peer_send_out(struct peer *p)
{
	size_t before = buf_size(&p->out);

	while (buf_size(&p->out)) {
		ssize_t n = send(p->fd.fd, buf_peek(&p->out), buf_size(&p->out), MSG_NOSIGNAL);

		if (n <= 0)
			break;
		buf_consume(&p->out, (size_t)n);
	}
	peer_events(p);
	if (before >= p->drain_below && buf_size(&p->out) < p->drain_below && p->drained)
		p->drained(p->user);
}

static inline void peer_ready(struct loop_fd *f, uint32_t events)
{
	static uint8_t chunk[65536];
	struct peer *p = container_of(f, struct peer, fd);
	ssize_t n;

	if (events & EPOLLOUT)
		peer_send_out(p);
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)) || !p->fd.loop)
		return;
	n = recv(f->fd, chunk, sizeof(chunk), 0);
	if (n > 0) {
		p->data(p->user, chunk, (size_t)n);
	} else if (n == 0 || errno != EAGAIN) {
		peer_hang_up(p);
		if (p->closed)
			p->closed(p->user);
	}
}

static inline void peer_send(struct peer *p, const void *data, size_t len)
{
	if (!p->fd.loop)
		return;
	buf_put(&p->out, data, len);
	peer_events(p);
}

/* argv_extra: options of sftp-server, or NULL; played: the test has the other end. */
static inline void peer_start(struct peer *p, struct loop *loop, bool played,
			      const char *option, const char *value)
{
	int pair[2];

	p->loop = loop;
	p->other = -1;
	p->server = 0;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	fcntl(pair[0], F_SETFL, O_NONBLOCK);
	if (played) {
		p->other = pair[1];
	} else {
		p->server = fork();
		assert_true(p->server >= 0);
		if (p->server == 0) {
			sigset_t none;

			sigemptyset(&none);
			sigprocmask(SIG_SETMASK, &none, NULL);
			dup2(pair[1], 0);
			dup2(pair[1], 1);
			execl(sftp_server_path(), "sftp-server", option, value, (char *)NULL);
			_exit(127);
		}
		close(pair[1]);
	}
	assert_int_equal(loop_fd_add(loop, &p->fd, pair[0], EPOLLIN, peer_ready), 0);
}

static inline void peer_stop(struct peer *p)
{
	peer_hang_up(p);
	if (p->other >= 0)
		close(p->other);
	p->other = -1;
	if (p->server > 0) {
		kill(p->server, SIGKILL);
		waitpid(p->server, NULL, 0);
	}
	p->server = 0;
}

/* --- turning the loop until something has happened ---------------------------- */

static inline void peer_too_late(struct loop_timer *t)
{
	fail_msg("nothing happened for %d ms", PATIENCE_MS);
}

/* Callbacks that a test waits for end with loop_stop. */
#define RUN_UNTIL(loop, condition)					\
	do {								\
		struct loop_timer too_late_ = { 0 };				\
									\
		loop_timer_set(loop, &too_late_, PATIENCE_MS, peer_too_late);	\
		while (!(condition))					\
			loop_run(loop);					\
		loop_timer_cancel(&too_late_);				\
	} while (0)

#endif
