/* The host's side of the identity port: see identity.h and guest/PROTOCOL. */
#include "identity.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "loop.h"
#include "qemu_args.h"

#define LINE_MAX_BYTES 4096
#define OUT_MAX_BYTES (64 * 1024)
#define ENTROPY_BYTES 64

/* A boot takes under 200 bytes; who says more than this is heard slowly. */
#define FREE_BYTES 16384
#define SLOW_MS 50

struct identity_port {
	struct loop *loop;
	struct loop_fd fd;
	struct loop_timer slow;
	const struct identity_events *events;
	void *user;
	struct buf in, out;
	uint64_t heard;
	bool skipping;		/* an overlong line, to its end */
	bool busy;		/* a callback runs: identity_close leaves the freeing to us */
	bool closed;
};

/* --- words ---------------------------------------------------------------- */

static bool valid_nonce(const char *s, size_t len)
{
	return len == 16 && strspn(s, "0123456789abcdef") >= len;
}

enum identity_word identity_understand(char *line, const char **value)
{
	static const struct { const char *line; enum identity_word word; } words[] = {
		{ "ready", IDENTITY_READY }, { "can clone", IDENTITY_CAN_CLONE },
		{ "cloned", IDENTITY_CLONED }, { "synced", IDENTITY_SYNCED },
		{ "frozen", IDENTITY_FROZEN },
	};
	static const char hello[] = "hello 1 ", failed[] = "failed ";
	size_t word;

	*value = "";
	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (!strcmp(line, words[i].line))
			return words[i].word;
	if (!strncmp(line, failed, sizeof(failed) - 1)) {
		*value = line + sizeof(failed) - 1;
		return IDENTITY_FAILED;
	}
	if (strncmp(line, hello, sizeof(hello) - 1))
		return IDENTITY_NOTHING;
	line += sizeof(hello) - 1;
	word = strcspn(line, " ");
	if (!valid_nonce(line, word))
		return IDENTITY_NOTHING;
	if (!strcmp(line + word, " ready"))
		return IDENTITY_HELLO_READY;
	if (strcmp(line + word, " new"))
		return IDENTITY_NOTHING;
	line[word] = '\0';
	*value = line;
	return IDENTITY_HELLO_NEW;
}

static void put_base64(struct buf *out, const char *text)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t len = strlen(text);

	for (size_t i = 0; i < len; i += 3) {
		uint32_t v = (uint32_t)(uint8_t)text[i] << 16;

		if (i + 1 < len)
			v |= (uint32_t)(uint8_t)text[i + 1] << 8;
		if (i + 2 < len)
			v |= (uint8_t)text[i + 2];
		buf_put_u8(out, (uint8_t)digits[v >> 18]);
		buf_put_u8(out, (uint8_t)digits[v >> 12 & 63]);
		buf_put_u8(out, i + 1 < len ? (uint8_t)digits[v >> 6 & 63] : '=');
		buf_put_u8(out, i + 2 < len ? (uint8_t)digits[v & 63] : '=');
	}
}

void identity_compose(struct buf *out, const char *nonce, const struct identity_facts *f,
		      int64_t ms, const uint8_t *entropy, size_t entropy_len)
{
	buf_printf(out, "identity %s\nhostname %s\nmachine-id %s\n", nonce, f->hostname,
		   f->machine_id);
	buf_printf(out, "address %s\ngateway %s\ndns %s\n", QEMU_GUEST_ADDRESS,
		   QEMU_GUEST_GATEWAY, QEMU_GUEST_DNS);
	buf_printf(out, "time %lld\nmilliseconds %lld\n", (long long)(ms / 1000),
		   (long long)(ms % 1000));
	if (f->disk_size)
		buf_printf(out, "disk-size %llu\n", (unsigned long long)f->disk_size);
	buf_printf(out, "entropy ");
	for (size_t i = 0; i < entropy_len; i++)
		buf_printf(out, "%02x", entropy[i]);
	buf_printf(out, "\nauthorized-key %s\nhost-key ", f->authorized_key);
	put_base64(out, f->host_key);
	buf_printf(out, "\nhost-key-public %s\nend\n", f->host_key_public);
}

/* --- out ------------------------------------------------------------------- */

static void wipe(struct buf *b)
{
	if (b->data)
		explicit_bzero(b->data, b->cap);
	buf_finish(b);
}

static void listen_for(struct identity_port *p)
{
	uint32_t events = loop_timer_is_set(&p->slow) ? 0 : EPOLLIN;

	if (p->fd.loop)
		loop_fd_set(&p->fd, events | (buf_size(&p->out) ? EPOLLOUT : 0));
}

