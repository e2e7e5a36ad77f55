/*
 * The identity service: /usr/lib/sbxfs/identity, started by
 * sbxfs-identity.service before sshd at every boot, and once more, as
 * "identity ready", when sshd listens (ssh.service.d/sbxfs.conf).
 *
 * It says hello on the virtio-serial port, takes the identity that the host
 * answers with, applies it, and tells systemd that it is started, upon which
 * sshd starts. It stays: when the host's end goes (the daemon was restarted)
 * it says hello again, which the kernel holds back until somebody is there.
 * The lines are described in PROTOCOL.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "apply.h"
#include "parse.h"

#define PORT_NAME "org.sbxfs.identity"
#define READY_FIFO "/run/sbxfs-ready"

struct service {
	int port;
	int fifo;		/* a byte comes when sshd listens */
	bool identified, ready;
	bool cloned;		/* sshd restarts with a new identity */
	char nonce[17];
	struct identity identity;
	char line[IDENTITY_LINE_MAX];
	size_t len;
	bool overlong;		/* skip to the next newline */
};

static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

/* Without udev there are no links by name: ask sysfs which port is ours. */
static int open_port(void)
{
	char path[320], name[64];
	DIR *dir = opendir("/sys/class/virtio-ports");
	struct dirent *entry;
	int fd = -1;

	while (dir && fd < 0 && (entry = readdir(dir))) {
		FILE *f;

		snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", entry->d_name);
		f = fopen(path, "re");
		if (!f)
			continue;
		if (fgets(name, sizeof(name), f) && !strcmp(name, PORT_NAME "\n")) {
			snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
			fd = open(path, O_RDWR | O_CLOEXEC);
		}
		fclose(f);
	}
	if (dir)
		closedir(dir);
	return fd;
}

/*
 * The driver may be loaded after us (by udev, in an imported system), and the port has
 * its name a moment after it is there: the kernel tells of both.
 */
static int await_port(void)
{
	const struct sockaddr_nl all = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int news = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT), port;
	char event[4096];

	if (news < 0 || bind(news, (const struct sockaddr *)&all, sizeof(all)))
		die("listening for the kernel's news");
	/* Events that did not fit are told as ENOBUFS: then it is time to look as well. */
	while ((port = open_port()) < 0)
		if (recv(news, event, sizeof(event), 0) < 0 && errno != EINTR && errno != ENOBUFS)
			die("waiting for the port " PORT_NAME);
	close(news);
	return port;
}

/* Blocks while no host is connected: see the head of this file. */
static void say(struct service *s, const char *line)
{
	size_t len = strlen(line);

	while (len) {
		ssize_t n = write(s->port, line, len);

		if (n < 0 && errno != EINTR)
			die("writing to the port");
		if (n > 0) {
			line += n;
			len -= (size_t)n;
		}
	}
}

static void say_hello(struct service *s)
{
	uint8_t random[8] = { 0 };
	char line[64];

	s->len = 0;
	s->overlong = false;
	s->identity.open = false;
	if (getrandom(random, sizeof(random), GRND_INSECURE) < 0)
		die("getrandom");
	for (size_t i = 0; i < sizeof(random); i++)
		sprintf(s->nonce + 2 * i, "%02x", random[i]);
	/* A host of before there were clones skips the first line. */
	snprintf(line, sizeof(line), "can clone\nhello 1 %s %s\n", s->nonce,
		 s->ready ? "ready" : "new");
	say(s, line);
}

static void notify_systemd(void)
{
	static const char message[] = "READY=1";
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	socklen_t len;
	int fd;

	if (!path || strlen(path) >= sizeof(to.sun_path))
		return;
	strcpy(to.sun_path, path);
	if (path[0] == '@')
		to.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	if (fd < 0 || sendto(fd, message, sizeof(message) - 1, 0, (struct sockaddr *)&to, len) < 0)
		die("telling systemd");
	close(fd);
}

/*
 * From OpenSSH 9.8 on a new connection is served with the keys that the
 * listener has read at its start; before that, with those in the files.
 */
