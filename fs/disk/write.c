/*
 * Writing to an open file, flush and fsync.
 *
 * Theory of operation. A write is answered when all of its WRITEs have been sent, not when
 * the server has judged them: so a program that writes in small or large pieces keeps the
 * line full, whatever its round trip. The verdicts are waited for, all together, by
 * flush (close) and fsync, which tell the first error; until then it is the answer to further
 * writes as well. It is told once at a flush, so that a program that looks only at close
 * hears of it.
 *
 * What has been answered has been sent: requests that come later go behind it on the one
 * channel, and the server takes requests on a file in order (the draft demands it; the bulk of
 * a large file may go over two, which are in order all the same: stripe.c). So reads,
 * attributes and other handles see what was written without a queue of ours having to be
 * searched. What may be on the way is bounded by sftp_queue.c; a write beyond that is
 * simply not answered yet, which holds up that writer and nobody else.
 *
 * But for the first small one of who did not ask for a file of his own (O_EXCL): a shell, say,
 * whose echo writes a line, closes, and does not look at what the close says. It waits
 * for its verdict, for which the close would have waited.
 *
 * Mode and times that are set on a file that is still open where it was created go the same
 * way (what tar and cp -p do before they close): it is ours, so they do not fail in practice,
 * and if they do, the close does.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "file_internal.h"
#include "buf.h"

int file_take_error(struct file *f)
{
	int error = f->error;

	f->error = 0;
	return error;
}

static void contents_changed(struct entry *e, off_t size)
{
	list_for_each(f, &e->files, struct file, by_entry) {
		file_new_epoch(f);
		f->size_known = size >= 0;
		f->mtime_known = false;
		if (size >= 0)
			f->size = size;
	}
	/* Nobody knows yet which size and time go with the pages that the kernel has. */
	e->pair_since = e->cached_since = 0;
	if (size >= 0)
		e->st.st_size = size;
}

void files_changed(struct entry *e, off_t size)
{
	entry_changed(e);
	contents_changed(e, size);
	list_for_each(twin, &e->twins, struct entry, twins)
		contents_changed(twin, size);
}

/* --- writing ---------------------------------------------------------------------- */

static void wrote(struct file_call *c)
{
	struct file *f = c->file;
	off_t end = c->off + (off_t)c->size;

	/* Where an append went only the server knows. */
	if ((f->flags & O_APPEND) || !f->size_known)
		end = -1;
	else if (end < f->size)
		end = f->size;
	files_changed(f->entry, end);
	f->written = true;
}

static void end_write(struct file_call *c, int error)
{
	struct file *f = c->file;

	if (error == 0 && c->behind) {
		entry_changed(f->entry);
		f->written = true;
	} else if (error == 0) {
		wrote(c);
	} else {
		files_changed(f->entry, -1);
		if (!f->error && !c->waits)
			f->error = error;
	}
	file_call_end(c, error, NULL, 0);
	file_wrote(f);
}

void file_write_accepted(struct file_call *c)
{
	file_cb *done = c->done;

	c->done = NULL;
	done(c->user, 0, NULL, 0);
}

static void piece_sent(void *user)
{
	struct piece *p = user;

	if (--p->call->unsent == 0 && !p->call->waits)
		file_call_ready(p->call);
}

static void write_explained(void *user, int error, const struct disk_answer *a)
{
	struct file_call *c = user;

	c->explain = NULL;
	end_write(c, error);
}

static void write_answered(void *user, int error, const struct sftp_answer *a)
{
	struct piece *p = user;
	struct file_call *c = p->call;

	p->sftp = NULL;
	if (error && !c->error) {
		c->error = error == -ESHUTDOWN ? -EIO : error;	/* nobody knows what was done */
		c->vague = a->vague;
	}
	if (--c->waiting > 0)
		return;
	if (c->error && c->vague && disk_explain_write(c->file->disk, c->file->entry,
						       write_explained, c, &c->explain) == 0)
		return;
	end_write(c, c->error);
}

static int write_pieces(struct file_call *c, const uint8_t *data)
{
	struct file *f = c->file;
	bool spread = stripe_run(f, c->off, c->size);
	uint32_t max = spread ? stripe_max_write(f) : sftp_max_write(f->disk->sftp);
	size_t at = 0, n;
	int r;

	c->pieces = xcalloc(c->size / max + 1, sizeof(*c->pieces));
	do {
		struct piece *p = &c->pieces[c->count++];

		p->call = c;
		n = c->size - at > max ? max : c->size - at;
		if (spread)
			r = stripe_write(f, (uint64_t)c->off + at, data + at, (uint32_t)n,
					 write_answered, p, &p->sftp);
		else
			r = sftp_write(f->disk->sftp, f->handle, (uint64_t)c->off + at, data + at,
				       (uint32_t)n, write_answered, p, &p->sftp);
		if (r < 0) {
			p->sftp = NULL;
			return r;
		}
		c->waiting++;
		if (!sftp_is_sent(p->sftp, piece_sent))
			c->unsent++;
		at += n;
	} while (at < c->size);
	return 0;
}

/* More than a shell writes at once. */
#define SMALL 4096

static bool waits_for_verdict(const struct file *f, size_t size)
{
	return size < SMALL && !f->written && !f->writing && !f->own;
}

