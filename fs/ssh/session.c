/*
 * An SSH connection, from connect(2) to its end.
 *
 *   WAITING (for its turn: pace.h) -> RESOLVING (unless the address is numeric) ->
 *   CONNECTING -> HANDSHAKE (the pinned host key is checked) -> LOGIN -> UP
 *
 * (the first three are in connect.c, LOGIN in login.c) and from each of them to DOWN,
 * once, by ssh_fail: the pump then tells the channels and the owner. Theory of operation:
 * everything is done by pump(), which runs from the loop when the socket is ready or
 * somebody kicked. It lets each channel step until none moves. libssh2's "EAGAIN while
 * sending" makes the session stuck: until the socket takes the rest of that packet only
 * the channel that was sending may act.
 *
 * Is the peer alive? When nothing has come for PULSE_MS, a channel of a type
 * that no server knows is opened; the refusal is the sign of life. (libssh2's own
 * keep-alive leaks the answers.) Nothing for PULSES_DEAD more: the link
 * is down. Pulses are counted, not seconds: a daemon that itself stood still for a
 * while asks before it judges.
 */
#include <errno.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"
#include "metrics.h"
#include "ssh_internal.h"

#define PULSE_MS 5000
#define PULSES_DEAD 2		/* after the one that asked: 15 s in all */
#define TURN_MS 5		/* then the other descriptors of the loop have theirs */

static void pump(struct ssh *);

/* --- errors --------------------------------------------------------------- */

void ssh_fail(struct ssh *s, int code, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	if (s->why.code)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	err_set(&s->why, code, "%s", text);
	ssh_kick(s);
}

const char *ssh_last_message(struct ssh *s)
{
	char *text = NULL;

	libssh2_session_last_error(s->session, &text, NULL, 0);
	return text ? text : "unknown error";
}

bool ssh_again(struct ssh *s, int r)
{
	if (r == LIBSSH2_ERROR_EAGAIN) {
		if (libssh2_session_block_directions(s->session) &
		    LIBSSH2_SESSION_BLOCK_OUTBOUND)
			s->stuck = true;
		return false;
	}
	if (s->peer_closed)
		ssh_fail(s, -EHOSTDOWN, "the SSH connection was closed by the other side");
	else
		ssh_fail(s, -EHOSTDOWN, "the SSH connection broke: %s", ssh_last_message(s));
	return false;
}

/* --- bytes, as libssh2 asks for them ------------------------------------------ */

/* Right into libssh2's buffer, which is as large as the largest packet. */
static ssize_t on_recv(libssh2_socket_t fd, void *data, size_t len, int flags, void **abstract)
{
	struct ssh *s = *abstract;
	ssize_t n;

	if (s->peer_closed)
		return 0;
	if (s->drained)
		return -EAGAIN;
	n = recv(s->sock, data, len, 0);
	if (n > 0) {
		s->received += (uint64_t)n;
		s->last_received = clock_ms();
		s->drained = (size_t)n < len;
		return n;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		s->drained = true;
		return -EAGAIN;
	}
	s->peer_closed = true;
	return 0;
}

static ssize_t on_send(libssh2_socket_t fd, const void *data, size_t len, int flags,
		       void **abstract)
{
	struct ssh *s = *abstract;
	ssize_t n;

	if (s->state == SSH_DOWN)
		return -EPIPE;
	n = send(s->sock, data, len, MSG_NOSIGNAL);
	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	s->sent += (uint64_t)n;
	return n;
}

/* --- coming up ----------------------------------------------------------------- */

/*
 * Prefer what was measured fastest; all of it is in every OpenSSH since 6.2. libssh2 as it
 * comes enciphers 16 bytes a call, and of those calls GCM's are the slower.
 */
#define CTR_CIPHERS "aes128-ctr,aes256-ctr,aes192-ctr"
#define GCM_CIPHERS "aes128-gcm@openssh.com,aes256-gcm@openssh.com"
#ifdef SSH_BULK_CIPHER
#define AES_CIPHERS GCM_CIPHERS "," CTR_CIPHERS
#else
#define AES_CIPHERS CTR_CIPHERS "," GCM_CIPHERS
#endif

