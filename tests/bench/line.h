/*
 * A delay line: bytes go in at one end and come out at the other a fixed time
 * later, in order. No I/O, no clock of its own; relay.c has two a connection.
 * Times are nanoseconds of any clock that only goes forward.
 */
#ifndef SBXFS_BENCH_LINE_H
#define SBXFS_BENCH_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Every byte up to position end is due then. */
struct line_mark {
	uint64_t end;
	int64_t due;
};

struct line {
	int64_t delay;
	size_t size;			/* of the ring */
	uint8_t *ring;
	uint64_t in, out;		/* bytes that ever went in, came out */
	struct line_mark *marks;	/* a ring, too */
	unsigned first, count;
	bool ended;			/* no more comes; a last mark tells when that is due */
};

#define LINE_MARKS 16384

/* 0, or -ENOMEM. size: what it holds, in bytes; what is more has to wait outside. */
int line_init(struct line *, size_t size, int64_t delay);
void line_finish(struct line *);

/* Where the next bytes go, *len of them; 0 when it is full or has ended. */
uint8_t *line_space(struct line *, size_t *len);
/* len bytes were put at line_space. */
void line_put(struct line *, size_t len, int64_t now);
/* The end of the stream was put. At most once. */
void line_end(struct line *, int64_t now);

/* The first of the bytes that are due, *len of them in one piece. */
const uint8_t *line_due(const struct line *, int64_t now, size_t *len);
void line_take(struct line *, size_t len);
/* Has everything come out, and is the end due? */
bool line_over(const struct line *, int64_t now);
/* When the next byte, or the end, is due; INT64_MAX when nothing is on its way. */
int64_t line_next(const struct line *);

#endif
