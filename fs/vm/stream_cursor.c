/*
 * How a reader goes over what was dropped: it is given one line that tells how much that
 * was, and goes on behind it. Its own offsets count the line and not the bytes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "buf.h"
#include "stream.h"

struct stream_cursor {
	uint64_t from, to;	/* in the stream: the bytes that the line stands for */
	uint64_t at;		/* the reader's offset of the line */
	size_t len;
	char line[80];
};

static bool in_line(const struct stream_cursor *c, uint64_t off)
{
	return c && off >= c->at && off < c->at + c->len;
}

/* The stream's offset for one of the reader's that is not in the line. */
static uint64_t map(const struct stream_cursor *c, uint64_t off)
{
	if (!c)
		return off;
	return off < c->at ? off + (c->from - c->at) : off - (c->at + c->len) + c->to;
}

static void meet_gap(struct stream *s, enum stream_which which, struct stream_cursor **cursor,
		     uint64_t off)
{
	uint64_t from = map(*cursor, off);
	struct stream_cursor *c = *cursor ? *cursor : xcalloc(1, sizeof(*c));

	c->from = from;
	c->to = stream_next(s, which, from);
	c->at = off;
	c->len = (size_t)snprintf(c->line, sizeof(c->line),
				  "\n[sbxfs: %" PRIu64 " bytes were dropped here]\n", c->to - from);
	*cursor = c;
}

ssize_t stream_cursor_read(struct stream *s, enum stream_which which,
			   struct stream_cursor **cursor, void *buf, size_t len, uint64_t off)
{
	struct stream_cursor *c;
	size_t at;

	if (!in_line(*cursor, off)) {
		ssize_t n = stream_read(s, which, buf, len, map(*cursor, off));

		if (n != -ENODATA)
			return n;
		meet_gap(s, which, cursor, off);
	}
	c = *cursor;
	at = (size_t)(off - c->at);
	if (len > c->len - at)
		len = c->len - at;
	memcpy(buf, c->line + at, len);
	return (ssize_t)len;
}

uint64_t stream_cursor_left(const struct stream *s, enum stream_which which,
			    const struct stream_cursor *c, uint64_t off)
{
	uint64_t size = stream_size(s, which), at;

	if (in_line(c, off))
		return c->at + c->len - off;
	at = map(c, off);
	if (at >= size)
		return 0;
	/* A line may be all that is left of it. */
	return size - at < sizeof(c->line) ? sizeof(c->line) : size - at;
}
