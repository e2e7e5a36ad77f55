/*
 * An open file: its life and its handle. read.c and write.c do the work.
 *
 * States: OPEN (has a handle) -> STALE when the connection is lost -> REOPENING when
 * somebody uses it -> OPEN, or STALE again, or DEAD: what has its name now is
 * another file, or nothing. A DEAD file answers -ESTALE for good.
 */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "file_internal.h"
#include "buf.h"

uint32_t file_sftp_flags(int flags)
{
	uint32_t f = (flags & O_ACCMODE) == O_RDONLY ? SFTP_READABLE :
		     (flags & O_ACCMODE) == O_WRONLY ? SFTP_WRITABLE :
						       SFTP_READABLE | SFTP_WRITABLE;

	return f | (flags & O_APPEND ? SFTP_APPEND : 0) | (flags & O_CREAT ? SFTP_CREAT : 0) |
	       (flags & O_TRUNC ? SFTP_TRUNC : 0) | (flags & O_EXCL ? SFTP_EXCL : 0);
}

void file_seen(struct file *f, const struct sftp_attrs *a)
{
	f->size = (off_t)(a->size > INT64_MAX ? INT64_MAX : a->size);
	f->mtime = a->mtime;
	f->size_known = a->flags & SFTP_ATTR_SIZE;
	f->mtime_known = a->flags & SFTP_ATTR_TIMES;
}

struct file *file_create(struct disk *disk, struct entry *e, struct sftp_handle *h, int flags,
			 const struct sftp_attrs *attrs)
{
	struct file *f = xcalloc(1, sizeof(*f));

	f->disk = disk;
	f->entry = entry_ref(e);
	f->handle = h;
	f->flags = flags & ~(O_CREAT | O_EXCL | O_TRUNC);
	f->own = flags & O_EXCL;
	wait_init(&f->news);
	list_init(&f->calls);
	list_init(&f->chunks);
	list_init(&f->parked);
	list_add_tail(&disk->files, &f->link);
	list_add_tail(&e->files, &f->by_entry);
	file_seen(f, attrs);
	return f;
}

void file_close(struct file *f)
{
	if (!f)
		return;
	list_for_each_safe(c, &f->calls, struct file_call, link)
		file_call_drop(c);
	file_drop_chunks(f);
	loop_later_cancel(&f->later);
	stripe_end(f);
	if (f->handle && f->disk && f->disk->sftp)
		sftp_close(f->disk->sftp, f->handle);
	else
		free(f->handle);
	if (f->disk)
		list_for_each(c, &f->disk->calls, struct disk_call, link)
			if (c->file == f)
				c->file = NULL;
	list_del(&f->link);
	list_del(&f->by_entry);
	entry_unref(f->entry);
	free(f);
}

void file_set_cache(struct file *f, bool keep, bool bypass)
{
	f->keep_cache = keep;
	f->bypass_cache = bypass;
}

void file_set_made(struct file *f)
{
	f->made = true;
}

struct file *file_made_here(const struct entry *e)
{
	list_for_each(f, &e->files, struct file, by_entry)
		if (f->made && f->handle)
			return f;
	return NULL;
}

bool file_size(const struct file *f, off_t *size)
{
	*size = f->size;
	return f->size_known;
}

bool file_keep_cache(const struct file *f)
{
	return f->keep_cache;
}

bool file_bypass_cache(const struct file *f)
{
	return f->bypass_cache;
}

const struct sftp_handle *file_handle(const struct file *f)
{
	return f->handle;
}

struct file *file_of(const struct entry *e)
{
	list_for_each(f, &e->files, struct file, by_entry)
		if (f->handle)
			return f;
	return NULL;
}

/* Writes that were lost with the link have changed it, perhaps: their error says more. */
static int dead(const struct file *f)
{
	return f->error ? f->error : -ESTALE;
}

int file_usable(const struct file *f)
{
	if (f->state == FILE_DEAD)
		return dead(f);
	if (disk_lost(f->disk))
		return disk_lost(f->disk);
	return f->handle ? 0 : -ESHUTDOWN;
}

/* --- calls ------------------------------------------------------------------------ */

struct file_call *file_call_new(struct file *f, enum call_kind kind, file_cb *done, void *user)
{
	struct file_call *c = xcalloc(1, sizeof(*c));

	c->file = f;
	c->kind = kind;
	c->done = done;
	c->user = user;
	c->epoch = f->epoch;
	c->since = clock_ms();
	list_add_tail(&f->calls, &c->link);
	if (kind == CALL_WRITE || kind == CALL_COPY)
		f->writing++;
	return c;
}

void file_call_drop(struct file_call *c)
{
	for (unsigned i = 0; i < c->count; i++)
		if (c->pieces[i].sftp)
			sftp_cancel(c->pieces[i].sftp);
	if (c->explain)
		disk_cancel(c->explain);
	if (c->kind == CALL_WRITE || c->kind == CALL_COPY)
		c->file->writing--;
	list_del(&c->link);
	free(c->pieces);
	free(c);
}

