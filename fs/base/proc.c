/*
 * Children. A short command (proc_run) is over when its process has ended and
 * both of its pipes have: in any order, and what a grandchild holds open
 * counts only until the process itself has ended.
 */
#include "proc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "log.h"
#include "loop.h"

#define OUTPUT_MAX (64 * 1024)

extern char **environ;

struct pipe_end {
	struct loop_fd fd;
	struct buf text;
};

struct proc {
	struct loop_child child;
	struct pipe_end out, err;
	struct loop_timer deadline;
	bool overdue;
	proc_cb *cb;
	void *user;
};

/* Take what is there; false at end of file or error. */
static bool pipe_drain(struct pipe_end *p)
{
	char chunk[4096];
	ssize_t n;

	while ((n = read(p->fd.fd, chunk, sizeof(chunk))) > 0) {
		size_t room = OUTPUT_MAX - buf_size(&p->text);

		buf_put(&p->text, chunk, (size_t)n < room ? (size_t)n : room);
	}
	return n < 0 && (errno == EAGAIN || errno == EINTR);
}

static void pipe_close(struct pipe_end *p)
{
	int fd = p->fd.fd;

	if (!p->fd.loop)
		return;
	loop_fd_del(&p->fd);
	close(fd);
}

static void pipe_readable(struct loop_fd *f, uint32_t events)
{
	struct pipe_end *p = container_of(f, struct pipe_end, fd);

	if (!pipe_drain(p))
		pipe_close(p);
}

static void proc_free(struct proc *p)
{
	loop_timer_cancel(&p->deadline);
	pipe_close(&p->out);
	pipe_close(&p->err);
	buf_finish(&p->out.text);
	buf_finish(&p->err.text);
	free(p);
}

static void ended(struct loop_child *c, int status)
{
	struct proc *p = container_of(c, struct proc, child);

	if (p->out.fd.loop)
		pipe_drain(&p->out);
	if (p->err.fd.loop)
		pipe_drain(&p->err);
	buf_put_u8(&p->out.text, 0);
	buf_put_u8(&p->err.text, 0);
	p->cb(p->user, p->overdue ? -1 : status, (char *)buf_peek(&p->out.text),
	      (char *)buf_peek(&p->err.text));
	proc_free(p);
}

static void overdue(struct loop_timer *t)
{
	struct proc *p = container_of(t, struct proc, deadline);

	p->overdue = true;
	kill(-p->child.pid, SIGKILL);
}

static int pipe_open(struct loop *loop, struct pipe_end *p, int *theirs)
{
	int fds[2], r;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	r = loop_fd_add(loop, &p->fd, fds[0], EPOLLIN, pipe_readable);
	if (r < 0) {
		close(fds[0]);
		close(fds[1]);
		return r;
	}
	*theirs = fds[1];
	return 0;
}

static void attr_init(posix_spawnattr_t *attr, struct loop *loop, short flag)
{
	sigset_t all;

	sigfillset(&all);
	posix_spawnattr_init(attr);
	posix_spawnattr_setsigdefault(attr, &all);
	posix_spawnattr_setsigmask(attr, loop_signal_mask(loop));
	posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | flag);
}

static pid_t spawn(struct loop *loop, const char *const argv[], short flag,
		   posix_spawn_file_actions_t *actions, struct err *err)
{
	posix_spawnattr_t attr;
	pid_t pid;
	int r;

	attr_init(&attr, loop, flag);
	r = posix_spawnp(&pid, argv[0], actions, &attr, (char *const *)(uintptr_t)argv, environ);
	posix_spawnattr_destroy(&attr);
	if (r == ENOENT)
		return err_set(err, -r, "%s is not installed", argv[0]);
	return r ? err_sys(err, -r, "cannot start %s", argv[0]) : pid;
}

int proc_run(struct loop *loop, const char *const argv[], int64_t deadline_ms,
	     proc_cb *cb, void *user, struct proc **proc, struct err *err)
{
	struct proc *p = xcalloc(1, sizeof(*p));
	posix_spawn_file_actions_t actions;
	int out = -1, err_fd = -1, r;
	pid_t pid;

	p->cb = cb;
	p->user = user;
	posix_spawn_file_actions_init(&actions);
	r = pipe_open(loop, &p->out, &out);
	if (r == 0)
		r = pipe_open(loop, &p->err, &err_fd);
	if (r < 0) {
		err_sys(err, r, "cannot start %s", argv[0]);
		goto out;
	}
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, out, 1);
	posix_spawn_file_actions_adddup2(&actions, err_fd, 2);
	/* A group of its own: the deadline ends the children of the command too. */
	r = pid = spawn(loop, argv, POSIX_SPAWN_SETPGROUP, &actions, err);
	if (r < 0)
		goto out;
	r = loop_child_add(loop, &p->child, pid, ended);
	if (r < 0) {
		err_sys(err, r, "cannot watch %s", argv[0]);
		kill(-pid, SIGKILL);
		waitpid(pid, NULL, 0);
		goto out;
	}
	loop_timer_set(loop, &p->deadline, deadline_ms, overdue);
	if (proc)
		*proc = p;
	r = 0;
out:
	posix_spawn_file_actions_destroy(&actions);
	if (out >= 0)
		close(out);
	if (err_fd >= 0)
		close(err_fd);
	if (r < 0)
		proc_free(p);
	return r;
}

void proc_cancel(struct proc *p)
{
	if (!p)
		return;
	kill(-p->child.pid, SIGKILL);
	loop_child_del(&p->child);
	/* SIGKILL has been sent to a child of ours: this does not wait long. */
	waitpid(p->child.pid, NULL, 0);
	proc_free(p);
}

static const char *last_line(const char *text, size_t *len)
{
	const char *end = text + strlen(text), *start;

	while (end > text && (end[-1] == '\n' || end[-1] == '\r' || end[-1] == ' '))
		end--;
	for (start = end; start > text && start[-1] != '\n'; start--)
		;
	*len = (size_t)(end - start);
	return start;
}

int proc_explain(struct err *err, const char *name, int status, const char *err_out)
{
	size_t len;
	const char *line = last_line(err_out, &len);
	int shown = len > 300 ? 300 : (int)len;

	if (status == 0)
		return 0;
	if (status == -1)
		return err_set(err, -ETIMEDOUT, "%s did not end in time and was killed", name);
	if (WIFSIGNALED(status))
		return err_set(err, -EIO, "%s was killed by signal %d%s%.*s", name,
			       WTERMSIG(status), shown ? ": " : "", shown, line);
	return err_set(err, -EIO, "%s ended with %d%s%.*s", name, WEXITSTATUS(status),
		       shown ? ": " : "", shown, line);
}

pid_t proc_spawn(struct loop *loop, const char *const argv[], int out_fd,
		 const int *keep_fds, size_t n, struct err *err)
{
	posix_spawn_file_actions_t actions;
	pid_t pid;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, out_fd, 1);
	posix_spawn_file_actions_adddup2(&actions, out_fd, 2);
	for (size_t i = 0; i < n; i++)	/* dup2 onto itself clears close-on-exec in the child */
		posix_spawn_file_actions_adddup2(&actions, keep_fds[i], keep_fds[i]);
	pid = spawn(loop, argv, POSIX_SPAWN_SETSID, &actions, err);
	posix_spawn_file_actions_destroy(&actions);
	return pid;
}
