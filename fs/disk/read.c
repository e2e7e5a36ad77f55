/*
 * Reading an open file.
 *
 * Reads are served from chunks: parts of the file that are there or on the way,
 * asked for by a read or ahead of one. A chunk is short only at the end of the file: a
 * short answer in the middle is asked for again. Chunks belong to an epoch of the
 * file, and a read uses those of the epoch in which it started; whatever changes the
 * file, or the end of a command, starts a new epoch.
 *
 * The kernel has its own page cache: a chunk is dropped once it has been read past.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "file_internal.h"
#include "buf.h"

#define CHUNK (128u * 1024)
/* How far ahead of one reader; and what is left on the way for those who wait for theirs. */
#define WINDOW_NEAR (1024u * 1024)
#define WINDOW_FAR_MS 5
#define RESERVE (512u * 1024)

static off_t chunk_end(const struct chunk *ch)
{
	return ch->off + ch->len;
}

static void not_ahead(struct chunk *ch)
{
	if (ch->ahead && ch->file->disk)
		ch->file->disk->ahead -= ch->len;
	ch->ahead = false;
}

static void chunk_free(struct chunk *ch)
{
	not_ahead(ch);
	if (ch->call)
		sftp_cancel(ch->call);
	list_del(&ch->link);
	free(ch->data);
	free(ch);
}

void file_drop_chunks(struct file *f)
{
	list_for_each_safe(ch, &f->chunks, struct chunk, link)
		chunk_free(ch);
}

static bool wants(const struct file_call *c, const struct chunk *ch)
{
	return c->kind == CALL_READ && c->epoch == ch->epoch && c->off < chunk_end(ch) &&
	       ch->off < c->off + (off_t)c->size;
}

static bool is_wanted(const struct chunk *ch)
{
	list_for_each(c, &ch->file->calls, struct file_call, link)
		if (wants(c, ch))
			return true;
	return false;
}

/* What was read ahead is as trustworthy as any attribute: for a second. */
static bool is_old(const struct chunk *ch, int64_t now)
{
	return ch->when + FRESH_MS <= now;
}

void file_prune(struct file *f)
{
	int64_t now = clock_ms();

	list_for_each_safe(ch, &f->chunks, struct chunk, link)
		if (!ch->call && (!ch->ahead || ch->epoch != f->epoch || is_old(ch, now)) &&
		    !is_wanted(ch))
			chunk_free(ch);
}

void file_new_epoch(struct file *f)
{
	f->epoch++;
	f->window = 0;
	file_prune(f);
}

void files_new_epoch(struct disk *disk)
{
	list_for_each(f, &disk->files, struct file, link)
		file_new_epoch(f);
}

void file_expire(struct loop_timer *t)
{
	struct disk *disk = container_of(t, struct disk, expire);

	list_for_each(f, &disk->files, struct file, link)
		file_prune(f);
	if (disk->ahead > 0)
		loop_timer_set(disk->loop, t, FRESH_MS, file_expire);
}

/* --- asking for chunks ----------------------------------------------------------- */

/* The chunk at pos; when there is none, *next becomes where the next one begins. */
static struct chunk *chunk_at(struct file *f, unsigned epoch, int64_t since, off_t pos, off_t *next)
{
	list_for_each(ch, &f->chunks, struct chunk, link) {
		if (ch->epoch != epoch || (!ch->call && is_old(ch, since)))
			continue;
		if (pos >= ch->off && pos < chunk_end(ch))
			return ch;
		if (ch->off > pos && ch->off < *next)
			*next = ch->off;
	}
	return NULL;
}

static sftp_cb chunk_answered;

static int chunk_ask(struct chunk *ch)
{
	struct file *f = ch->file;
	int r = file_usable(f);

	if (r == 0)
		r = sftp_read(f->disk->sftp, f->handle, (uint64_t)ch->off + ch->got,
			      ch->len - ch->got, chunk_answered, ch, &ch->call);
	if (r < 0)
		ch->call = NULL;
	return r;
}

