/*
 * relay RTT_MS PORT...: a slow network for measurements. For each PORT on
 * loopback it listens on another one and passes connections on; every byte comes
 * out RTT_MS/2 after it came in, in either direction, in order (line.c). There is
 * no limit of the rate but the machine's. It prints a line "PORT LISTENS-ON" each,
 * and ends when its standard input does, so that it never outlives who started it.
 *
 * One thread, epoll level-triggered. A full line is not read: TCP then holds the
 * sender back, as a network whose buffers are full would.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "line.h"

#define CHUNK (256 * 1024)
#define RATE_MAX 2e9		/* bytes a second that a line holds for its delay */
#define LINE_MIN (4 * 1024 * 1024)

struct end {
	struct conn *conn;
	int fd;
	uint32_t watched;
	struct line line;	/* what was read from fd, on its way to the other end */
	bool shut, blocked;	/* fd takes no more: for good, for now */
};

struct conn {
	struct end ends[2];	/* the client's, the server's */
	struct conn *prev, *next;
	bool broken;
};

static struct conn all = { .prev = &all, .next = &all };
static int epoll;
static int64_t delay;
static struct { int fd, port; } listeners[64];

static int64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct sockaddr_in loopback(int port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
				     .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

/* --- connections ------------------------------------------------------------ */

static void conn_free(struct conn *c)
{
	for (int i = 0; i < 2; i++) {
		if (c->ends[i].fd >= 0)
			close(c->ends[i].fd);
		line_finish(&c->ends[i].line);
	}
	c->prev->next = c->next;
	c->next->prev = c->prev;
	free(c);
}

static int end_init(struct end *e, struct conn *c, int fd)
{
	double size = (double)delay / 1e9 * RATE_MAX;
	struct epoll_event ev = { .events = 0, .data.ptr = e };
	int on = 1;

	e->conn = c;
	e->fd = fd;
	if (fd < 0 || line_init(&e->line, size < LINE_MIN ? LINE_MIN : (size_t)size, delay) < 0)
		return -1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev);
}

static void accept_conn(int listener, int port)
{
	struct sockaddr_in to = loopback(port);
	struct conn *c = calloc(1, sizeof(*c));
	int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	int server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (!c)
		die("calloc");
	c->prev = all.prev;
	c->next = &all;
	all.prev->next = c;
	all.prev = c;
	c->ends[0].fd = client;
	c->ends[1].fd = server;
	if (end_init(&c->ends[0], c, client) < 0 || end_init(&c->ends[1], c, server) < 0 ||
	    (connect(server, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS))
		conn_free(c);
}

static void end_read(struct end *e)
{
	size_t len;
	uint8_t *space = line_space(&e->line, &len);
	ssize_t n;

	if (len == 0)
		return;
	n = recv(e->fd, space, len < CHUNK ? len : CHUNK, 0);
	if (n > 0)
		line_put(&e->line, (size_t)n, clock_ns());
	else if (n == 0)
		line_end(&e->line, clock_ns());
	else if (errno != EAGAIN && errno != ENOTCONN)
		e->conn->broken = true;
}

/* What is due of the line goes to the other end. */
static void line_pump(struct end *from, struct end *to, int64_t now)
{
	const uint8_t *data;
	size_t len;
	ssize_t n;

	to->blocked = false;
	for (;;) {
		data = line_due(&from->line, now, &len);
		if (len == 0)
			break;
		n = send(to->fd, data, len, MSG_NOSIGNAL);
		if (n < 0 && (errno == EAGAIN || errno == ENOTCONN)) {
			to->blocked = true;
			return;
		}
		if (n < 0) {
			from->conn->broken = true;
			return;
		}
		line_take(&from->line, (size_t)n);
	}
	if (!to->shut && line_over(&from->line, now)) {
		shutdown(to->fd, SHUT_WR);
		to->shut = true;
	}
}

static void end_watch(struct end *e)
{
	struct epoll_event ev = { .data.ptr = e };
	size_t room;

	line_space(&e->line, &room);
	ev.events = (room ? EPOLLIN : 0) | (e->blocked ? EPOLLOUT : 0);
	/* With nothing asked for a hang-up would be told over and over again. */
	if (ev.events != e->watched)
		epoll_ctl(epoll, EPOLL_CTL_MOD, e->fd, &ev);
	e->watched = ev.events;
}

static int64_t earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* Move what is due; returns when the next is. */
static int64_t pump_all(void)
{
	int64_t next = INT64_MAX, now = clock_ns();
	struct conn *c, *behind;

	for (c = all.next; c != &all; c = behind) {
		struct end *a = &c->ends[0], *b = &c->ends[1];

		behind = c->next;
		line_pump(a, b, now);
		line_pump(b, a, now);
		if (c->broken || (a->shut && b->shut)) {
			conn_free(c);
			continue;
		}
		end_watch(a);
		end_watch(b);
		if (!b->blocked && !b->shut)
			next = earlier(next, line_next(&a->line));
		if (!a->blocked && !a->shut)
			next = earlier(next, line_next(&b->line));
	}
	return next;
}

/* --- the start -------------------------------------------------------------- */

static void listen_for(int slot, int port)
{
	struct sockaddr_in a = loopback(0);
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = &listeners[slot] };
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&a, len) < 0 || listen(fd, 128) < 0 ||
	    getsockname(fd, (struct sockaddr *)&a, &len) < 0 ||
	    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev) < 0)
		die("listen");
	listeners[slot].fd = fd;
	listeners[slot].port = port;
	printf("%d %d\n", port, ntohs(a.sin_port));
}

static void serve(void *ptr, uint32_t events)
{
	for (size_t i = 0; i < sizeof(listeners) / sizeof(*listeners); i++)
		if (ptr == &listeners[i]) {
			accept_conn(listeners[i].fd, listeners[i].port);
			return;
		}
	if (!ptr) {
		char byte;

		if (read(0, &byte, 1) <= 0)
			exit(0);
		return;
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		end_read(ptr);
}

static void run(void)
{
	int64_t next = INT64_MAX;

	for (;;) {
		struct epoll_event events[64];
		struct timespec wait;
		int64_t left = next == INT64_MAX ? 0 : next - clock_ns();
		int n;

		if (left < 0)
			left = 0;
		wait.tv_sec = left / 1000000000;
		wait.tv_nsec = left % 1000000000;
		n = epoll_pwait2(epoll, events, 64, next == INT64_MAX ? NULL : &wait, NULL);
		for (int i = 0; i < n; i++)
			serve(events[i].data.ptr, events[i].events);
		next = pump_all();
	}
}

int main(int argc, char **argv)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL };

	if (argc < 3 || argc > 2 + (int)(sizeof(listeners) / sizeof(*listeners))) {
		fprintf(stderr, "usage: relay RTT_MS PORT...\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	delay = (int64_t)(strtod(argv[1], NULL) * 1e6 / 2);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &ev) < 0)
		die("epoll");
	for (int i = 2; i < argc; i++)
		listen_for(i - 2, atoi(argv[i]));
	fflush(stdout);
	run();
}
