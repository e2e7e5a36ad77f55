/* The cable to QEMU: see wire.h. */
#include "wire.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#define FULL (1u << 20)		/* nothing is added any more, but what cannot wait ... */
#define BURST (4u << 20)	/* ... and not even that */
#define SOON (128u << 10)	/* sent without waiting for the end of this turn */
#define READ_AT_ONCE (256u << 10)

void wire_plug(struct wire *w, int fd)
{
	const int size = 1 << 20;

	wire_unplug(w);
	w->fd = fd;
	/* Quicker with more under way; the kernel gives what it may. */
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

void wire_unplug(struct wire *w)
{
	if (w->fd >= 0)
		close(w->fd);
	w->fd = -1;
	buf_clear(&w->in);
	buf_clear(&w->out);
}

bool wire_full(const struct wire *w)
{
	return buf_size(&w->out) > FULL;
}

void wire_put(struct wire *w, const void *frame, size_t len)
{
	if (w->fd < 0 || len > WIRE_FRAME_MAX || buf_size(&w->out) > BURST)
		return;
	buf_put_u32(&w->out, (uint32_t)len);
	buf_put(&w->out, frame, len);
	if (buf_size(&w->out) > SOON)
		wire_flush(w);	/* an end is noticed at the end of this turn too */
}

bool wire_flush(struct wire *w)
{
	while (w->fd >= 0 && buf_size(&w->out)) {
		ssize_t n = send(w->fd, buf_peek(&w->out), buf_size(&w->out),
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS;
		buf_consume(&w->out, (size_t)n);
	}
	return true;
}

bool wire_take(struct wire *w, void (*each)(void *user, const uint8_t *frame, size_t len),
	       void *user)
{
	ssize_t n = recv(w->fd, buf_reserve(&w->in, READ_AT_ONCE), READ_AT_ONCE, MSG_DONTWAIT);
	uint32_t len;

	if (n < 0)
		return errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK;
	if (n == 0) {
		errno = 0;
		return false;
	}
	buf_commit(&w->in, (size_t)n);
	while (buf_size(&w->in) >= sizeof(len)) {
		struct rbuf r = { buf_peek(&w->in), buf_size(&w->in) };

		rbuf_u32(&r, &len);
		if (len == 0 || len > WIRE_FRAME_MAX) {
			errno = EPROTO;
			return false;
		}
		if (r.len < len)
			break;
		each(user, r.data, len);
		buf_consume(&w->in, sizeof(len) + len);
	}
	return true;
}