static bool restart_sshd(void)
{
	char *argv[] = { "/usr/bin/systemctl", "restart", "--no-block", "ssh.service", NULL };
	pid_t pid;

	if (access("/usr/lib/openssh/sshd-session", F_OK))
		return false;
	return posix_spawn(&pid, argv[0], NULL, NULL, argv, environ) == 0;
}

/* A copy of another machine has become itself; sshd may have to follow. */
static void cloned(struct service *s)
{
	s->cloned = restart_sshd();
	if (!s->cloned)
		say(s, "cloned\n");
	s->ready = true;
}

static void take_identity(struct service *s)
{
	char why[256], line[300];
	bool clone = s->identity.clone;

	if (identity_apply(&s->identity, why, sizeof(why)) < 0) {
		fprintf(stderr, "identity not applied: %s\n", why);
		snprintf(line, sizeof(line), "failed %s\n", why);
		say(s, line);
		return;
	}
	explicit_bzero(&s->identity, sizeof(s->identity));
	if (!s->identified)
		notify_systemd();
	s->identified = true;
	if (clone)
		cloned(s);
}

/* What is of this machine alone goes, and what it has written is on the disk. */
static void freeze(struct service *s)
{
	identity_forget();
	sync();
	say(s, "frozen\n");
}

/* systemd's own signals to its process 1 (systemd(1)): orderly, and no dependency. */
static void shut_down(int signal)
{
	if (kill(1, signal))
		perror("asking systemd to shut down");
}

static void take_line(struct service *s)
{
	switch (identity_parse(&s->identity, s->nonce, s->line)) {
	case PARSED_NOTHING:
		break;
	case PARSED_IDENTITY:
		take_identity(s);
		break;
	case PARSED_CLOCK:
		if (identity_apply_time(&s->identity))
			perror("setting the clock");
		break;
	case PARSED_SYNC:
		sync();
		say(s, "synced\n");
		break;
	case PARSED_FREEZE:
		freeze(s);
		break;
	case PARSED_POWEROFF:
		shut_down(SIGRTMIN + 4);
		break;
	case PARSED_REBOOT:
		shut_down(SIGRTMIN + 5);
		break;
	default:
		say(s, "failed the identity made no sense\n");
	}
}

static void take_bytes(struct service *s, const char *data, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (data[i] == '\n') {
			s->line[s->len] = '\0';
			if (!s->overlong)
				take_line(s);
			s->len = 0;
			s->overlong = false;
		} else if (s->len + 1 < sizeof(s->line)) {
			s->line[s->len++] = data[i];
		} else {
			s->overlong = true;
		}
	}
}

static void port_readable(struct service *s)
{
	char data[4096];
	ssize_t n = read(s->port, data, sizeof(data));

	if (n < 0 && errno != EINTR && errno != EAGAIN)
		die("reading from the port");
	if (n == 0)
		say_hello(s);
	if (n > 0)
		take_bytes(s, data, (size_t)n);
	explicit_bzero(data, sizeof(data));
}

static void fifo_readable(struct service *s)
{
	char bytes[16];

	if (read(s->fifo, bytes, sizeof(bytes)) <= 0)
		return;
	s->ready = true;
	say(s, s->cloned ? "cloned\n" : "ready\n");
	s->cloned = false;
}

static _Noreturn void serve(void)
{
	static struct service s;
	struct pollfd p[2] = { { .events = POLLIN }, { .events = POLLIN } };

	/* Read-write, so that the fifo never ends when its writer goes. */
	if (mkfifo(READY_FIFO, 0600) && errno != EEXIST)
		die(READY_FIFO);
	s.fifo = open(READY_FIFO, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (s.fifo < 0)
		die(READY_FIFO);
	s.port = await_port();
	p[0].fd = s.port;
	p[1].fd = s.fifo;
	say_hello(&s);
	for (;;) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			die("poll");
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		if (p[1].revents)
			fifo_readable(&s);
		if (p[0].revents)
			port_readable(&s);
	}
}

static int tell_ready(void)
{
	int fd = open(READY_FIFO, O_WRONLY | O_NONBLOCK | O_CLOEXEC);

	/* No service, no harm: sshd was started by hand. */
	return fd < 0 || write(fd, "\n", 1) == 1 ? 0 : 1;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "ready"))
		return tell_ready();
	serve();
}
