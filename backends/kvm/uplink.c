/*
 * The network of a machine as the daemon sees it: a process of its own (net/sbxfs-net.c)
 * beside its QEMU, which reads the guest's frames from QEMU's socket NAME.net and is
 * spoken to over its own, NAME.ctl.
 *
 * Start: QEMU's socket is made, its other end is given to the process, and the process
 * and QEMU start side by side. It holds QEMU's lock too, so that nobody takes a machine
 * for ended of which any process is left.
 * End: it ends by itself when QEMU does; run.c waits for both. A daemon that comes back
 * connects to it again. When it dies while QEMU lives, another one takes its place on
 * the same ports: the guest's connections are lost, and that is told.
 *
 * Kept: the QEMU of a machine that is suspended ends and its network does not. It
 * holds all connections until the next QEMU is given to it, in the state that the guest
 * was saved in. It is not given to a guest in any other state, whose TCP would not know of
 * them or be at another place in them. It ends when the daemon does.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "control.h"
#include "err.h"
#include "log.h"
#include "machine.h"
#include "proc.h"
#include "process.h"
#include "qemu_args.h"
#include "sock.h"

#define LIVES 5			/* in LIVES_MS; then it is left alone */
#define LIVES_MS (60 * 1000)

struct uplink {
	struct machine *m;
	struct loop_child child;
	struct loop_fd fd;	/* NAME.ctl */
	struct buf in, out;
	bool ready;		/* it has told what there is */
	bool kept;		/* it waits for the next QEMU */
	unsigned ssh_port;	/* where the guest's sshd is reached; 0: not known */
	struct err lost;	/* what is to be told when another one serves */
	unsigned lives;
	int64_t counted_from;
};

/* --- talking to it ------------------------------------------------------------------- */

static void hang_up(struct uplink *u)
{
	int fd = u->fd.fd;

	if (!u->fd.loop)
		return;
	loop_fd_del(&u->fd);
	close(fd);
	u->ready = u->kept = false;
	buf_clear(&u->in);
	buf_clear(&u->out);
}

static void flush(struct uplink *u)
{
	ssize_t n = 1;

	while (u->fd.loop && buf_size(&u->out) && n > 0) {
		n = send(u->fd.fd, buf_peek(&u->out), buf_size(&u->out), MSG_NOSIGNAL);
		if (n > 0)
			buf_consume(&u->out, (size_t)n);
	}
	/* An error shows as the end of what we read. */
	if (u->fd.loop)
		loop_fd_set(&u->fd, EPOLLIN | (buf_size(&u->out) ? EPOLLOUT : 0));
}

/* With a descriptor; the line is short and nothing waits before it, so it goes as a whole. */
static int say_with(struct uplink *u, enum control_verb verb, int fd)
{
	const struct control c = { .verb = verb };
	char line[CONTROL_LINE_MAX];
	struct iovec iov = { .iov_base = line, .iov_len = control_print(&c, line) };
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} passed = { .head = { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET,
			       .cmsg_type = SCM_RIGHTS } };
	const struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = passed.space,
		.msg_controllen = sizeof(passed.space),
	};
	ssize_t n;

	memcpy(CMSG_DATA(&passed.head), &fd, sizeof(fd));
	if (!u->fd.loop || buf_size(&u->out))
		return -ENOTCONN;
	n = sendmsg(u->fd.fd, &m, MSG_NOSIGNAL);
	return n == (ssize_t)iov.iov_len ? 0 : n < 0 ? -errno : -EIO;
}

static void say(struct uplink *u, enum control_verb verb, unsigned a, unsigned b)
{
	const struct control c = { verb, a, b };
	char line[CONTROL_LINE_MAX];

	if (!u->fd.loop)
		return;
	buf_put(&u->out, line, control_print(&c, line));
	flush(u);
}

bool uplink_ready(const struct machine *m)
{
	return m->uplink && m->uplink->ready;
}

void uplink_open(struct machine *m, unsigned guest, unsigned host)
{
	say(m->uplink, CONTROL_OPEN, guest, host);
}

