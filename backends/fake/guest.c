/*
 * The guest of a fake sandbox: a listening socket on loopback, an `sshd -i`
 * a connection that is started right on the accepted socket (nothing relays
 * between them) inside the guest's own view of the world (cell.c), and whatever
 * the commands have started. A guest that nobody talks to costs one descriptor
 * and no process.
 *
 * Finding the processes of a guest: its sshd processes share the session of
 * the `sshd -i` that was started; what they run carries SBXFS_FAKE=<folder> in
 * its environment, or descends from such a process. The session ids are kept
 * in a file as well, for the daemon that comes after a kill -9: a stopped sshd
 * does not notice that its connection is gone.
 */
#include "fake.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "log.h"

/* A connection: the session of one sshd -i. */
struct conn {
	struct list link;
	struct box *box;
	struct loop_child child;	/* not set for one of an earlier daemon */
	bool watched;
	pid_t pid;
};

/* --- programs and folders ------------------------------------------------ */

static char *find_program(const char *const candidates[])
{
	for (; *candidates; candidates++)
		if (access(*candidates, X_OK) == 0)
			return xstrdup(*candidates);
	return NULL;
}

void guest_find_programs(struct fake *f, const struct backend_conf *conf)
{
	static const char *const sftp_servers[] = {
		"/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server",
		"/usr/lib/ssh/sftp-server", "/usr/libexec/sftp-server", NULL,
	};
	const char *configured = conf->get(conf, "sshd");
	const char *subsystem = conf->get(conf, "sftp_server");
	const char *const sshds[] = { configured ? configured : "/usr/sbin/sshd", NULL };

	f->sshd = find_program(sshds);
	/* A command for the guest's shell, when it is configured. */
	f->sftp_server = subsystem ? xstrdup(subsystem) : find_program(sftp_servers);
	if (!f->sshd)
		err_set(&f->unusable, -ENODEV, "openssh-server is not installed");
	else if (!f->sftp_server)
		err_set(&f->unusable, -ENODEV, "openssh-sftp-server is not installed");
	else
		cell_probe(&f->unusable);
}

static char *disk_path(const struct box *box, const char *name)
{
	return xasprintf("%s/disk/%s", box->dir, name);
}

char *guest_host_key_path(const struct box *box)
{
	return disk_path(box, "etc/ssh/host_key");
}

char *guest_console_path(const struct box *box)
{
	return xasprintf("%s/console", box->dir);
}

void guest_console(const struct box *box, const char *fmt, ...)
{
	char *path = guest_console_path(box);
	FILE *f = fopen(path, "ae");
	int64_t ms = clock_ms();
	va_list ap;

	va_start(ap, fmt);
	if (f) {
		fprintf(f, "[%5lld.%03lld] ", (long long)(ms / 1000), (long long)(ms % 1000));
		vfprintf(f, fmt, ap);
		fputc('\n', f);
		fclose(f);
	}
	va_end(ap);
	free(path);
}

/* A second name of a file of ours, in the guest's disk. */
static int lend(const struct box *box, const char *name, const char *as, struct err *err)
{
	char *from = xasprintf("%s/%s", box->fake->dir, name), *to = disk_path(box, as);
	int r = 0;

	if (link(from, to) < 0 && errno != EEXIST)
		r = err_sys(err, -errno, "cannot make %s", to);
	free(from);
	free(to);
	return r;
}

int guest_make(struct box *box, struct err *err)
{
	char *disk = disk_path(box, "");
	int r = 0;

	if (mkdir(box->dir, 0700) < 0 && errno != EEXIST)
		r = err_sys(err, -errno, "cannot make %s", box->dir);
	if (r == 0)
		r = cell_make(disk, box->name, err);
	if (r == 0)
		r = lend(box, "client_key.pub", "etc/ssh/authorized_keys", err);
	if (r == 0 && box->fake->shared_key) {
		r = lend(box, "host_key", "etc/ssh/host_key", err);
		if (r == 0)
			r = lend(box, "host_key.pub", "etc/ssh/host_key.pub", err);
	}
	free(disk);
	return r;
}