static void set_methods(struct ssh *s)
{
	static const char ciphers[] = AES_CIPHERS ",chacha20-poly1305@openssh.com";
	static const char macs[] = "hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,"
		"hmac-sha2-256,hmac-sha2-512";
	char type[64];
	const char *keys = type;

	libssh2_session_method_pref(s->session, LIBSSH2_METHOD_CRYPT_CS, ciphers);
	libssh2_session_method_pref(s->session, LIBSSH2_METHOD_CRYPT_SC, ciphers);
	libssh2_session_method_pref(s->session, LIBSSH2_METHOD_MAC_CS, macs);
	libssh2_session_method_pref(s->session, LIBSSH2_METHOD_MAC_SC, macs);
	snprintf(type, sizeof(type), "%.*s", (int)strcspn(s->to.host_key, " "), s->to.host_key);
	if (!strcmp(type, "ssh-rsa"))
		keys = "rsa-sha2-512,rsa-sha2-256";
	libssh2_session_method_pref(s->session, LIBSSH2_METHOD_HOSTKEY, keys);
}

static bool host_key_matches(struct ssh *s)
{
	size_t len = 0;
	const char *blob = libssh2_session_hostkey(s->session, &len, NULL);
	const char *pinned = strchr(s->to.host_key, ' ');
	unsigned char *text;
	bool same;

	if (!blob || !pinned || len > 16384)
		return false;
	pinned++;
	text = xmalloc(4 * ((len + 2) / 3) + 1);
	EVP_EncodeBlock(text, (const unsigned char *)blob, (int)len);
	len = strlen((char *)text);
	same = !strncmp((char *)text, pinned, len) && strcspn(pinned, " \n") == len;
	free(text);
	return same;
}

static void end_pause(struct loop_timer *t)
{
	pump(container_of(t, struct ssh, pause));
}

static bool step_handshake(struct ssh *s)
{
	int r = libssh2_session_handshake(s->session, s->sock);

	if (r == LIBSSH2_ERROR_EAGAIN)
		return false;
	if (r == LIBSSH2_ERROR_METHOD_NONE || r == LIBSSH2_ERROR_KEX_FAILURE) {
		/* also when the server has no key of the pinned type */
		ssh_fail(s, -EPROTO, "no common SSH methods with the server "
			 "(the pinned host key is %.*s): %s",
			 (int)strcspn(s->to.host_key, " "), s->to.host_key, ssh_last_message(s));
		return false;
	}
	if (r < 0) {
		ssh_fail(s, s->peer_closed ? -ECONNREFUSED : -EPROTO, "SSH handshake: %s",
			 s->peer_closed ? "the server closed the connection" : ssh_last_message(s));
		return false;
	}
	if (!host_key_matches(s)) {
		ssh_fail(s, -EKEYREJECTED,
			 "the host key of %s port %d is not the pinned one: refused, nothing was "
			 "sent",
			 s->to.host, s->to.port);
		return false;
	}
	s->state = SSH_LOGIN;
	/* Reckoning of its own, 0.6 ms after 0.3 ms: others have a turn between. */
	loop_timer_set(s->loop, &s->pause, 1, end_pause);
	return false;
}

static bool step_login(struct ssh *s)
{
	if (login_step(s) != 1)
		return false;
	login_destroy(s->login);
	s->login = NULL;
	s->state = SSH_UP;
	metric_add(METRIC_SSH_CONNECTIONS, 1);
	loop_timer_cancel(&s->deadline);
	log_debug("ssh: up: %s port %d, %s, %s", s->to.host, s->to.port, ssh_server_version(s),
		  libssh2_session_methods(s->session, LIBSSH2_METHOD_CRYPT_SC));
	if (s->events->up)
		s->events->up(s->user);
	return true;
}

/* --- the pump --------------------------------------------------------------------- */

static bool step_channels(struct ssh *s)
{
	bool moved = false;

	list_for_each_safe(c, &s->channels, struct ssh_channel, link) {
		moved |= channel_step(c);
		if (s->doomed || s->why.code)
			return false;
		if (s->stuck) {
			/* First in line next time: it must be the next to send. */
			list_del(&c->link);
			list_add(&s->channels, &c->link);
			return false;
		}
		if (clock_ms() - s->turn > TURN_MS) {
			/* Go on with the next one: the head of the ring moves before it. */
			if (&c_next->link != &s->channels) {
				list_del(&s->channels);
				list_add_tail(&c_next->link, &s->channels);
			}
			ssh_kick(s);
			return false;
		}
	}
	return moved;
}