void file_call_end(struct file_call *c, int error, const void *data, size_t len)
{
	file_cb *done = c->done;
	void *user = c->user;

	file_call_drop(c);
	if (done)
		done(user, error, data, len);
}

/* One a turn: an answer may lead to anything. */
static void deliver(struct loop_later *l)
{
	struct file *f = container_of(l, struct file, later);
	struct file_call *first = NULL;

	list_for_each(c, &f->calls, struct file_call, link) {
		if (!c->ready)
			continue;
		if (first) {
			loop_later(f->disk->loop, l, deliver);
			break;
		}
		first = c;
	}
	if (!first)
		return;
	first->ready = false;
	if (first->kind == CALL_READ)
		file_read_try(first);
	else if (first->kind == CALL_WRITE)
		file_write_accepted(first);
	else
		file_call_end(first, file_take_error(f), NULL, 0);
}

void file_call_ready(struct file_call *c)
{
	c->ready = true;
	loop_later(c->file->disk->loop, &c->file->later, deliver);
}

/* --- a lost connection -------------------------------------------------------------- */

void files_lost(struct disk *disk)
{
	list_for_each(f, &disk->files, struct file, link) {
		const struct entry *e = f->entry;

		/* A read whose answer is complete keeps it; what is on its way has failed. */
		file_new_epoch(f);
		/* What its name shows from now on may be another file. */
		if (f->state == FILE_OPEN) {
			f->seen = e->known && e->when;
			f->seen_size = e->st.st_size;
			f->seen_mtime = e->st.st_mtime;
		}
		free(f->handle);
		f->handle = NULL;
		if (f->state == FILE_OPEN)
			f->state = FILE_STALE;
	}
}

static void orphan(struct file *f)
{
	file_drop_chunks(f);
	loop_later_cancel(&f->later);
	free(f->handle);
	f->handle = NULL;
	f->state = FILE_DEAD;
	f->disk = NULL;
	list_del(&f->link);
	while (!list_empty(&f->calls))
		file_call_end(list_entry(f->calls.next, struct file_call, link), -ESTALE, NULL, 0);
	wait_wake(&f->news);
}

void files_orphan(struct disk *disk)
{
	list_for_each_safe(f, &disk->files, struct file, link)
		orphan(f);
}

static bool has(const struct sftp_attrs *a, off_t size, bool mtime_known, time_t mtime)
{
	return a->size == (uint64_t)size && (!mtime_known || (time_t)a->mtime == mtime);
}

/* Is it the file that was open before? It may have been seen to change since it was opened. */
static bool is_same(const struct file *f, const struct sftp_attrs *a)
{
	if ((a->flags & SFTP_ATTR_PERMISSIONS) && (a->perm & S_IFMT) != S_IFREG)
		return false;
	return (f->size_known && has(a, f->size, f->mtime_known, f->mtime)) ||
	       (f->seen && has(a, f->seen_size, true, f->seen_mtime));
}

static void reopen_looked(struct disk_call *c)
{
	struct file *f = c->file;

	if (f && c->slot[0].error == 0 && c->slot[1].error == 0 &&
	    is_same(f, &c->slot[1].attrs)) {
		call_take_handle(c, 0, &f->handle);
		file_seen(f, &c->slot[1].attrs);
		f->state = FILE_OPEN;
	} else if (f) {
		/* The server is lost again, or it is not the same file. */
		f->state = disk_lost(c->disk) ? FILE_STALE : FILE_DEAD;
	}
	call_end(c, 0, NULL);
	if (f)
		wait_wake(&f->news);
}

static void reopen_answered(struct disk_call *c)
{
	if (c->slot[0].error) {
		reopen_looked(c);
		return;
	}
	ASK(1, sftp_fstat(SFTP, c->slot[0].handle, CALL_ARGS(c, 1)));
	call_step(c, reopen_looked);
}

int file_ready(struct file *f)
{
	struct disk_call *c;
	int r;

	if (f->state == FILE_OPEN)
		return 0;
	if (f->state == FILE_REOPENING)
		return -EAGAIN;
	if (f->state == FILE_DEAD || !f->entry->attached) {
		f->state = FILE_DEAD;
		return dead(f);
	}
	c = call_create(f->disk, f->entry, NULL, NULL, NULL, &r);
	if (!c)
		return r;
	c->file = f;
	ASK(0, sftp_open(SFTP, c->path, file_sftp_flags(f->flags), NULL, CALL_ARGS(c, 0)));
	r = call_start(c, reopen_answered, NULL);
	if (r < 0)
		return r;
	f->state = FILE_REOPENING;
	return -EAGAIN;
}

struct wait_list *file_news(struct file *f)
{
	return &f->news;
}