void uplink_close(struct machine *m, unsigned guest)
{
	say(m->uplink, CONTROL_CLOSE, guest, 0);
}

static void ssh_port(struct uplink *u, unsigned host)
{
	struct machine *m = u->m;
	int before = m->rec.port;

	if (!host)
		return;
	u->ssh_port = host;
	m->rec.port = (int)host;
	if (u->lost.code)
		machine_trouble(m, "network", &u->lost);
	u->lost = ERR_NONE;
	if (m->state == VM_UP && before != m->rec.port) {
		machine_save(m);
		machine_report(m, VM_UP, NULL);		/* by another way */
	}
	news_reached(m);
}

static void port_failed(struct machine *m, unsigned guest, unsigned code)
{
	struct err err;

	err_sys(&err, -(int)code, "port %u of the guest could not be opened on the host", guest);
	if (guest == 22 && m->state == VM_BOOTING)
		run_give_up(m, &err);
	else
		machine_trouble(m, "port", &err);
}

static void hear(struct uplink *u, const struct control *c)
{
	struct machine *m = u->m;

	switch (c->verb) {
	case CONTROL_PORT:
		if (c->a == 22)
			ssh_port(u, c->b);
		else
			ports_heard(m, c->a, c->b);
		break;
	case CONTROL_FAILED:
		port_failed(m, c->a, c->b);
		break;
	case CONTROL_READY:
		u->ready = true;
		say(u, CONTROL_OPEN, 22, (unsigned)m->rec.port);
		ports_connected(m);
		break;
	default:
		break;
	}
}

/* False: it is none that can be talked to any more. */
static bool take_lines(struct uplink *u)
{
	char *end;

	while (u->fd.loop && (end = memchr(buf_peek(&u->in), '\n', buf_size(&u->in)))) {
		const char *line = (const char *)buf_peek(&u->in);
		struct control c;

		if (control_parse(&c, line, (size_t)(end - line)) < 0)
			return false;
		buf_consume(&u->in, (size_t)(end - line) + 1);
		hear(u, &c);
	}
	return buf_size(&u->in) < CONTROL_LINE_MAX;
}