static bool step(struct ssh *s)
{
	switch (s->state) {
	case SSH_HANDSHAKE:
		return step_handshake(s);
	case SSH_LOGIN:
		return !loop_timer_is_set(&s->pause) && step_login(s);
	case SSH_UP:
		s->stuck = false;
		return step_channels(s);
	case SSH_WAITING:
	case SSH_RESOLVING:
	case SSH_CONNECTING:
	case SSH_DOWN:
		break;
	}
	return false;
}

/* What may be under way before the login. */
static void stop_coming_up(struct ssh *s)
{
	pace_cancel(&s->pace);
	resolve_cancel(s->resolve);
	s->resolve = NULL;
	login_destroy(s->login);
	s->login = NULL;
	loop_timer_cancel(&s->deadline);
	loop_timer_cancel(&s->pulse);
	loop_timer_cancel(&s->pause);
}

static void ssh_free(struct ssh *s)
{
	s->state = SSH_DOWN;	/* on_send refuses: freeing must not wait for the peer */
	s->peer_closed = true;
	stop_coming_up(s);
	loop_later_cancel(&s->kick);
	loop_fd_del(&s->fd);
	while (!list_empty(&s->channels))
		channel_lost(list_entry(s->channels.next, struct ssh_channel, link));
	if (s->session && libssh2_session_free(s->session) != 0)
		log_warn("ssh: libssh2 could not free a session");
	memory_finish(s);
	if (s->sock >= 0)
		close(s->sock);
	free(s);
}

/* Tell everybody, once. The channels first; they may not open new ones. */
static void go_down(struct ssh *s)
{
	s->state = SSH_DOWN;
	stop_coming_up(s);
	loop_fd_del(&s->fd);
	while (!list_empty(&s->channels))
		channel_lost(list_entry(s->channels.next, struct ssh_channel, link));
	if (!s->doomed)
		metric_add(METRIC_SSH_FAILURES, 1);
	if (!s->doomed && s->events->down)
		s->events->down(s->user, &s->why);
}

static void watch(struct ssh *s)
{
	uint32_t want = EPOLLIN;

	if (!s->fd.loop)
		return;
	if (s->state == SSH_CONNECTING)
		want = EPOLLOUT;
	else if (login_waits(s) || loop_timer_is_set(&s->pause))
		want = 0;
	else if (s->stuck || (libssh2_session_block_directions(s->session) &
			      LIBSSH2_SESSION_BLOCK_OUTBOUND))
		want |= EPOLLOUT;
	loop_fd_set(&s->fd, want);
}

static void pump(struct ssh *s)
{
	s->pumping = true;
	s->turn = clock_ms();
	while (!s->why.code && !s->doomed && step(s))
		;
	if (!s->doomed && s->why.code && s->state != SSH_DOWN)
		go_down(s);
	s->pumping = false;
	if (s->doomed)
		ssh_free(s);
	else
		watch(s);
}

static void kicked(struct loop_later *l)
{
	struct ssh *s = container_of(l, struct ssh, kick);

	if (s->state == SSH_DOWN && !s->doomed)
		return;
	pump(s);
}

void ssh_kick(struct ssh *s)
{
	loop_later(s->loop, &s->kick, kicked);
}

/* --- the socket ------------------------------------------------------------------- */

static void ping_closed(void *user, const struct ssh_exit *how)
{
}

static const struct ssh_channel_ops ping_ops = { .closed = ping_closed };

static void ping(struct ssh *s)
{
	s->ping = channel_create(s, &ping_ops, NULL);
	s->ping->ping = true;
}

void ssh_socket_ready(struct loop_fd *f, uint32_t events)
{
	struct ssh *s = container_of(f, struct ssh, fd);

	if (s->state == SSH_CONNECTING)
		connect_ready(s);
	else if (login_waits(s) && (events & (EPOLLHUP | EPOLLERR)))
		ssh_fail(s, -ECONNREFUSED, "the server closed the connection at login");
	s->drained = false;
	/* libssh2 takes bytes off the socket only for a channel: without any, a ping does it. */
	if (s->state == SSH_UP && list_empty(&s->channels))
		ping(s);
	pump(s);
}