/* Ask for [off, end), or as much of it as one chunk takes. Returns its length, or < 0. */
static int chunk_start(struct file *f, unsigned epoch, off_t off, off_t end, bool ahead)
{
	int r = file_usable(f);
	struct chunk *ch;
	uint32_t max;

	if (r < 0)
		return r;
	max = sftp_max_read(f->disk->sftp);
	if (max > CHUNK)
		max = CHUNK;
	ch = xcalloc(1, sizeof(*ch));
	ch->file = f;
	ch->epoch = epoch;
	ch->off = off;
	ch->len = end - off > (off_t)max ? max : (uint32_t)(end - off);
	ch->data = xmalloc(ch->len);
	list_add_tail(&f->chunks, &ch->link);
	r = chunk_ask(ch);
	if (r < 0) {
		chunk_free(ch);
		return r;
	}
	if (ahead) {
		ch->ahead = true;
		f->disk->ahead += ch->len;
		if (!loop_timer_is_set(&f->disk->expire))
			loop_timer_set(f->disk->loop, &f->disk->expire, FRESH_MS, file_expire);
	}
	return (int)ch->len;
}

/* 1: all that the read needs is there. 0: some is on the way. < 0: it cannot be asked for. */
static int read_step(struct file_call *c)
{
	struct file *f = c->file;
	off_t pos = c->off, end = c->off + (off_t)c->size;
	bool missing = false;

	while (pos < end) {
		off_t next = end;
		struct chunk *ch = chunk_at(f, c->epoch, c->since, pos, &next);
		int r;

		if (ch && !ch->call && ch->eof)
			break;
		if (ch) {
			missing |= ch->call != NULL;
			pos = chunk_end(ch);
			continue;
		}
		r = chunk_start(f, c->epoch, pos, next, false);
		if (r < 0)
			return r;
		missing = true;
		pos += r;
	}
	return !missing;
}

/* Of all files together. */
static size_t ahead_max(const struct disk *disk)
{
	size_t pipeline = sftp_pipeline(disk->sftp);

	return pipeline > AHEAD_MAX / 2 ? 2 * pipeline : AHEAD_MAX;
}

/*
 * Near by, little is enough to keep the line full, and it stays in the CPU's cache on its
 * way (0.9 s of CPU a GiB with 1 MiB ahead, 1.2 to 1.5 with 3); far away, as much as the line
 * takes.
 */
static size_t window_max(const struct disk *disk)
{
	if (sftp_round_trip(disk->sftp) < WINDOW_FAR_MS)
		return WINDOW_NEAR;
	return sftp_pipeline(disk->sftp) - RESERVE - CHUNK;
}

/* A reader that goes on where it was finds more and more of the file on its way. */
static void read_ahead(struct file *f, off_t off, off_t end)
{
	int64_t now = clock_ms();
	bool sequential = off <= f->next && end >= f->next;
	size_t most;
	off_t pos, limit;

	f->next = end;
	if (!sequential) {
		f->window = 0;
		return;
	}
	f->window = f->window ? 2 * f->window : (size_t)(end - off);
	most = window_max(f->disk);
	if (f->window > most)
		f->window = most;
	limit = end + (off_t)f->window;
	if (f->size_known && limit > f->size)
		limit = f->size;
	for (pos = end; pos < limit;) {
		off_t next = limit;
		struct chunk *ch = chunk_at(f, f->epoch, now, pos, &next);
		int r = 0;

		if (!ch && sftp_room(f->disk->sftp) >= CHUNK + RESERVE &&
		    f->disk->ahead + CHUNK <= ahead_max(f->disk))
			r = chunk_start(f, f->epoch, pos, next, true);
		if (!ch && r <= 0)
			break;
		pos = ch ? chunk_end(ch) : pos + r;
	}
}

void file_read_ahead(struct file *f, size_t len)
{
	chunk_start(f, f->epoch, 0, (off_t)len, true);
}

int file_read(struct file *f, off_t off, size_t size, file_cb *done, void *user,
	      struct file_call **out)
{
	struct file_call *c;
	int r = file_usable(f);