int file_write(struct file *f, off_t off, const void *data, size_t size, file_cb *done, void *user,
	       struct file_call **out)
{
	struct file_call *c;
	bool waits = waits_for_verdict(f, size);
	int r = file_usable(f);

	if (r == 0)
		r = f->error;	/* an earlier one has failed; the close tells it as well */
	if (r < 0)
		return r;
	c = file_call_new(f, CALL_WRITE, done, user);
	c->waits = waits;
	c->off = off;
	c->size = size;
	r = write_pieces(c, data);
	if (r < 0) {
		files_changed(f->entry, -1);
		file_call_drop(c);
		return r;
	}
	/* What is read or asked from now on comes after it. */
	wrote(c);
	if (c->unsent == 0 && !waits)
		file_call_ready(c);
	*out = c;
	return 0;
}

int file_set_behind(struct file *f, const struct sftp_attrs *attrs)
{
	struct file_call *c;
	int r = file_usable(f);

	if (r == 0)
		r = f->error;
	if (r < 0)
		return r;
	c = file_call_new(f, CALL_WRITE, NULL, NULL);
	c->pieces = xcalloc(1, sizeof(*c->pieces));
	c->pieces[0].call = c;
	c->behind = true;
	r = sftp_fsetstat(f->disk->sftp, f->handle, attrs, write_answered, &c->pieces[0],
			  &c->pieces[0].sftp);
	if (r < 0) {
		file_call_drop(c);
		return r;
	}
	c->count = c->waiting = 1;
	entry_changed(f->entry);
	f->written = true;
	return 0;
}

void file_cancel(struct file_call *c)
{
	struct file *f = c->file;
	bool write = c->kind == CALL_WRITE || c->kind == CALL_COPY;

	file_call_drop(c);
	if (!write)
		return;
	/* What was sent of it will be written. */
	files_changed(f->entry, -1);
	file_wrote(f);
}

/* --- flush and fsync ----------------------------------------------------------------- */

static void attrs_came(struct disk_call *c)
{
	struct entry *e = c->entry;
	struct stat st;

	if (c->slot[0].error == 0 && e->changed <= c->stamp.changes) {
		list_for_each(f, &e->files, struct file, by_entry)
			file_seen(f, &c->slot[0].attrs);
		entry_update(c->disk, e, &c->slot[0].attrs, c->stamp, &st);
	}
	call_end(c, 0, NULL);
}

/* Learn the time that our writes gave it; nobody waits. */
static void learn_attrs(struct file *f)
{
	struct disk_call *c;
	int r;

	if (!f->written || file_usable(f))
		return;
	f->written = false;
	c = call_about(f->disk, f->entry, NULL, NULL, &r);
	if (!c)
		return;
	ASK(0, sftp_fstat(SFTP, f->handle, CALL_ARGS(c, 0)));
	call_start(c, attrs_came, NULL);
}

static void fsync_answered(void *user, int error, const struct sftp_answer *a)
{
	struct piece *p = user;
	struct file_call *c = p->call;
	int kept = file_take_error(c->file);

	p->sftp = NULL;
	file_call_end(c, kept ? kept : error, NULL, 0);
}

/* No write is under way. 1: it can be answered. 0: asked for. < 0: cannot be asked for. */
static int sync_step(struct file_call *c)
{
	struct file *f = c->file;
	int r;

	learn_attrs(f);
	if (c->kind == CALL_FLUSH || f->error)
		return 1;
	r = file_usable(f);
	if (r < 0)
		return r;
	if (!sftp_has(f->disk->sftp, SFTP_EXT_FSYNC))
		return 1;
	c->pieces = xcalloc(1, sizeof(*c->pieces));
	c->pieces[0].call = c;
	r = sftp_fsync(f->disk->sftp, f->handle, fsync_answered, &c->pieces[0],
		       &c->pieces[0].sftp);
	if (r == 0)
		c->count = 1;
	return r;
}

void file_wrote(struct file *f)
{
	bool again = f->disk != NULL;

	while (again && f->writing == 0) {
		again = false;
		list_for_each(c, &f->calls, struct file_call, link) {
			int r;

			if ((c->kind != CALL_FLUSH && c->kind != CALL_FSYNC) || c->ready ||
			    c->count)
				continue;
			r = sync_step(c);
			if (r != 0)
				file_call_end(c, r < 0 ? r : file_take_error(f), NULL, 0);
			again = true;
			break;
		}
	}
}

static int start_sync(struct file *f, enum call_kind kind, file_cb *done, void *user,
		      struct file_call **out)
{
	struct file_call *c;
	int r;

	if (!f->disk)
		return -ESTALE;
	if (kind == CALL_FLUSH)
		stripe_end(f);
	c = file_call_new(f, kind, done, user);
	r = f->writing ? 0 : sync_step(c);
	if (r < 0) {
		file_call_drop(c);
		return r;
	}
	if (r > 0)
		file_call_ready(c);
	*out = c;
	return 0;
}

int file_flush(struct file *f, file_cb *done, void *user, struct file_call **out)
{
	return start_sync(f, CALL_FLUSH, done, user, out);
}

int file_fsync(struct file *f, file_cb *done, void *user, struct file_call **out)
{
	return start_sync(f, CALL_FSYNC, done, user, out);
}
