/*
 * sbxfs-net WORD FOLDER FRAMES CONTROL on|off ALLOW: the network of one VM, outside of
 * its QEMU. libslirp, which is QEMU's own user-mode network, does the work; between it
 * and the guest stands our filter (frame.h), so that the guest reaches neither the host's
 * loopback nor anything else of the host. Started by the KVM backend (uplink.c); WORD and
 * FOLDER are for whoever looks for it among the processes.
 *
 * FRAMES is a socket that is connected to QEMU's (wire.h), CONTROL one that listens, for
 * the daemon (control.h). It holds the ports that are forwarded, and lives as long
 * as QEMU: daemons come and go. With "keep" it waits for another QEMU, with all
 * connections as they are, but not without the daemon, whose they are for the most part.
 *
 * One thread around poll(2), because libslirp's interface is made for that.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <slirp/libslirp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "confine.h"
#include "control.h"
#include "frame.h"
#include "route.h"
#include "wire.h"

#define GUEST (FRAME_NET | 15)		/* 10.0.2.15 */
#define LINES_MAX 4096			/* bytes of a control line that does not end */

struct forward {
	unsigned guest, host;
	struct forward *next;
};

struct net {
	Slirp *slirp;
	struct frame_rules rules;
	struct wire wire;
	int listener;
	int control;		/* -1: no daemon is there */
	struct buf in, out;	/* of control */
	int passed;		/* a descriptor that came with a line; -1 */
	struct forward *forwards;
	bool keep;		/* ended neither by QEMU's end, nor without a daemon */
	struct pollfd *polls;
	size_t poll_count, poll_room;
	bool over;
};

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* --- libslirp's side ------------------------------------------------------------------ */

static ssize_t to_guest(const void *frame, size_t len, void *user)
{
	struct net *net = user;

	wire_put(&net->wire, frame, len);
	return (ssize_t)len;
}

static void guest_error(const char *what, void *user)
{
	/* A guest can make any number of these. */
}

static int64_t clock_ns(void *user)
{
	return now_ns();
}

/* Its only timer is for IPv6, which is off. */
static void *timer_new(SlirpTimerId id, void *cb_user, void *user)
{
	return user;
}

static void timer_free(void *timer, void *user)
{
}

static void timer_mod(void *timer, int64_t when, void *user)
{
}

static void watch(int fd, void *user)
{
	/* All that is to be polled is asked for at each turn. */
}

static void notify(void *user)
{
}

static const SlirpCb callbacks = {
	.send_packet = to_guest, .guest_error = guest_error, .clock_get_ns = clock_ns,
	.timer_new_opaque = timer_new, .timer_free = timer_free, .timer_mod = timer_mod,
	.register_poll_fd = watch, .unregister_poll_fd = watch, .notify = notify,
};

static struct in_addr address(uint32_t host_order)
{
	return (struct in_addr){ .s_addr = htonl(host_order) };
}

static int start_slirp(struct net *net)
{
	const SlirpConfig config = {
		.version = 4, .restricted = net->rules.restricted, .in_enabled = true,
		.vnetwork = address(FRAME_NET), .vnetmask = address(FRAME_NET_MASK),
		.vhost = address(FRAME_GATEWAY), .vnameserver = address(FRAME_DNS),
		.vdhcp_start = address(GUEST), .if_mtu = WIRE_MTU, .if_mru = WIRE_MTU,
		.disable_host_loopback = !frame_allows_loopback(&net->rules),
	};

	net->slirp = slirp_new(&config, &callbacks, net);
	return net->slirp ? 0 : -EIO;
}

static void from_guest(void *user, const uint8_t *frame, size_t len)
{
	struct net *net = user;
	uint8_t answer[FRAME_REFUSAL_MAX];

	switch (frame_check(&net->rules, frame, len)) {
	case FRAME_PASS:
		slirp_input(net->slirp, frame, (int)len);
		break;
	case FRAME_REFUSE:
		wire_put(&net->wire, answer, frame_refusal(frame, len, answer));
		break;
	case FRAME_DROP:
		break;
	}
}

/* --- forwards -------------------------------------------------------------------------- */

/*
 * Where a forward to that port of the guest listens: it alone knows which port the kernel
 * has given. "  TCP[HOST_FORWARD]  12  127.0.0.1 38541  10.0.2.15  22  0  0"
 */
static unsigned find_host_port(struct net *net, unsigned guest)
{
	char *text = slirp_connection_info(net->slirp), *at = text;
	unsigned host, to, found = 0;

	while (!found && at && (at = strstr(at, "TCP[HOST_FORWARD]"))) {
		if (sscanf(at, "%*s %*d %*s %u %*s %u", &host, &to) == 2 && to == guest)
			found = host;
		at++;
	}
	free(text);
	return found;
}

static struct forward **find_forward(struct net *net, unsigned guest)
{
	struct forward **f = &net->forwards;