static void flush(struct identity_port *p)
{
	ssize_t n = 1;

	while (p->fd.loop && buf_size(&p->out) && n > 0) {
		n = send(p->fd.fd, buf_peek(&p->out), buf_size(&p->out), MSG_NOSIGNAL);
		if (n > 0)
			buf_consume(&p->out, (size_t)n);
	}
	if (!buf_size(&p->out))
		wipe(&p->out);
	listen_for(p);
}

static void send_identity(struct identity_port *p, const char *nonce)
{
	struct identity_facts facts = { 0 };
	uint8_t entropy[ENTROPY_BYTES];
	struct buf keep = BUF_INIT;

	/* A guest that asks again and again without listening gets no further answer. */
	if (buf_size(&p->out) > OUT_MAX_BYTES)
		return;
	if (getrandom(entropy, sizeof(entropy), 0) != (ssize_t)sizeof(entropy))
		return;
	if (p->events->facts(p->user, &facts, &keep) == 0) {
		/* Room for all of it first: growing would leave copies of the key behind. */
		buf_reserve(&p->out, 16384);
		identity_compose(&p->out, nonce, &facts, wall_ms(), entropy,
				 sizeof(entropy));
	}
	explicit_bzero(entropy, sizeof(entropy));
	wipe(&keep);
	flush(p);
}

void identity_send(struct identity_port *p, const char *word)
{
	buf_printf(&p->out, "%s\n", word);
	flush(p);
}

void identity_send_clone(struct identity_port *p)
{
	send_identity(p, "clone");
}

void identity_send_clock(struct identity_port *p)
{
	int64_t ms = wall_ms();

	buf_printf(&p->out, "clock %lld %lld\n", (long long)(ms / 1000), (long long)(ms % 1000));
	flush(p);
}

/* --- in --------------------------------------------------------------------- */

static void take_line(struct identity_port *p, char *line)
{
	const char *value;
	enum identity_word word = identity_understand(line, &value);

	if (word == IDENTITY_HELLO_NEW)
		send_identity(p, value);
	if (word != IDENTITY_NOTHING)
		p->events->word(p->user, word, value);
}

static void take_lines(struct identity_port *p)
{
	uint8_t *end;

	while (!p->closed && buf_size(&p->in) &&
	       (end = memchr(buf_peek(&p->in), '\n', buf_size(&p->in)))) {
		size_t len = (size_t)(end - buf_peek(&p->in));
		char *line = xstrndup((char *)buf_peek(&p->in), len);

		buf_consume(&p->in, len + 1);
		if (!p->skipping && strlen(line) == len)
			take_line(p, line);
		p->skipping = false;
		free(line);
	}
	if (buf_size(&p->in) > LINE_MAX_BYTES) {
		p->skipping = true;
		buf_clear(&p->in);
	}
}

static void slow_over(struct loop_timer *t)
{
	listen_for(container_of(t, struct identity_port, slow));
}

static void hang_up(struct identity_port *p)
{
	int fd = p->fd.fd;

	if (!p->fd.loop)
		return;
	loop_timer_cancel(&p->slow);
	loop_fd_del(&p->fd);
	close(fd);
}

static void identity_free(struct identity_port *p)
{
	buf_finish(&p->in);
	wipe(&p->out);
	free(p);
}

/* The end of the connection is the end of QEMU, which is noticed elsewhere. */
static void readable(struct loop_fd *f, uint32_t events)
{
	struct identity_port *p = container_of(f, struct identity_port, fd);
	ssize_t n;

	if (events & EPOLLOUT)
		flush(p);
	n = recv(f->fd, buf_reserve(&p->in, LINE_MAX_BYTES), LINE_MAX_BYTES, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		hang_up(p);
		return;
	}
	buf_commit(&p->in, (size_t)n);
	p->heard += (uint64_t)n;
	if (p->heard > FREE_BYTES)
		loop_timer_set(p->loop, &p->slow, SLOW_MS, slow_over);
	p->busy = true;
	take_lines(p);
	p->busy = false;
	if (p->closed)
		identity_free(p);
	else
		listen_for(p);
}

/* --- life --------------------------------------------------------------------- */

int identity_open(struct identity_port **port, struct loop *loop, int fd,
		  const struct identity_events *events, void *user, struct err *err)
{
	struct identity_port *p = xcalloc(1, sizeof(*p));
	int r;

	p->loop = loop;
	p->events = events;
	p->user = user;
	r = loop_fd_add(loop, &p->fd, fd, EPOLLIN, readable);
	if (r < 0) {
		err_sys(err, r, "cannot watch the identity port");
		close(fd);
		free(p);
		return r;
	}
	*port = p;
	return 0;
}

void identity_close(struct identity_port *p)
{
	if (!p)
		return;
	hang_up(p);
	if (p->busy)
		p->closed = true;
	else
		identity_free(p);
}
