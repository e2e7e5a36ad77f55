/* Growable bytes and bounded readers. */
#include "buf.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *or_abort(void *p)
{
	if (!p) {
		fputs("sbxfs: out of memory\n", stderr);
		abort();
	}
	return p;
}

void *xcalloc(size_t n, size_t size) { return or_abort(calloc(n ? n : 1, size ? size : 1)); }
void *xmalloc(size_t size) { return or_abort(malloc(size ? size : 1)); }
void *xrealloc(void *p, size_t size) { return or_abort(realloc(p, size ? size : 1)); }
char *xstrdup(const char *s) { return or_abort(strdup(s)); }

/* s need not end within its first n bytes, which is all that is looked at. */
char *xstrndup(const char *s, size_t n)
{
	size_t len = strnlen(s, n);
	char *copy = xmalloc(len + 1);

	memcpy(copy, s, len);
	copy[len] = 0;
	return copy;
}

char *xasprintf(const char *fmt, ...)
{
	va_list ap;
	char *s;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	return or_abort(n < 0 ? NULL : s);
}

void buf_finish(struct buf *b)
{
	free(b->data);
	*b = BUF_INIT;
}

void buf_clear(struct buf *b)
{
	b->off = b->len = 0;
}

void buf_consume(struct buf *b, size_t n)
{
	assert(n <= buf_size(b));
	b->off += n;
	if (b->off == b->len)
		buf_clear(b);
}

uint8_t *buf_reserve(struct buf *b, size_t n)
{
	if (b->cap - b->len >= n)
		return b->data + b->len;
	/* Move down first: a queue that is consumed at the front must not grow for ever. */
	if (b->off > 0) {
		memmove(b->data, b->data + b->off, buf_size(b));
		b->len -= b->off;
		b->off = 0;
	}
	if (b->cap - b->len < n) {
		size_t want = b->len + n, cap = b->cap ? b->cap : 64;

		while (cap < want)
			cap *= 2;
		b->data = xrealloc(b->data, cap);
		b->cap = cap;
	}
	return b->data + b->len;
}

void buf_commit(struct buf *b, size_t n)
{
	assert(n <= b->cap - b->len);
	b->len += n;
}

char *buf_take_string(struct buf *b)
{
	size_t n = buf_size(b);
	char *s;

	buf_put_u8(b, 0);
	if (b->off > 0)
		memmove(b->data, b->data + b->off, n + 1);
	s = (char *)b->data;
	*b = BUF_INIT;
	return s;
}

void buf_put(struct buf *b, const void *data, size_t n)
{
	if (n == 0)
		return;
	memcpy(buf_reserve(b, n), data, n);
	b->len += n;
}

void buf_put_u8(struct buf *b, uint8_t v)
{
	buf_put(b, &v, 1);
}

void buf_put_u32(struct buf *b, uint32_t v)
{
	uint8_t bytes[4] = { v >> 24, v >> 16, v >> 8, v };

	buf_put(b, bytes, 4);
}

void buf_put_u64(struct buf *b, uint64_t v)
{
	buf_put_u32(b, v >> 32);
	buf_put_u32(b, (uint32_t)v);
}

void buf_put_string(struct buf *b, const void *data, size_t n)
{
	assert(n <= UINT32_MAX);
	buf_put_u32(b, (uint32_t)n);
	buf_put(b, data, n);
}

void buf_put_cstring(struct buf *b, const char *s)
{
	buf_put_string(b, s, strlen(s));
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	assert(n >= 0);
	va_start(ap, fmt);
	vsnprintf((char *)buf_reserve(b, (size_t)n + 1), (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
}

void buf_poke_u32(struct buf *b, size_t pos, uint32_t v)
{
	assert(pos + 4 <= b->len);
	b->data[pos] = v >> 24;
	b->data[pos + 1] = v >> 16;
	b->data[pos + 2] = v >> 8;
	b->data[pos + 3] = v;
}

int rbuf_skip(struct rbuf *r, size_t n)
{
	if (r->len < n)
		return -EBADMSG;
	r->data += n;
	r->len -= n;
	return 0;
}

int rbuf_u8(struct rbuf *r, uint8_t *v)
{
	if (r->len < 1)
		return -EBADMSG;
	*v = r->data[0];
	return rbuf_skip(r, 1);
}

int rbuf_u32(struct rbuf *r, uint32_t *v)
{
	const uint8_t *p = r->data;

	if (r->len < 4)
		return -EBADMSG;
	*v = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
	return rbuf_skip(r, 4);
}

int rbuf_u64(struct rbuf *r, uint64_t *v)
{
	uint32_t high = 0, low = 0;

	if (r->len < 8)
		return -EBADMSG;
	rbuf_u32(r, &high);
	rbuf_u32(r, &low);
	*v = (uint64_t)high << 32 | low;
	return 0;
}

int rbuf_string(struct rbuf *r, const uint8_t **data, size_t *len)
{
	struct rbuf probe = *r;
	uint32_t n;

	if (rbuf_u32(&probe, &n) || probe.len < n)
		return -EBADMSG;
	*data = probe.data;
	*len = n;
	rbuf_skip(&probe, n);
	*r = probe;
	return 0;
}
