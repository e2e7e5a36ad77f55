/*
 * Spooled output with waiting readers; see stream.h for the files.
 *
 * The log is not stored a second time: `order` tells which run of which stream
 * comes next. The last run is still growing and lives in memory only; it is
 * written when the other stream has bytes, and at the end. A reader of the log
 * finds its run by binary search in the file.
 */
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "log.h"
#include "metrics.h"

#define RECORD 16
#define RUNS_AT_ONCE 1000
#define ERR_BIT (1ull << 63)

struct run {
	uint64_t log_end, end;	/* in the log; in its stream */
	enum stream_which which;
};

struct stream {
	char *dir;
	int fd[3];		/* stdout, stderr, order; -1 when closed */
	uint64_t size[2];
	uint64_t runs;		/* in the file */
	struct run last;	/* growing; log_end 0: none yet */
	bool last_written;
	uint64_t dropped;
	bool ended;
	struct wait_list news;
};

static const char *const names[3] = { "stdout", "stderr", "order" };

static int file_open(struct stream *s, int i, bool create)
{
	char *path;

	if (s->fd[i] >= 0)
		return s->fd[i];
	path = xasprintf("%s/%s", s->dir, names[i]);
	s->fd[i] = open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
	if (s->fd[i] < 0 && errno != ENOENT)
		log_warn("spool %s: %s", path, strerror(errno));
	free(path);
	return s->fd[i] < 0 ? -errno : s->fd[i];
}

void stream_rest(struct stream *s)
{
	for (int i = 0; i < 3; i++) {
		if (s->fd[i] >= 0)
			close(s->fd[i]);
		s->fd[i] = -1;
	}
}

static uint64_t be64(const uint8_t *p)
{
	uint64_t v = 0;

	for (int i = 0; i < 8; i++)
		v = v << 8 | p[i];
	return v;
}

static int run_load(struct stream *s, uint64_t i, struct run *run)
{
	uint8_t raw[RECORD];
	int fd = file_open(s, 2, false);

	if (fd < 0 || pread(fd, raw, RECORD, (off_t)(i * RECORD)) != RECORD)
		return -EIO;
	run->log_end = be64(raw);
	run->end = be64(raw + 8) & ~ERR_BIT;
	run->which = be64(raw + 8) & ERR_BIT ? STREAM_ERR : STREAM_OUT;
	return 0;
}

/* Write the last run down. Without it the log would lose its order: then nothing more is kept. */
static int run_store(struct stream *s)
{
	struct buf raw = BUF_INIT;
	int fd = file_open(s, 2, true);
	bool done;

	buf_put_u64(&raw, s->last.log_end);
	buf_put_u64(&raw, s->last.end | (s->last.which == STREAM_ERR ? ERR_BIT : 0));
	done = fd >= 0 && pwrite(fd, buf_peek(&raw), RECORD, (off_t)(s->runs * RECORD)) == RECORD;
	buf_finish(&raw);
	if (!done)
		return -EIO;
	s->runs++;
	s->last_written = true;
	return 0;
}

static void load_sizes(struct stream *s)
{
	struct stat st;

	for (int i = 0; i < 3; i++) {
		int fd = file_open(s, i, false);

		if (fd < 0 || fstat(fd, &st) < 0)
			continue;
		if (i < 2)
			s->size[i] = (uint64_t)st.st_size;
		else
			s->runs = (uint64_t)st.st_size / RECORD;
	}
	if (s->runs && run_load(s, s->runs - 1, &s->last) == 0)
		s->last_written = true;
	/* The last run may be unwritten (it is the only one, or sbxfs was killed): what no run tells. */
	for (int i = 0; i < 2; i++) {
		uint64_t told = s->last.which == (enum stream_which)i ? s->last.end :
				s->last.log_end - s->last.end;

		if (s->size[i] > told) {
			s->last = (struct run){ s->size[0] + s->size[1], s->size[i], i };
			s->last_written = false;
			break;
		}
	}
	stream_rest(s);
}

struct stream *stream_open(const char *dir, bool ended)
{
	struct stream *s = xcalloc(1, sizeof(*s));

	s->dir = xstrdup(dir);
	s->fd[0] = s->fd[1] = s->fd[2] = -1;
	s->ended = ended;
	wait_init(&s->news);
	if (ended)
		load_sizes(s);
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
}

