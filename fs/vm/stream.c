/*
 * Spooled output with waiting readers; see stream.h for the files.
 *
 * The log is not stored a second time: `order` tells which run of which stream
 * comes next. The last run is still growing and lives in memory only; it is
 * written when the other stream has bytes, and at the end. A reader of the log
 * finds its run by binary search in the file. Where runs or their bytes were dropped, it
 * goes on at the first byte of either stream that is there again.
 */
#include "stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "log.h"
#include "metrics.h"
#include "spool.h"

#define RECORD 16
#define RUNS_AT_ONCE 1000
#define ERR_BIT (1ull << 63)

struct run {
	uint64_t log_end, end;	/* in the log; in its stream */
	enum stream_which which;
};

struct stream {
	char *dir;
	struct spool bytes[2], order;
	struct run last;	/* growing; log_end 0: none yet */
	bool last_written;
	uint64_t refused;	/* by a disk that is full */
	bool ended;
	struct wait_list news;
};

void stream_rest(struct stream *s)
{
	spool_rest(&s->bytes[STREAM_OUT]);
	spool_rest(&s->bytes[STREAM_ERR]);
	spool_rest(&s->order);
}

/* --- runs --------------------------------------------------------------------- */

static uint64_t runs_written(const struct stream *s)
{
	return s->order.size / RECORD;
}

static uint64_t run_count(const struct stream *s)
{
	return runs_written(s) + (s->last.log_end && !s->last_written);
}

/* -ENODATA: it was dropped. */
static int run_load(struct stream *s, uint64_t i, struct run *run)
{
	uint8_t raw[RECORD];
	struct rbuf r = { raw, RECORD };
	ssize_t n = spool_read(&s->order, raw, RECORD, i * RECORD);
	uint64_t end = 0;

	if (n != RECORD)
		return n == -ENODATA ? -ENODATA : -EIO;
	rbuf_u64(&r, &run->log_end);
	rbuf_u64(&r, &end);
	run->end = end & ~ERR_BIT;
	run->which = end & ERR_BIT ? STREAM_ERR : STREAM_OUT;
	return 0;
}

static int run_get(struct stream *s, uint64_t i, struct run *run)
{
	if (i + 1 < run_count(s))
		return run_load(s, i, run);
	*run = s->last;
	return 0;
}

/* Write the last run down. Without it the log would lose its order: then nothing more is kept. */
static int run_store(struct stream *s)
{
	struct buf raw = BUF_INIT;
	int r;

	buf_put_u64(&raw, s->last.log_end);
	buf_put_u64(&raw, s->last.end | (s->last.which == STREAM_ERR ? ERR_BIT : 0));
	r = spool_append(&s->order, buf_peek(&raw), RECORD);
	buf_finish(&raw);
	s->last_written = r == 0;
	return r;
}

/* How much of that stream had come at the end of the run. */
static uint64_t reached(const struct run *run, enum stream_which which)
{
	return run->which == which ? run->end : run->log_end - run->end;
}

/* --- life ----------------------------------------------------------------------- */

static void load(struct stream *s)
{
	spool_load(&s->bytes[STREAM_OUT]);
	spool_load(&s->bytes[STREAM_ERR]);
	spool_load(&s->order);
	if (runs_written(s) && run_load(s, runs_written(s) - 1, &s->last) == 0)
		s->last_written = true;
	/*
	 * The last run may be unwritten (it is the only one, or sbxfs was killed): what no run
	 * tells.
	 */
	for (int i = 0; i < 2; i++)
		if (s->bytes[i].size > reached(&s->last, i)) {
			s->last = (struct run){
				s->bytes[0].size + s->bytes[1].size, s->bytes[i].size, i };
			s->last_written = false;
			break;
		}
	stream_rest(s);
}

struct stream *stream_open(const char *dir, bool ended, uint64_t cap)
{
	struct stream *s = xcalloc(1, sizeof(*s));