static void readable(struct loop_fd *fd, uint32_t events)
{
	struct uplink *u = container_of(fd, struct uplink, fd);
	ssize_t n;

	if (events & EPOLLOUT)
		flush(u);
	n = recv(fd->fd, buf_reserve(&u->in, 1024), 1024, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		buf_commit(&u->in, (size_t)n);
	/* Its end is told by its pidfd; who talks nonsense is ended. */
	if (n <= 0) {
		hang_up(u);
	} else if (!take_lines(u)) {
		log_warn("vm=%s its network says what it should not", u->m->rec.name);
		hang_up(u);
		uplink_kill(u->m);
	}
}

static int connect_to(const struct machine *m, const char *end, struct err *err)
{
	char *name = machine_socket(m, end);
	int fd = sock_connect(m->rec.run_dir, name, err);

	free(name);
	return fd;
}

static int call(struct uplink *u, struct err *err)
{
	int fd = connect_to(u->m, "ctl", err), r;

	if (fd < 0)
		return fd;
	r = loop_fd_add(u->m->kvm->loop, &u->fd, fd, EPOLLIN, readable);
	if (r < 0) {
		close(fd);
		return err_sys(err, r, "cannot watch the network of %s", u->m->rec.name);
	}
	return 0;
}

/* --- its end ------------------------------------------------------------------------- */

void uplink_kill(struct machine *m)
{
	if (m->uplink)
		m->uplink->kept = false;
	if (uplink_alive(m) &&
	    syscall(SYS_pidfd_send_signal, m->uplink->child.fd.fd, SIGKILL, NULL, 0) < 0 &&
	    errno != ESRCH)
		log_error("vm=%s cannot end its network: %s", m->rec.name, strerror(errno));
}

bool uplink_alive(const struct machine *m)
{
	return m->uplink && m->uplink->child.fd.loop;
}

void uplink_let_go(struct machine *m)
{
	struct uplink *u = m->uplink;

	m->uplink = NULL;
	if (!u)
		return;
	hang_up(u);
	if (u->child.fd.loop)
		loop_child_del(&u->child);
	buf_finish(&u->in);
	buf_finish(&u->out);
	free(u);
}

static void explain(const struct machine *m, int status, struct err *err)
{
	char *log = machine_path(m, FILE_NET_LOG), said[200];

	last_words(log, said, sizeof(said));
	free(log);
	if (status > 0 && WIFSIGNALED(status))
		snprintf(said, sizeof(said), "killed by signal %d", WTERMSIG(status));
	err_set(err, -ENETDOWN, "the process that is its network has ended%s%s",
		said[0] ? ": " : "", said);
}

static int begin(struct uplink *u, int lock, struct err *err);

/* With a lock of its own, beside that of QEMU. */
static int begin_again(struct uplink *u, struct err *err)
{
	char *path = machine_path(u->m, FILE_LOCK);
	int lock = open(path, O_RDWR | O_CLOEXEC), r;

	r = lock < 0 || flock(lock, LOCK_SH | LOCK_NB) < 0 ?
		err_sys(err, -errno, "cannot lock %s", path) : begin(u, lock, err);
	if (lock >= 0)
		close(lock);
	free(path);
	return r;
}

static bool has_lives(struct uplink *u)
{
	int64_t now = loop_now(u->m->kvm->loop);

	if (now - u->counted_from > LIVES_MS) {
		u->counted_from = now;
		u->lives = 0;
	}
	return u->lives++ < LIVES;
}

static void ended(struct loop_child *c, int status)
{
	struct uplink *u = container_of(c, struct uplink, child);
	struct machine *m = u->m;
	struct err why, err;
	int r;

	hang_up(u);
	if (!run_network_ended(m))
		return;			/* it was time */
	ports_forget(m);
	explain(m, status, &why);
	r = has_lives(u) ? begin_again(u, &err) :
			   err_set(&err, -ENETDOWN, "it ends again and again");
	if (r == -ECONNREFUSED)
		return;			/* QEMU has just ended too, and will be heard of */
	machine_save(m);
	if (r == 0) {
		err_set(&u->lost, -ENETDOWN, "%s; another one was started, and the connections of "
			"before are lost", why.text);
		return;
	}
	err_prefix(&err, "%s, and it cannot be reached until it is restarted", why.text);
	machine_trouble(m, "network", &err);
}

/* --- its start ------------------------------------------------------------------------ */

/* "net-" and QEMU's uuid: nobody else has it in his command line. */
static void mark(const struct machine *m, char word[64])
{
	char uuid[37];

	qemu_uuid(m->rec.machine_id, uuid);
	snprintf(word, 64, "net-%s", uuid);
}

static pid_t spawn(struct uplink *u, int frames, int control, int log, int lock, struct err *err)
{
	const struct machine *m = u->m;
	char word[64], frames_text[12], control_text[12];
	const char *argv[] = {
		m->kvm->net_program, word, m->dir, frames_text, control_text,
		m->rec.spec.no_network ? "off" : "on", m->kvm->allow, NULL,
	};
	const int keep[] = { frames, control, lock };

	mark(m, word);
	snprintf(frames_text, sizeof(frames_text), "%d", frames);
	snprintf(control_text, sizeof(control_text), "%d", control);
	return proc_spawn(m->kvm->loop, argv, log, keep, 3, err);
}

static int watch(struct uplink *u, pid_t pid, struct err *err)
{
	int r = loop_child_add(u->m->kvm->loop, &u->child, pid, ended);

	if (r < 0)
		return err_sys(err, r, "cannot watch the network of %s", u->m->rec.name);
	u->m->rec.net_pid = pid;
	u->m->rec.net_start = process_start(pid);
	return 0;
}

static int open_log(const struct machine *m, struct err *err)
{
	char *path = machine_path(m, FILE_NET_LOG);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);

	if (fd < 0)
		err_sys(err, -errno, "cannot write %s", path);
	free(path);
	return fd;
}

