/*
 * An SSH connection until the server has taken it: its turn, the address, connect(2). The first
 * states of session.c, and the deadline of all of them up to SSH_UP.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "ssh_internal.h"

#define SYN_MS 8000		/* of a service that minds bursts: four SYNs were not answered */

static void on_deadline(struct loop_timer *);

/* -ETIME is what is not worth trying again soon. */
static void fail_silent(struct ssh *s)
{
	/* The time of day: in a file the sentence is read whenever somebody looks. */
	time_t then = time(NULL) + (time_t)((pace_silent(s->to.service) + 999) / 1000);
	char when[16];
	struct tm tm;

	strftime(when, sizeof(when), "%H:%M:%S", gmtime_r(&then, &tm));
	ssh_fail(s, -ETIME, "%s does not answer new connections (after a burst it drops "
		 "them for minutes); the next is tried at %s UTC", s->to.service, when);
}

static int start_connect(struct ssh *s, const struct address *to)
{
	int on = 1;

	s->sock = socket(to->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s->sock < 0)
		return -errno;
	setsockopt(s->sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(s->sock, (const struct sockaddr *)&to->addr, to->len) < 0 &&
	    errno != EINPROGRESS)
		return -errno;
	return loop_fd_add(s->loop, &s->fd, s->sock, EPOLLOUT, ssh_socket_ready);
}

static void connect_next(struct ssh *s)
{
	int r = -EHOSTUNREACH;

	s->state = SSH_CONNECTING;
	while (s->address_next < s->address_count) {
		r = start_connect(s, &s->addresses[s->address_next++]);
		if (r == 0) {
			loop_timer_set(s->loop, &s->deadline,
				       s->pace.pace && s->deadline_ms > SYN_MS ? SYN_MS :
				       s->deadline_ms, on_deadline);
			return;
		}
		if (s->sock >= 0)
			close(s->sock);
		s->sock = -1;
	}
	pace_cancel(&s->pace);
	ssh_fail(s, r, "cannot connect to %s port %d: %s", s->to.host, s->to.port, strerror(-r));
}

static void resolved(void *user, const struct address *found, size_t n, const struct err *why)
{
	struct ssh *s = user;

	s->resolve = NULL;
	if (n == 0) {
		ssh_fail(s, why->code, "%s", why->text);
		return;
	}
	memcpy(s->addresses, found, n * sizeof(*found));
	s->address_count = n;
	connect_next(s);
}

/* A numeric address needs no lookup: this cannot wait for a name server. */
static bool take_numeric(struct ssh *s)
{
	struct addrinfo hints = {
		.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM,
	}, *ai;
	char port[16];

	snprintf(port, sizeof(port), "%d", s->to.port);
	if (getaddrinfo(s->to.host, port, &hints, &ai) != 0)
		return false;
	memcpy(&s->addresses[0].addr, ai->ai_addr, ai->ai_addrlen);
	s->addresses[0].len = ai->ai_addrlen;
	s->address_count = 1;
	freeaddrinfo(ai);
	return true;
}

static void begin(struct ssh *s)
{
	loop_timer_set(s->loop, &s->deadline, s->deadline_ms, on_deadline);
	if (take_numeric(s)) {
		connect_next(s);
		return;
	}
	s->state = SSH_RESOLVING;
	s->resolve = resolve_start(s->loop, s->to.host, s->to.port, resolved, s);
}

static void has_turn(struct pace_turn *turn, bool go)
{
	struct ssh *s = container_of(turn, struct ssh, pace);

	if (go)
		begin(s);
	else
		fail_silent(s);
}

void connect_ready(struct ssh *s)
{
	int error = 0;
	socklen_t len = sizeof(error);

	getsockopt(s->sock, SOL_SOCKET, SO_ERROR, &error, &len);
	if (error) {
		loop_fd_del(&s->fd);
		close(s->sock);
		s->sock = -1;
		if (s->address_next < s->address_count) {
			connect_next(s);
			return;
		}
		pace_done(&s->pace, error != ETIMEDOUT);
		ssh_fail(s, -error, "%s port %d: %s", s->to.host, s->to.port, strerror(error));
		return;
	}
	pace_done(&s->pace, true);
	loop_timer_set(s->loop, &s->deadline, s->deadline_ms, on_deadline);
	s->state = SSH_HANDSHAKE;
	s->last_received = clock_ms();
}

void connect_start(struct ssh *s)
{
	if (s->to.service[0])
		pace_ask(s->loop, s->to.service, s->to.gap_ms, &s->pace, has_turn);
	else
		begin(s);
}

static void on_deadline(struct loop_timer *t)
{
	struct ssh *s = container_of(t, struct ssh, deadline);

	/* Behind a name several addresses may be tried, each for its while. */
	if (s->state == SSH_CONNECTING && s->address_next < s->address_count) {
		loop_fd_del(&s->fd);
		close(s->sock);
		s->sock = -1;
		connect_next(s);
		return;
	}
	if (s->state == SSH_CONNECTING && s->pace.pace) {
		pace_done(&s->pace, false);
		fail_silent(s);
		return;
	}
	ssh_fail(s, -ETIMEDOUT, "%s port %d did not %s in time", s->to.host, s->to.port,
		 s->state == SSH_RESOLVING ? "have its address found" :
		 s->state == SSH_CONNECTING ? "take the connection" :
		 s->state == SSH_HANDSHAKE ? "answer as an SSH server" : "finish the login");
}