	while (*f && (*f)->guest != guest)
		f = &(*f)->next;
	return f;
}

static void say(struct net *net, enum control_verb verb, unsigned a, unsigned b)
{
	const struct control c = { verb, a, b };
	char line[CONTROL_LINE_MAX];

	buf_put(&net->out, line, control_print(&c, line));
}

static void open_port(struct net *net, unsigned guest, unsigned host)
{
	struct forward **at = find_forward(net, guest);
	int r = -1;

	if (!*at) {
		errno = 0;
		if (host)
			r = slirp_add_hostfwd(net->slirp, 0, address(FRAME_LOOPBACK | 1),
					      (int)host, address(GUEST), (int)guest);
		if (r < 0)
			r = slirp_add_hostfwd(net->slirp, 0, address(FRAME_LOOPBACK | 1), 0,
					      address(GUEST), (int)guest);
		if (r < 0) {
			say(net, CONTROL_FAILED, guest, errno > 0 ? (unsigned)errno : EADDRINUSE);
			return;
		}
		*at = xcalloc(1, sizeof(**at));
		(*at)->guest = guest;
		(*at)->host = find_host_port(net, guest);
	}
	say(net, CONTROL_PORT, guest, (*at)->host);
}

static void close_port(struct net *net, unsigned guest)
{
	struct forward **at = find_forward(net, guest), *f = *at;

	if (f) {
		slirp_remove_hostfwd(net->slirp, 0, address(FRAME_LOOPBACK | 1), (int)f->host);
		*at = f->next;
		free(f);
	}
	say(net, CONTROL_PORT, guest, 0);
}

/* --- the daemon's side ----------------------------------------------------------------- */

static void hang_up(struct net *net)
{
	if (net->control >= 0)
		close(net->control);
	if (net->passed >= 0)
		close(net->passed);
	net->control = net->passed = -1;
	net->keep = false;
	buf_clear(&net->in);
	buf_clear(&net->out);
}

/* A new daemon takes the place of the old one. */
static void answer_call(struct net *net)
{
	int fd = accept4(net->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	hang_up(net);
	net->control = fd;
	say(net, CONTROL_HELLO, CONTROL_VERSION, 0);
	for (const struct forward *f = net->forwards; f; f = f->next)
		say(net, CONTROL_PORT, f->guest, f->host);
	say(net, CONTROL_READY, 0, 0);
}

static void obey(struct net *net, const struct control *c)
{
	switch (c->verb) {
	case CONTROL_OPEN:
		open_port(net, c->a, c->b);
		break;
	case CONTROL_CLOSE:
		close_port(net, c->a);
		break;
	case CONTROL_KEEP:
		net->keep = c->a;
		break;
	case CONTROL_FRAMES:
		if (net->passed >= 0)
			wire_plug(&net->wire, net->passed);
		net->passed = -1;
		net->keep = false;
		break;
	case CONTROL_END:
		net->over = true;
		break;
	default:
		break;		/* ours to say */
	}
}

static ssize_t receive(struct net *net)
{
	struct iovec iov = { .iov_base = buf_reserve(&net->in, 1024), .iov_len = 1024 };
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} passed = { 0 };
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = passed.space,
		.msg_controllen = sizeof(passed.space),
	};
	ssize_t n = recvmsg(net->control, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;

	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
	    c->cmsg_len == CMSG_LEN(sizeof(int))) {
		if (net->passed >= 0)
			close(net->passed);
		memcpy(&net->passed, CMSG_DATA(c), sizeof(int));
	}
	return n;
}

static void listen_to_daemon(struct net *net)
{
	ssize_t n = receive(net);
	char *end;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		hang_up(net);
		return;
	}
	buf_commit(&net->in, (size_t)n);
	while ((end = memchr(buf_peek(&net->in), '\n', buf_size(&net->in)))) {
		const char *line = (const char *)buf_peek(&net->in);
		struct control c;

		if (control_parse(&c, line, (size_t)(end - line)) < 0) {
			hang_up(net);	/* this is nobody who knows the language */
			return;
		}
		buf_consume(&net->in, (size_t)(end - line) + 1);
		obey(net, &c);
	}
	if (buf_size(&net->in) > LINES_MAX)
		hang_up(net);
}

static void speak_to_daemon(struct net *net)
{
	ssize_t n;

	if (net->control < 0 || !buf_size(&net->out))
		return;
	n = send(net->control, buf_peek(&net->out), buf_size(&net->out),
		 MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n > 0)
		buf_consume(&net->out, (size_t)n);
	else if (n < 0 && errno != EAGAIN && errno != EINTR)
		hang_up(net);
}

/* --- the turns -------------------------------------------------------------------------- */

enum { POLL_LISTENER, POLL_CONTROL, POLL_WIRE, POLL_OWN };