static int write_config(const struct box *box, struct err *err)
{
	const struct fake *f = box->fake;
	const struct switches *sw = switches_of(box->fake, box->name);
	char *path = disk_path(box, "etc/ssh/sshd_config");
	FILE *out = fopen(path, "we");
	int r = out ? 0 : -errno;

	if (out) {
		fprintf(out, "HostKey /etc/ssh/host_key\n");
		fprintf(out, "AuthorizedKeysFile /etc/ssh/authorized_keys\n");
		fprintf(out, "StrictModes no\nUsePAM no\nPidFile none\nUseDNS no\n");
		fprintf(out, "PasswordAuthentication no\nKbdInteractiveAuthentication no\n");
		fprintf(out, "PermitRootLogin yes\nPrintMotd no\nPrintLastLog no\n");
		fprintf(out, "MaxSessions %d\n",
			sw->max_sessions ? sw->max_sessions : f->max_sessions);
		fprintf(out, "Subsystem sftp %s\n", f->sftp_server);
		fprintf(out, "SetEnv \"SBXFS_FAKE=%s\"\n", box->dir);
		if (fclose(out) != 0)
			r = -errno;
	}
	if (r < 0)
		err_sys(err, r, "cannot write %s", path);
	free(path);
	return r;
}

/* The first two words of a .pub file. */
static int read_key(const char *private_path, char *key, size_t size, struct err *err)
{
	char *path = xasprintf("%s.pub", private_path);
	char line[1024], *space;
	FILE *f = fopen(path, "re");
	int r = 0;

	if (!f || !fgets(line, sizeof(line), f) || !(space = strchr(line, ' ')))
		r = err_set(err, -EIO, "cannot read the key %s", path);
	if (f)
		fclose(f);
	if (r == 0) {
		space[1 + strcspn(space + 1, " \n")] = 0;
		snprintf(key, size, "%s", line);
	}
	free(path);
	return r;
}

int guest_endpoint(struct box *box, struct endpoint *ep, struct err *err)
{
	const struct switches *sw = switches_of(box->fake, box->name);
	char *host_key = guest_host_key_path(box);
	int r;

	*ep = (struct endpoint){ .host = "127.0.0.1", .port = sw->via ? sw->via : box->port };
	snprintf(ep->user, sizeof(ep->user), "%s", cell_login());
	snprintf(ep->identity, sizeof(ep->identity), "%s/client_key", box->fake->dir);
	/* Any other valid key is a wrong one. */
	r = read_key(sw->wrong_host_key ? ep->identity : host_key, ep->host_key,
		     sizeof(ep->host_key), err);
	free(host_key);
	return r;
}

/* --- the socket and who connects to it ----------------------------------- */

static void conn_forget(struct conn *c)
{
	if (c->watched)
		loop_child_del(&c->child);
	list_del(&c->link);
	free(c);
}

static void conn_ended(struct loop_child *child, int status)
{
	struct conn *c = container_of(child, struct conn, child);

	c->watched = false;	/* its session may have members left: see mark_sshd */
	if (WIFEXITED(status) && (WEXITSTATUS(status) == 125 || WEXITSTATUS(status) == 126))
		log_error("vm=%s cannot enter its namespace or start sshd", c->box->name);
}

static struct conn *conn_add(struct box *box, pid_t pid)
{
	struct conn *c = xcalloc(1, sizeof(*c));

	c->box = box;
	c->pid = pid;
	list_add_tail(&box->conns, &c->link);
	box->had_conns = true;
	return c;
}

static char *sessions_path(const struct box *box)
{
	return xasprintf("%s/sessions", box->dir);
}

static void sessions_note(const struct box *box, pid_t pid)
{
	char *path = sessions_path(box);
	FILE *f = fopen(path, "ae");

	if (f) {
		fprintf(f, "%d\n", (int)pid);
		fclose(f);
	}
	free(path);
}

/* Those of earlier daemons. */
static void sessions_load(struct box *box)
{
	char *path = sessions_path(box);
	FILE *f = fopen(path, "re");
	int pid;

	while (f && fscanf(f, "%d", &pid) == 1)
		conn_add(box, pid);
	if (f)
		fclose(f);
	free(path);
}