	s->dir = xstrdup(dir);
	spool_init(&s->bytes[STREAM_OUT], s->dir, "stdout", cap);
	spool_init(&s->bytes[STREAM_ERR], s->dir, "stderr", cap);
	spool_init(&s->order, s->dir, "order", cap);
	s->ended = ended;
	wait_init(&s->news);
	if (ended)
		load(s);
	return s;
}

void stream_destroy(struct stream *s)
{
	if (!s)
		return;
	stream_rest(s);
	free(s->dir);
	free(s);
}

void stream_move(struct stream *s, const char *dir)
{
	free(s->dir);
	s->dir = xstrdup(dir);
	s->bytes[0].dir = s->bytes[1].dir = s->order.dir = s->dir;
}

void stream_append(struct stream *s, enum stream_which which, const void *data, size_t len)
{
	bool turns = s->last.log_end && s->last.which != which;
	int r = 0;

	if (len == 0)
		return;
	if (!s->refused && turns && !s->last_written)
		r = run_store(s);
	if (!s->refused && r == 0)
		r = spool_append(&s->bytes[which], data, len);
	if (s->refused || r < 0) {
		if (!s->refused)
			log_warn("spool %s: output is dropped: %s", s->dir, strerror(-r));
		s->refused += len;
		return;
	}
	metric_add(which == STREAM_ERR ? METRIC_JOB_STDERR_BYTES : METRIC_JOB_STDOUT_BYTES, len);
	s->last = (struct run){ stream_size(s, STREAM_LOG), s->bytes[which].size, which };
	s->last_written = false;
	wait_wake(&s->news);
}

void stream_end(struct stream *s)
{
	if (s->ended)
		return;
	if (s->last.log_end && !s->last_written && runs_written(s))
		run_store(s);	/* with one run only, the sizes tell it all */
	s->ended = true;
	stream_rest(s);
	wait_wake(&s->news);
}

bool stream_ended(const struct stream *s)
{
	return s->ended;
}

uint64_t stream_size(const struct stream *s, enum stream_which which)
{
	return which == STREAM_LOG ? s->bytes[0].size + s->bytes[1].size : s->bytes[which].size;
}

uint64_t stream_refused(const struct stream *s)
{
	return s->refused;
}

uint64_t stream_dropped(const struct stream *s)
{
	return s->refused + spool_dropped(&s->bytes[0]) + spool_dropped(&s->bytes[1]);
}

struct wait_list *stream_news(struct stream *s)
{
	return &s->news;
}

/* --- the log ---------------------------------------------------------------------- */

/* The runs that were dropped are from .. to - 1; none: both are run_count. */
static void runs_missing(const struct stream *s, uint64_t *from, uint64_t *to)
{
	*from = *to = run_count(s);
	if (spool_dropped(&s->order)) {
		*from = s->order.cap / 2 / RECORD;
		*to = spool_next(&s->order, *from * RECORD) / RECORD;
	}
}

/* The first of the runs low .. high - 1 that goes beyond either; high: none. */
static int run_search(struct stream *s, uint64_t low, uint64_t high, uint64_t log, uint64_t out,
		      uint64_t err, uint64_t *index)
{
	struct run run = { 0 };
	int r = 0;

	while (low < high && r == 0) {
		uint64_t middle = low + (high - low) / 2;

		r = run_get(s, middle, &run);
		if (run.log_end > log || reached(&run, STREAM_OUT) > out ||
		    reached(&run, STREAM_ERR) > err)
			high = middle;
		else
			low = middle + 1;
	}
	*index = low;
	return r;
}