static int begin(struct uplink *u, int lock, struct err *err)
{
	char *name = machine_socket(u->m, "ctl");
	int frames, control = -1, log = -1, r;
	pid_t pid;

	r = frames = connect_to(u->m, "net", err);
	if (r >= 0)
		r = control = sock_listen(u->m->rec.run_dir, name, err);
	if (r >= 0)
		r = log = open_log(u->m, err);
	if (r >= 0) {
		r = pid = spawn(u, frames, control, log, lock, err);
		if (pid > 0)
			r = watch(u, pid, err);
	}
	if (r >= 0)
		r = call(u, err);
	/* Without these ends it finds itself alone, and ends. */
	if (frames >= 0)
		close(frames);
	if (control >= 0)
		close(control);
	if (log >= 0)
		close(log);
	free(name);
	return r < 0 ? err->code : 0;
}

static struct uplink *new_uplink(struct machine *m)
{
	struct uplink *u;

	uplink_let_go(m);	/* of a start that failed */
	u = xcalloc(1, sizeof(*u));
	u->m = m;
	u->fd.fd = -1;
	m->uplink = u;
	return u;
}

int uplink_start(struct machine *m, int lock, struct err *err)
{
	return begin(new_uplink(m), lock, err);
}

static pid_t find_pid(const struct machine *m)
{
	char word[64];

	if (m->rec.net_pid > 0 && m->rec.net_start &&
	    process_start(m->rec.net_pid) == m->rec.net_start)
		return m->rec.net_pid;
	mark(m, word);
	return process_find(word);
}

int uplink_adopt(struct machine *m, struct err *err)
{
	struct uplink *u = new_uplink(m);
	pid_t pid = find_pid(m);
	int r = -ESRCH;

	if (pid)
		r = watch(u, pid, err);
	if (r < 0) {
		err_set(&u->lost, -ENETDOWN, "the process that is its network has ended; another "
			"one was started, and the connections of before are lost");
		return begin_again(u, err);
	}
	r = call(u, err);
	if (r == -ENOENT)	/* somebody has removed its socket: it serves all the same */
		return err_prefix(err, "nothing can be asked of its network until it is restarted");
	if (r < 0)
		uplink_kill(m);	/* ended() starts another one */
	return 0;
}

/* --- kept --------------------------------------------------------------------------- */

void uplink_keep(struct machine *m)
{
	struct uplink *u = m->uplink;

	if (!uplink_alive(m) || !u->ready || !u->ssh_port || m->legacy)
		return;
	say(u, CONTROL_KEEP, 1, 0);
	u->kept = true;
}

unsigned uplink_kept(const struct machine *m)
{
	return uplink_alive(m) && m->uplink->kept ? m->uplink->ssh_port : 0;
}

int uplink_reach(const struct machine *m, struct err *err)
{
	return connect_to(m, "net", err);
}

void uplink_plug(struct machine *m, int frames)
{
	struct uplink *u = m->uplink;
	int r;

	u->kept = false;
	r = say_with(u, CONTROL_FRAMES, frames);
	close(frames);
	if (r < 0) {
		log_warn("vm=%s cannot speak to its network: %s", m->rec.name, strerror(-r));
		uplink_kill(m);		/* ended() starts another one */
		return;
	}
	m->rec.net_pid = u->child.pid;
	m->rec.net_start = process_start(u->child.pid);
	/* Answered as by a new one. */
	say(u, CONTROL_OPEN, 22, u->ssh_port);
	ports_connected(m);
}

pid_t uplink_pid(const struct machine *m)
{
	return uplink_alive(m) ? m->uplink->child.pid : 0;
}

void uplink_watch(struct machine *m)
{
	pid_t pid = find_pid(m);

	if (pid)
		watch(new_uplink(m), pid, NULL);	/* or it has ended meanwhile */
}

bool uplink_end_unseen(struct machine *m)
{
	pid_t pid = find_pid(m);

	return pid && kill(pid, SIGKILL) == 0;
}