/* In the child: only system calls. */
static void become_sshd(const struct box *box, const char *disk, int sock, int log,
			const sigset_t *mask)
{
	const char *const argv[] = {
		box->fake->sshd, "-i", "-e", "-f", "/etc/ssh/sshd_config", NULL,
	};
	const char *const env[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	struct sigaction normal = { .sa_handler = SIG_DFL };

	/* Stopped before it is sshd, it is found by the name all the same (read_stat). */
	prctl(PR_SET_NAME, "sshd");
	/* Nothing of the daemon's may live on here: its lock, the FUSE device. */
	dup2(sock, 0);
	dup2(sock, 1);
	dup2(log, 2);
	close_range(3, UINT_MAX, 0);
	for (int signo = 1; signo < NSIG; signo++)
		sigaction(signo, &normal, NULL);
	setsid();
	if (cell_enter(disk, box->name, !box->spec.no_network) < 0)
		_exit(125);
	sigprocmask(SIG_SETMASK, mask, NULL);
	execve(argv[0], (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)env);
	_exit(126);
}

/*
 * fork and not posix_spawn, which has no place for the namespace. Until the child has closed
 * what it inherited (a few system calls) it is waited for: were it stopped before that, as a
 * guest that is paused, and the daemon killed then, it would keep the FUSE device open.
 */
static pid_t start_sshd(struct box *box, int sock)
{
	char *path = xasprintf("%s/sshd.log", box->dir), *disk = disk_path(box, ""), none;
	int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), fds[2] = { -1, -1 };
	pid_t pid = log < 0 || pipe2(fds, O_CLOEXEC) < 0 ? -1 : fork();
	int r = errno;

	if (pid == 0)
		become_sshd(box, disk, sock, log, loop_signal_mask(box->fake->loop));
	if (fds[1] >= 0)
		close(fds[1]);
	if (pid > 0 && read(fds[0], &none, 1) != 0)
		log_warn("vm=%s its sshd may hold what is the daemon's", box->name);
	if (fds[0] >= 0)
		close(fds[0]);
	if (log >= 0)
		close(log);
	free(disk);
	free(path);
	return pid < 0 ? -r : pid;
}

static void connected(struct loop_fd *f, uint32_t events)
{
	struct box *box = container_of(f, struct box, listener);
	int sock = accept4(f->fd, NULL, NULL, SOCK_CLOEXEC);
	struct conn *c;
	pid_t pid;

	if (sock < 0)
		return;
	pid = start_sshd(box, sock);
	close(sock);
	if (pid < 0) {
		log_error("vm=%s cannot start sshd: %s", box->name, strerror((int)-pid));
		return;
	}
	sessions_note(box, pid);
	c = conn_add(box, pid);
	c->watched = loop_child_add(box->fake->loop, &c->child, pid, conn_ended) == 0;
}

/*
 * A port of our own. It is asked for twice: only one that was bound by number
 * stays ours while the socket does not listen.
 */
static int bind_port(struct box *box)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int sock, r, one = 1;

	a.sin_port = htons((uint16_t)switches_of(box->fake, box->name)->port);
	for (int attempt = 0; attempt < 10; attempt++) {
		sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (sock < 0)
			return -errno;
		/* To listen again while connections of before are there. */
		setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(sock, (struct sockaddr *)&a, len) == 0 && a.sin_port) {
			box->sock = sock;
			box->port = ntohs(a.sin_port);
			return 0;
		}
		r = a.sin_port ? -errno : getsockname(sock, (struct sockaddr *)&a, &len);
		close(sock);
		if (r < 0)	/* somebody took it in between: another one */
			a.sin_port = 0;
	}
	return -EADDRINUSE;
}

int guest_up(struct box *box, struct err *err)
{
	int r = write_config(box, err);

	if (r < 0)
		return r;
	r = box->sock < 0 ? bind_port(box) : 0;
	if (r == 0 && listen(box->sock, 128) < 0)
		r = -errno;
	if (r < 0) {
		guest_finish(box);
		return err_sys(err, r, "no port on loopback");
	}
	guest_accept(box, true);
	return 0;
}

void guest_accept(struct box *box, bool on)
{
	if (box->sock < 0 || on == (box->listener.loop != NULL))
		return;
	if (!on)
		loop_fd_del(&box->listener);
	else if (loop_fd_add(box->fake->loop, &box->listener, box->sock, EPOLLIN, connected) < 0)
		log_error("vm=%s cannot watch its port", box->name);
}