/* Which run holds byte off of the log, and where in the log it begins. -ENODATA: a missing one. */
static int run_find(struct stream *s, uint64_t off, uint64_t *index, uint64_t *start)
{
	uint64_t from, to, low = 0, high;
	struct run run = { 0 };
	int r = 0;

	runs_missing(s, &from, &to);
	high = from;
	if (to > from) {
		r = run_get(s, from - 1, &run);
		if (r == 0 && run.log_end <= off) {
			r = run_get(s, to, &run);	/* nobody knows where that one begins */
			if (r == 0 && run.log_end > off)
				r = -ENODATA;
			low = to + 1;
			high = run_count(s);
		}
	}
	if (r == 0)
		r = run_search(s, low, high, off, UINT64_MAX, UINT64_MAX, index);
	run.log_end = 0;
	if (r == 0 && *index > 0)
		r = run_get(s, *index - 1, &run);
	*start = run.log_end;
	return r;
}

/*
 * The log, run by run. A job that changes streams at every byte makes millions of
 * them: a read that has met RUNS_AT_ONCE is short, so that nobody waits for it.
 */
static ssize_t log_read(struct stream *s, void *buf, size_t len, uint64_t off)
{
	uint64_t index, start;
	size_t done = 0;
	int r;

	if (off >= stream_size(s, STREAM_LOG))
		return 0;
	r = run_find(s, off, &index, &start);
	if (r < 0)
		return r == -ENODATA ? -ENODATA : -EIO;
	for (int i = 0; i < RUNS_AT_ONCE && done < len && off < stream_size(s, STREAM_LOG); i++) {
		struct run run;
		uint64_t left;
		ssize_t n = run_get(s, index++, &run);

		if (n == 0 && run.log_end <= off)
			n = -EIO;
		left = n == 0 ? run.log_end - off : 0;
		if (n == 0)
			n = spool_read(&s->bytes[run.which], (char *)buf + done,
				       len - done < left ? len - done : left, run.end - left);
		if (n <= 0 && done > 0)
			break;
		if (n <= 0)
			return n < 0 ? n : -EIO;
		done += (size_t)n;
		off += (uint64_t)n;
		if ((uint64_t)n < left)
			break;
	}
	return (ssize_t)done;
}

/* Behind run i, whose bytes are gone to its end: where in the log something is there again. */
static uint64_t log_skip(struct stream *s, uint64_t i, const struct run *run)
{
	uint64_t end = stream_size(s, STREAM_LOG), from, to, k;
	uint64_t out = spool_next(&s->bytes[STREAM_OUT], reached(run, STREAM_OUT));
	uint64_t err = spool_next(&s->bytes[STREAM_ERR], reached(run, STREAM_ERR));
	struct run before;

	runs_missing(s, &from, &to);
	if (run_search(s, i + 1, i < from ? from : run_count(s), UINT64_MAX, out, err, &k) < 0)
		return end;
	if (i < from && k == from && to > from)
		return run_get(s, to, &before) == 0 ? before.log_end : end;
	return k < run_count(s) && run_get(s, k - 1, &before) == 0 ? before.log_end : end;
}

static uint64_t log_next(struct stream *s, uint64_t off)
{
	uint64_t end = stream_size(s, STREAM_LOG), i, start, from, to;

	while (off < end) {
		struct run run;
		uint64_t at, next;
		int r = run_find(s, off, &i, &start);

		if (r == -ENODATA) {
			runs_missing(s, &from, &to);
			if (run_get(s, to, &run) < 0)
				return end;
			off = run.log_end;
			continue;
		}
		if (r < 0 || run_get(s, i, &run) < 0)
			return end;
		at = run.end - (run.log_end - off);
		next = spool_next(&s->bytes[run.which], at);
		if (next < run.end)
			return off + (next - at);
		off = log_skip(s, i, &run);
	}
	return end;
}

/* --- reading ------------------------------------------------------------------------ */

ssize_t stream_read(struct stream *s, enum stream_which which, void *buf, size_t len, uint64_t off)
{
	return which == STREAM_LOG ? log_read(s, buf, len, off) :
				     spool_read(&s->bytes[which], buf, len, off);
}

uint64_t stream_next(struct stream *s, enum stream_which which, uint64_t off)
{
	return which == STREAM_LOG ? log_next(s, off) : spool_next(&s->bytes[which], off);
}