	if (r < 0)
		return r;
	file_prune(f);
	c = file_call_new(f, CALL_READ, done, user);
	c->off = off;
	c->size = size;
	r = read_step(c);
	if (r < 0) {
		file_call_drop(c);
		return r;
	}
	if (r > 0)
		file_call_ready(c);
	*out = c;
	read_ahead(f, off, off + (off_t)size);
	return 0;
}

/* --- answers ------------------------------------------------------------------------ */

/* How many of the chunk's bytes lie in [pos, end). */
static size_t overlap(const struct chunk *ch, off_t pos, off_t end)
{
	off_t last = ch->off + ch->got < end ? ch->off + ch->got : end;

	return last > pos ? (size_t)(last - pos) : 0;
}

/* Gather what the read asked for; its length is returned. */
static size_t gather(struct file_call *c, uint8_t *out)
{
	off_t pos = c->off, end = c->off + (off_t)c->size, next = end;
	struct chunk *ch;
	size_t len = 0, n;

	while (pos < end && (ch = chunk_at(c->file, c->epoch, c->since, pos, &next))) {
		n = overlap(ch, pos, end);
		memcpy(out + len, ch->data + (pos - ch->off), n);
		len += n;
		pos += (off_t)n;
		if (ch->eof)
			break;
	}
	return len;
}

static void read_end(struct file_call *c)
{
	struct file *f = c->file;
	off_t end = c->off + (off_t)c->size, next = end;
	struct chunk *ch = chunk_at(f, c->epoch, c->since, c->off, &next);
	uint8_t *data;
	size_t len;

	/* Read past: the kernel has it now. */
	list_for_each(past, &f->chunks, struct chunk, link)
		if (!past->call && chunk_end(past) <= end)
			not_ahead(past);
	list_del(&c->link);
	if (ch && ch->off == c->off && (chunk_end(ch) == end || ch->eof) && !is_wanted(ch)) {
		/* The common case: one chunk is the answer. */
		data = ch->data;
		len = overlap(ch, c->off, end);
		ch->data = NULL;
		chunk_free(ch);
	} else {
		data = xmalloc(c->size);
		len = gather(c, data);
	}
	file_prune(f);
	c->done(c->user, 0, data, len);
	free(data);
	free(c);
}

/* Answer a read if it is complete. False: it waits on. */
bool file_read_try(struct file_call *c)
{
	int r = read_step(c);

	if (r > 0)
		read_end(c);
	else if (r < 0)
		file_call_end(c, r, NULL, 0);
	return r != 0;
}

/* A chunk came: answer the reads that it made complete. */
static void serve(struct file *f)
{
	bool again = true;

	while (again) {
		again = false;
		list_for_each(c, &f->calls, struct file_call, link)
			if (c->kind == CALL_READ && !c->ready && file_read_try(c)) {
				again = true;
				break;
			}
	}
	file_prune(f);
}

static void chunk_failed(struct chunk *ch, int error)
{
	LIST_HEAD(failed);

	list_for_each_safe(c, &ch->file->calls, struct file_call, link)
		if (wants(c, ch) && !c->ready) {
			list_del(&c->link);
			list_add_tail(&failed, &c->link);
		}
	chunk_free(ch);
	while (!list_empty(&failed))
		file_call_end(list_entry(failed.next, struct file_call, link), error, NULL, 0);
}

static void chunk_answered(void *user, int error, const struct sftp_answer *a)
{
	struct chunk *ch = user;
	struct file *f = ch->file;
	size_t n;

	ch->call = NULL;
	if (error == 0) {
		n = a->reply->data.len;
		memcpy(ch->data + ch->got, a->reply->data.bytes, n);
		ch->got += (uint32_t)n;
		/* Short where the file is known to end; else there may be more. */
		ch->eof = n == 0 || (ch->got < ch->len && f->size_known && f->size > 0 &&
				     ch->off + ch->got == f->size);
		if (!ch->eof && ch->got < ch->len)
			error = chunk_ask(ch);
	}
	if (error < 0) {
		chunk_failed(ch, error);
	} else if (!ch->call) {
		ch->when = clock_ms();
		serve(f);
	}
}