static int write_all(int fd, const uint8_t *data, size_t len, uint64_t off)
{
	while (len > 0) {
		ssize_t n = pwrite(fd, data, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		data += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

void stream_append(struct stream *s, enum stream_which which, const void *data, size_t len)
{
	bool turns = s->last.log_end && s->last.which != which;
	int fd;

	if (len == 0)
		return;
	if (s->dropped)
		goto drop;
	if (turns && !s->last_written && run_store(s) < 0)
		goto drop;
	fd = file_open(s, which, true);
	if (fd < 0 || write_all(fd, data, len, s->size[which]) < 0)
		goto drop;
	s->size[which] += len;
	metric_add(which == STREAM_ERR ? METRIC_JOB_STDERR_BYTES : METRIC_JOB_STDOUT_BYTES, len);
	s->last = (struct run){ s->size[0] + s->size[1], s->size[which], which };
	s->last_written = false;
	wait_wake(&s->news);
	return;
drop:
	if (!s->dropped)
		log_warn("spool %s: output is dropped: %s", s->dir, strerror(errno));
	s->dropped += len;
}

void stream_end(struct stream *s)
{
	if (s->ended)
		return;
	if (s->last.log_end && !s->last_written && s->runs)
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
	return which == STREAM_LOG ? s->size[0] + s->size[1] : s->size[which];
}

uint64_t stream_dropped(const struct stream *s)
{
	return s->dropped;
}

struct wait_list *stream_news(struct stream *s)
{
	return &s->news;
}

static uint64_t run_count(const struct stream *s)
{
	return s->runs + (s->last.log_end && !s->last_written);
}

static int run_get(struct stream *s, uint64_t i, struct run *run)
{
	if (i + 1 == run_count(s)) {
		*run = s->last;
		return 0;
	}
	return run_load(s, i, run);
}

/* Which run holds byte off of the log, and where in the log it begins. */
static int run_find(struct stream *s, uint64_t off, uint64_t *index, uint64_t *start)
{
	uint64_t low = 0, high = run_count(s);
	struct run run = { 0 };
	int r = 0;

	while (low < high && r == 0) {
		uint64_t middle = low + (high - low) / 2;

		r = run_get(s, middle, &run);
		if (run.log_end > off)
			high = middle;
		else
			low = middle + 1;
	}
	run.log_end = 0;
	if (r == 0 && low > 0)
		r = run_get(s, low - 1, &run);
	*index = low;
	*start = run.log_end;
	return r;
}

static ssize_t file_read(struct stream *s, enum stream_which which, void *buf, size_t len,
			 uint64_t off)
{
	int fd;
	ssize_t n;

	if (off >= s->size[which])
		return 0;
	if (len > s->size[which] - off)
		len = s->size[which] - off;
	fd = file_open(s, which, false);
	if (fd < 0)
		return -EIO;
	n = pread(fd, buf, len, (off_t)off);
	return n < 0 ? -errno : n;
}

/*
 * The log, run by run. A job that changes streams at every byte makes millions of
 * them: a read that has met RUNS_AT_ONCE is short, so that nobody waits for it.
 */
static ssize_t log_read(struct stream *s, void *buf, size_t len, uint64_t off)
{
	uint64_t index, start;
	size_t done = 0;

	if (off >= stream_size(s, STREAM_LOG))
		return 0;
	if (run_find(s, off, &index, &start) < 0)
		return -EIO;
	for (int i = 0; i < RUNS_AT_ONCE && done < len && off < stream_size(s, STREAM_LOG); i++) {
		struct run run;
		uint64_t left;
		ssize_t n;

		if (run_get(s, index++, &run) < 0 || run.log_end <= off)
			return -EIO;
		left = run.log_end - off;
		n = file_read(s, run.which, (char *)buf + done,
			      len - done < left ? len - done : left, run.end - left);
		if (n <= 0)
			return n < 0 ? n : -EIO;
		done += (size_t)n;
		off += (uint64_t)n;
		if ((uint64_t)n < left)
			break;
	}
	return (ssize_t)done;
}

ssize_t stream_read(struct stream *s, enum stream_which which, void *buf, size_t len, uint64_t off)
{
	return which == STREAM_LOG ? log_read(s, buf, len, off) :
				     file_read(s, which, buf, len, off);
}