static size_t add_pollfd(struct net *net, int fd, short events)
{
	if (net->poll_count == net->poll_room) {
		net->poll_room = net->poll_room ? 2 * net->poll_room : 32;
		net->polls = xrealloc(net->polls, net->poll_room * sizeof(*net->polls));
	}
	net->polls[net->poll_count] = (struct pollfd){ .fd = fd, .events = events };
	return net->poll_count++;
}

/* The names of the bits are libslirp's, in the same order as ours in both tables. */
static const struct {
	int slirp;
	short system;
} bits[] = {
	{ SLIRP_POLL_IN, POLLIN }, { SLIRP_POLL_OUT, POLLOUT }, { SLIRP_POLL_PRI, POLLPRI },
	{ SLIRP_POLL_ERR, POLLERR }, { SLIRP_POLL_HUP, POLLHUP },
};

static int add_poll(int fd, int events, void *user)
{
	short wanted = 0;

	for (size_t i = 0; i < sizeof(bits) / sizeof(*bits); i++)
		if (events & bits[i].slirp)
			wanted |= bits[i].system;
	return (int)add_pollfd(user, fd, wanted);
}

static int seen(int index, void *user)
{
	const struct net *net = user;
	int events = 0;

	for (size_t i = 0; i < sizeof(bits) / sizeof(*bits); i++)
		if (net->polls[index].revents & bits[i].system)
			events |= bits[i].slirp;
	return events;
}

/* Milliseconds until something is to be done anyway; -1: never. */
static int prepare(struct net *net, bool slirp)
{
	uint32_t patience = UINT32_MAX;

	net->poll_count = 0;
	add_pollfd(net, net->listener, POLLIN);
	add_pollfd(net, net->control, (short)(POLLIN | (buf_size(&net->out) ? POLLOUT : 0)));
	add_pollfd(net, net->wire.fd, (short)(POLLIN | (buf_size(&net->wire.out) ? POLLOUT : 0)));
	if (slirp)
		slirp_pollfds_fill(net->slirp, &patience, add_poll, net);
	return patience > INT32_MAX ? -1 : (int)patience;
}

static void qemu_is_gone(struct net *net)
{
	if (errno)
		fprintf(stderr, "sbxfs-net: QEMU's network card: %s\n", strerror(errno));
	wire_unplug(&net->wire);
	/* What the daemon said before it ended QEMU may have come behind this turn's look. */
	if (net->control >= 0)
		listen_to_daemon(net);
}

/*
 * libslirp has its turn as long as the guest's QEMU is there and reads: a guest that
 * stands still, or is saved and comes back, finds its connections as it left them.
 */
static void turn(struct net *net)
{
	bool slirp = net->wire.fd >= 0 && !wire_full(&net->wire);
	int patience = prepare(net, slirp);
	int n = poll(net->polls, net->poll_count, patience);

	if (n < 0 && errno != EINTR)
		abort();
	if (n < 0)
		return;
	if (net->wire.fd >= 0 && net->polls[POLL_WIRE].revents & (POLLIN | POLLHUP | POLLERR) &&
	    !wire_take(&net->wire, from_guest, net))
		qemu_is_gone(net);
	if (slirp && net->wire.fd >= 0)
		slirp_pollfds_poll(net->slirp, 0, seen, net);
	if (!wire_flush(&net->wire))
		qemu_is_gone(net);
	if (net->control >= 0 && net->polls[POLL_CONTROL].revents)
		listen_to_daemon(net);
	if (net->polls[POLL_LISTENER].revents & POLLIN)
		answer_call(net);
	speak_to_daemon(net);
	if (net->wire.fd < 0 && !net->keep)
		net->over = true;
}

static int take_arguments(struct net *net, char **argv)
{
	char wrong[FRAME_WRONG_MAX];

	wire_plug(&net->wire, atoi(argv[3]));
	net->listener = atoi(argv[4]);
	net->rules.restricted = !strcmp(argv[5], "off");
	if (frame_allow(&net->rules, argv[6], wrong) < 0) {
		fprintf(stderr, "sbxfs-net: cannot allow '%s'\n", wrong);
		return -EINVAL;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct net net = { .wire.fd = -1, .control = -1, .passed = -1 };
	int r;

	if (argc != 7) {
		fprintf(stderr, "usage: sbxfs-net WORD FOLDER FRAMES CONTROL on|off ALLOW\n");
		return 2;
	}
	if (take_arguments(&net, argv) < 0)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);	/* a full log is no reason to end */
	net.rules.user = route_create();
	net.rules.local = route_local;
	if (!net.rules.user || (r = confine()) < 0 || (r = start_slirp(&net)) < 0) {
		fprintf(stderr, "sbxfs-net: cannot begin: %s\n",
			strerror(net.rules.user ? -r : errno));
		return 1;
	}
	while (!net.over)
		turn(&net);
	_exit(0);	/* the kernel closes all; nobody is left to be told */
}
