/*
 * Growable bytes, and big-endian numbers and strings as SSH writes them
 * (RFC 4251 section 5). Getters cannot overrun: past the end they return
 * -EBADMSG and leave their result alone. Putters abort when memory is out;
 * who lets a peer or a user choose a size bounds it first.
 */
#ifndef SBXFS_BASE_BUF_H
#define SBXFS_BASE_BUF_H

#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>

struct buf {
	uint8_t *data;		/* the bytes not yet consumed are data[off .. len) */
	size_t off, len, cap;
};

#define BUF_INIT ((struct buf){ 0 })

void buf_finish(struct buf *);			/* free; all zero afterwards */
static inline size_t buf_size(const struct buf *b) { return b->len - b->off; }
static inline uint8_t *buf_peek(const struct buf *b) { return b->data + b->off; }
void buf_clear(struct buf *);			/* empty, memory kept */
void buf_consume(struct buf *, size_t n);	/* drop n bytes at the front; n <= buf_size */
/* Room for n more bytes at the end, not counted yet: fill it, then buf_commit. */
uint8_t *buf_reserve(struct buf *, size_t n);
void buf_commit(struct buf *, size_t n);
/* The bytes with a NUL behind them; the buffer is empty afterwards. free() it. */
char *buf_take_string(struct buf *);

void buf_put(struct buf *, const void *data, size_t n);
void buf_put_u8(struct buf *, uint8_t);
void buf_put_u32(struct buf *, uint32_t);
void buf_put_u64(struct buf *, uint64_t);
void buf_put_string(struct buf *, const void *data, size_t n);	/* uint32 length, bytes */
void buf_put_cstring(struct buf *, const char *);
void buf_printf(struct buf *, const char *fmt, ...)
	__attribute__((format(printf, 2, 3), nonnull));
/* Overwrite the 4 bytes at absolute offset pos (a length known only later). */
void buf_poke_u32(struct buf *, size_t pos, uint32_t);

/* Readers over borrowed bytes. All return 0 or -EBADMSG. */
struct rbuf {
	const uint8_t *data;
	size_t len;		/* what is left */
};
int rbuf_u8(struct rbuf *, uint8_t *);
int rbuf_u32(struct rbuf *, uint32_t *);
int rbuf_u64(struct rbuf *, uint64_t *);
/* *data is borrowed from the reader's bytes and not NUL terminated. */
int rbuf_string(struct rbuf *, const uint8_t **data, size_t *len);
int rbuf_skip(struct rbuf *, size_t n);

/* xmalloc family: small fixed allocations abort when memory is out. */
void *xcalloc(size_t n, size_t size);
void *xmalloc(size_t size);
void *xrealloc(void *, size_t size);
char *xstrdup(const char *);
char *xstrndup(const char *, size_t n);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
