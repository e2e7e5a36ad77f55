/* A file with a beginning, an end, and what was between them dropped; see spool.h. */
#include "spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "log.h"

void spool_init(struct spool *s, const char *dir, const char *name, uint64_t cap)
{
	*s = (struct spool){
		.dir = dir, .name = name, .cap = cap & ~31ull, .fd = -1, .gap_fd = -1,
	};
}

static uint64_t head(const struct spool *s)
{
	return s->cap / 2;
}

/* Where the ring begins: the latest bytes, as many as fit. */
static uint64_t tail_start(const struct spool *s)
{
	uint64_t start = s->reach > s->cap ? s->reach - (s->cap - head(s)) : head(s);

	return start > s->size && s->size > head(s) ? s->size : start;
}

/* The place of a byte in the file, and how many lie behind one another from there. */
static uint64_t place(const struct spool *s, uint64_t off, uint64_t *run)
{
	uint64_t ring = s->cap - head(s), in_ring;

	if (off < head(s)) {
		*run = head(s) - off;
		return off;
	}
	in_ring = (off - head(s)) % ring;
	*run = ring - in_ring;
	return head(s) + in_ring;
}

static int file_open(const struct spool *s, int *fd, const char *suffix, bool create)
{
	char *path;

	if (*fd >= 0)
		return 0;
	path = xasprintf("%s/%s%s", s->dir, s->name, suffix);
	*fd = open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
	if (*fd < 0 && errno != ENOENT)
		log_warn("spool %s: %s", path, strerror(errno));
	free(path);
	return *fd < 0 ? -errno : 0;
}

void spool_rest(struct spool *s)
{
	if (s->fd >= 0)
		close(s->fd);
	if (s->gap_fd >= 0)
		close(s->gap_fd);
	s->fd = s->gap_fd = -1;
}

void spool_load(struct spool *s)
{
	struct rbuf r;
	struct stat st;
	uint8_t raw[24];
	uint64_t cap, size, reach;
	ssize_t n = 0;

	if (file_open(s, &s->fd, "", false) < 0 || fstat(s->fd, &st) < 0)
		return;
	s->size = s->reach = (uint64_t)st.st_size;
	if (file_open(s, &s->gap_fd, ".gap", false) == 0)
		n = pread(s->gap_fd, raw, sizeof(raw), 0);
	if (n >= 16) {
		r = (struct rbuf){ raw, (size_t)n };
		if (rbuf_u64(&r, &cap) < 0 || rbuf_u64(&r, &size) < 0 || cap < 64)
			cap = size = 0;
		if (rbuf_u64(&r, &reach) < 0)
			reach = size;
		if (reach >= size && reach >= s->size) {
			s->cap = cap;
			s->size = size;
			s->reach = reach;
		}
	} else {
		s->cap = s->size > s->cap ? (s->size + 31) & ~31ull : s->cap;
	}
	spool_rest(s);
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

static int note_gap(struct spool *s, uint64_t size, uint64_t reach)
{
	struct buf raw = BUF_INIT;
	int r = file_open(s, &s->gap_fd, ".gap", true);

	buf_put_u64(&raw, s->cap);
	buf_put_u64(&raw, size);
	buf_put_u64(&raw, reach);
	if (r == 0)
		r = write_all(s->gap_fd, buf_peek(&raw), buf_size(&raw), 0);
	buf_finish(&raw);
	return r;
}

int spool_append(struct spool *s, const void *data, size_t len)
{
	uint64_t end = s->size + len, off = s->size, run;
	const uint8_t *p = data;
	int r = file_open(s, &s->fd, "", true);

	/* Bytes that are there are written over: that is noted before, the end behind it. */
	if (r == 0 && end > s->cap)
		r = note_gap(s, s->size, end > s->reach ? end : s->reach);
	if (r == 0 && end > s->reach)
		s->reach = end;
	while (r == 0 && off < end) {
		uint64_t at = place(s, off, &run);
		size_t n = end - off < run ? (size_t)(end - off) : (size_t)run;

		r = write_all(s->fd, p, n, at);
		p += n;
		off += n;
	}
	if (r == 0 && end > s->cap)
		r = note_gap(s, end, s->reach);
	if (r == 0)
		s->size = end;
	return r;
}

uint64_t spool_next(const struct spool *s, uint64_t off)
{
	if (off >= head(s) && off < tail_start(s))
		return tail_start(s);
	return off;
}

uint64_t spool_dropped(const struct spool *s)
{
	return s->size > head(s) ? spool_next(s, head(s)) - head(s) : 0;
}

ssize_t spool_read(struct spool *s, void *buf, size_t len, uint64_t off)
{
	uint64_t at, run;
	ssize_t n;
	int r;

	if (off >= s->size)
		return 0;
	if (spool_next(s, off) != off)
		return -ENODATA;
	r = file_open(s, &s->fd, "", false);
	if (r < 0)
		return -EIO;
	at = place(s, off, &run);
	/* Until something was dropped the file has no seam. */
	if (s->reach <= s->cap || run > s->size - off)
		run = s->size - off;
	n = pread(s->fd, buf, len < run ? len : (size_t)run, (off_t)at);
	return n < 0 ? -errno : n;
}