/* --- alive? -------------------------------------------------------------------------- */

bool ssh_is_held(const struct ssh *s)
{
	return s->held;
}

void ssh_hold(struct ssh *s, bool hold)
{
	s->held = hold;
	s->asked = false;
	s->last_received = clock_ms();	/* it has as long to answer as any other */
}

static void on_pulse(struct loop_timer *t)
{
	struct ssh *s = container_of(t, struct ssh, pulse);
	int64_t silent = clock_ms() - s->last_received;

	if (silent < PULSE_MS || s->state != SSH_UP || s->held) {
		s->asked = false;
		loop_timer_set(s->loop, t, silent < PULSE_MS ? PULSE_MS - silent : PULSE_MS,
			       on_pulse);
		return;
	}
	/* The answer may have come as quickly as the clock can tell: silence began with it. */
	if (s->asked && s->last_received >= s->asked_at)
		s->asked = false;
	if (!s->asked) {
		s->asked = true;
		s->asked_at = clock_ms();
		s->unanswered = 0;
		if (!s->ping && !s->opening)	/* an open in flight is a question too */
			ping(s);
	} else if (++s->unanswered >= PULSES_DEAD) {
		ssh_fail(s, -ETIMEDOUT, "no answer from %s port %d for %d seconds", s->to.host,
			 s->to.port, (int)(silent / 1000));
		return;
	}
	loop_timer_set(s->loop, t, PULSE_MS, on_pulse);
}

/* --- life --------------------------------------------------------------------------------- */

static int start_session(struct ssh *s)
{
	if (memory_session(s) < 0)
		return -ENOMEM;
	libssh2_session_set_blocking(s->session, 0);
	/* Its own limit for answers, 60 s, would end the link because one is slow; pulses judge. */
	libssh2_session_set_read_timeout(s->session, 1000000);
	libssh2_session_callback_set(s->session, LIBSSH2_CALLBACK_RECV,
				     (void *)(uintptr_t)on_recv);
	libssh2_session_callback_set(s->session, LIBSSH2_CALLBACK_SEND,
				     (void *)(uintptr_t)on_send);
	set_methods(s);
	return 0;
}

struct ssh *ssh_create(struct loop *loop, const struct endpoint *to, int64_t deadline_ms,
		       const struct ssh_events *events, void *user)
{
	struct ssh *s = xcalloc(1, sizeof(*s));
	int r;

	s->loop = loop;
	s->to = *to;
	s->events = events;
	s->user = user;
	s->sock = -1;
	s->deadline_ms = deadline_ms;
	s->last_received = clock_ms();
	list_init(&s->channels);
	list_init(&s->pieces);
	if (!strchr(to->host_key, ' ')) {
		ssh_fail(s, -EKEYREJECTED, "no host key is pinned for %s port %d", to->host,
			 to->port);
		return s;
	}
	r = start_session(s);
	if (r < 0)
		ssh_fail(s, r, "cannot connect to %s port %d: %s", to->host, to->port,
			 strerror(-r));
	else
		connect_start(s);
	loop_timer_set(loop, &s->pulse, PULSE_MS, on_pulse);
	return s;
}

void ssh_destroy(struct ssh *s)
{
	if (!s)
		return;
	/* A farewell if it can be sent at once; the peer does not need it. */
	if (s->state == SSH_UP && !s->stuck && !s->pumping)
		libssh2_session_disconnect(s->session, "bye");
	s->doomed = true;
	/* The owners are told now, while they exist; the memory goes when the pump has ended. */
	list_for_each(c, &s->channels, struct ssh_channel, link)
		channel_orphan(c);
	if (!s->pumping)
		ssh_free(s);
}

bool ssh_is_up(const struct ssh *s)
{
	return s->state == SSH_UP && !s->why.code && !s->doomed;
}

const char *ssh_server_version(const struct ssh *s)
{
	const char *banner = s->session ? libssh2_session_banner_get(s->session) : NULL;

	if (banner && !strncmp(banner, "SSH-2.0-", 8))
		banner += 8;
	return banner ? banner : "";
}

void ssh_traffic(const struct ssh *s, uint64_t *received, uint64_t *sent)
{
	*received = s->received;
	*sent = s->sent;
}