void guest_refuse(struct box *box)
{
	guest_accept(box, false);
	if (box->sock >= 0)
		shutdown(box->sock, SHUT_RDWR);
}

void guest_finish(struct box *box)
{
	guest_accept(box, false);
	if (box->sock >= 0)
		close(box->sock);
	box->sock = -1;
}

/* --- processes ------------------------------------------------------------ */

struct found {
	pid_t pid, parent, session;
	bool sshd, mine;
};

static bool read_stat(pid_t pid, struct found *p)
{
	char path[64], text[512], state, *close_paren;
	int fd, parent, session;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return false;
	text[n] = 0;
	close_paren = strrchr(text, ')');
	if (!close_paren ||
	    sscanf(close_paren, ") %c %d %*d %d", &state, &parent, &session) != 3)
		return false;
	*p = (struct found){ pid, parent, session, strstr(text, "(sshd") != NULL, false };
	return state != 'Z' && state != 'X';
}

/* Does the process carry the mark of this box in its environment? */
static bool has_mark(pid_t pid, const struct box *box)
{
	char *mark = xasprintf("SBXFS_FAKE=%s", box->dir);
	size_t len = strlen(mark) + 1, size = 0;
	char path[64], *text = NULL;
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/environ", (int)pid);
	f = fopen(path, "re");
	while (f && !found && getdelim(&text, &size, 0, f) >= 0)
		found = !strncmp(text, mark, len);
	if (f)
		fclose(f);
	free(text);
	free(mark);
	return found;
}

static struct found *list_processes(size_t *count)
{
	DIR *dir = opendir("/proc");
	struct found *all = NULL;
	size_t n = 0, room = 0;
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);

		if (n == room)
			all = xrealloc(all, (room = room ? 2 * room : 256) * sizeof(*all));
		if (pid > 0 && read_stat(pid, &all[n]))
			n++;
	}
	if (dir)
		closedir(dir);
	*count = n;
	return all;
}

/* Mark the sshd processes of the box, and forget the sessions that are empty. */
static void mark_sshd(struct box *box, struct found *all, size_t n)
{
	list_for_each_safe(c, &box->conns, struct conn, link) {
		bool alive = c->watched;

		for (size_t i = 0; i < n; i++)
			if ((all[i].session == c->pid && all[i].sshd) ||
			    (all[i].pid == c->pid && c->watched))	/* not yet sshd */
				alive = all[i].mine = true;
		if (!alive)
			conn_forget(c);
	}
}

static bool marked(const struct found *all, size_t n, pid_t pid)
{
	for (size_t i = 0; i < n; i++)
		if (all[i].pid == pid)
			return all[i].mine;
	return false;
}

static void mark_commands(struct box *box, struct found *all, size_t n)
{
	bool more = true;

	for (size_t i = 0; i < n; i++)
		all[i].mine |= has_mark(all[i].pid, box);
	while (more) {
		more = false;
		for (size_t i = 0; i < n; i++)
			if (!all[i].mine && marked(all, n, all[i].parent))
				more = all[i].mine = true;
	}
}

static size_t signal_them(struct box *box, int signo, bool commands)
{
	struct found *all;
	size_t n, count = 0;

	if (!box->had_conns)
		return 0;
	all = list_processes(&n);
	mark_sshd(box, all, n);
	if (commands)
		mark_commands(box, all, n);
	for (size_t i = 0; i < n; i++)
		if (all[i].mine && ++count && signo)
			kill(all[i].pid, signo);
	free(all);
	return count;
}

size_t guest_signal_sshd(struct box *box, int signo)
{
	return signal_them(box, signo, false);
}

size_t guest_signal_all(struct box *box, int signo)
{
	return signal_them(box, signo, true);
}

void guest_adopt(struct box *box)
{
	sessions_load(box);
	/* Their connections went with the daemon that had them. */
	guest_signal_sshd(box, SIGKILL);
}

void guest_forget(struct box *box)
{
	guest_finish(box);
	list_for_each_safe(c, &box->conns, struct conn, link)
		conn_forget(c);
}
