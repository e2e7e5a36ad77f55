/*
 * Opening: files, new files, folders.
 *
 * An OPEN goes out together with a look at the file, so that its size and time as of the
 * open cost nothing. They decide whether the kernel may keep the pages that it has; and when
 * the kernel was told otherwise of it a moment ago, the answer is -ESTALE: the kernel
 * then looks the name up again, is told what is true now, and comes back.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "disk_internal.h"

/* The pages that the kernel has may be kept if they were read this long after the first look. */
#define SETTLED_MS 2000

/* The file is open (slot 0) and looked at (slot i). */
static struct file *opened(struct disk_call *c, unsigned i)
{
	struct sftp_handle *h;

	call_take_handle(c, 0, &h);
	return file_create(c->disk, c->entry, h, c->flags, &c->slot[i].attrs);
}

/* Does the kernel believe something else of it, and has not been told yet? */
static bool kernel_is_wrong(struct entry *e, const struct stat *st)
{
	bool wrong = clock_ms() < e->told_until &&
		     (e->told_size != st->st_size || e->told_mtime != st->st_mtime);

	if (wrong && !e->retold) {
		e->retold = true;
		e->told_until = 0;
		return true;
	}
	e->retold = false;
	return false;
}

static void end_opened(struct disk_call *c, unsigned i)
{
	struct entry *e = c->entry;
	struct disk_answer a = { .entry = e };
	int64_t now = clock_ms();
	bool keep;

	if (call_other_type(c, &c->slot[i].attrs)) {
		entry_detach(e);
		call_end(c, -ESTALE, NULL);
		return;
	}
	if (c->flags & O_TRUNC) {
		files_changed(e, 0);
		c->stamp.changes = c->disk->changes;
	}
	entry_update(c->disk, e, &c->slot[i].attrs, c->stamp, &a.st);
	if (!(c->flags & O_TRUNC) && kernel_is_wrong(e, &a.st)) {
		call_end(c, -ESTALE, NULL);
		return;
	}
	keep = e->cached_since && e->cached_since > e->pair_since + SETTLED_MS;
	if (!keep)
		e->cached_since = now;
	a.file = opened(c, i);
	if (keep)
		file_set_keep_cache(a.file);
	call_end(c, 0, &a);
}

static void open_looked(struct disk_call *c)
{
	if (c->slot[2].error)
		call_end(c, call_errno(c, 2), NULL);
	else
		end_opened(c, 2);
}

static void open_answered(struct disk_call *c)
{
	int error = call_errno(c, 0);

	if (error) {
		c->flags = (int)file_sftp_flags(c->flags);
		call_explain(c, EXPLAIN_OPEN, error, c->slot[0].vague);
	} else if (c->slot[1].error == 0) {
		end_opened(c, 1);
	} else {
		/* It lost its name at once, or this server does things out of order. */
		ASK(2, sftp_fstat(SFTP, c->slot[0].handle, CALL_ARGS(c, 2)));
		call_step(c, open_looked);
	}
}

int disk_open(struct disk *disk, struct entry *e, int flags, disk_cb *done, void *user,
	      struct disk_call **out)
{
	CALL_CREATE(e, NULL);
	c->flags = flags & ~(O_CREAT | O_EXCL);
	ASK(0, sftp_open(SFTP, c->path, file_sftp_flags(c->flags), NULL, CALL_ARGS(c, 0)));
	ASK(1, sftp_stat(SFTP, c->path, CALL_ARGS(c, 1)));
	return call_start(c, open_answered, out);
}

/* It is open (slot 0), its attributes in slot 1. */
static void created(struct disk_call *c)
{
	struct disk_answer a = { 0 };
	int error = call_errno(c, 0);

	if (error == 0)
		error = call_errno(c, 1);
	if (error) {
		call_end(c, error, NULL);
		return;
	}
	entry_changed(c->dir);
	c->entry = entry_seen(c->disk, c->dir, c->name, &c->slot[1].attrs, c->stamp, &a.st);
	c->entry->cached_since = 0;
	a.entry = c->entry;
	a.file = opened(c, 1);
	call_end(c, 0, &a);
}

static void create_mended(struct disk_call *c)
{
	if (c->slot[2].error == 0)
		c->slot[1].attrs = c->slot[2].attrs;
	created(c);
}

static void create_looked(struct disk_call *c)
{
	struct sftp_attrs attrs;
	mode_t bits;

	if (c->slot[1].error) {
		call_end(c, call_errno(c, 1), NULL);
		return;
	}
	bits = call_missing_bits(c, &c->slot[1].attrs);
	if (!bits) {
		created(c);
		return;
	}
	attrs = call_with_bits(&c->slot[1].attrs, bits);
	ASK(3, sftp_fsetstat(SFTP, c->slot[0].handle, &attrs, CALL_ARGS(c, 3)));
	ASK(2, sftp_fstat(SFTP, c->slot[0].handle, CALL_ARGS(c, 2)));
	call_step(c, create_mended);
}

/* Somebody else was first. */
static void create_taken(struct disk_call *c)
{
	struct sftp_attrs attrs = { .flags = SFTP_ATTR_PERMISSIONS, .perm = c->mode & 07777 };

	if (c->flags & O_EXCL) {
		call_end(c, -EEXIST, NULL);
	} else if ((c->slot[1].attrs.perm & S_IFMT) != S_IFREG) {
		/* A link, say: the kernel looks again and follows it. */
		call_end(c, -ESTALE, NULL);
	} else {
		call_clear(c);
		ASK(0, sftp_open(SFTP, c->path, file_sftp_flags(c->flags), &attrs, CALL_ARGS(c, 0)));
		ASK(1, sftp_lstat(SFTP, c->path, CALL_ARGS(c, 1)));
		call_step(c, created);
	}
}

static void create_answered(struct disk_call *c)
{
	int error = call_errno(c, 0);

	if (error == 0 && c->slot[1].error) {
		ASK(1, sftp_fstat(SFTP, c->slot[0].handle, CALL_ARGS(c, 1)));
		call_step(c, create_looked);
	} else if (error == 0) {
		create_looked(c);
	} else if ((c->slot[0].vague || error == -EEXIST) && c->slot[1].error == 0) {
		create_taken(c);
	} else {
		call_explain(c, EXPLAIN_MAKE, error, c->slot[0].vague);
	}
}

int disk_create_file(struct disk *disk, struct entry *dir, const char *name, int flags, mode_t mode,
		     disk_cb *done, void *user, struct disk_call **out)
{
	struct sftp_attrs attrs = { .flags = SFTP_ATTR_PERMISSIONS, .perm = mode & 07777 };

	CALL_CREATE(dir, name);
	c->flags = flags | O_CREAT;
	c->mode = mode;
	/*
	 * As the kernel has looked, there is nothing: EXCL tells whether we made
	 * it, and only then its permissions are ours to mend.
	 */
	ASK(0, sftp_open(SFTP, c->path, file_sftp_flags(c->flags | O_EXCL), &attrs, CALL_ARGS(c, 0)));
	ASK(1, sftp_lstat(SFTP, c->path, CALL_ARGS(c, 1)));
	return call_start(c, create_answered, out);
}

static void opendir_answered(struct disk_call *c)
{
	struct disk_answer a = { 0 };
	struct sftp_handle *h;
	int error = call_errno(c, 0);

	if (error == 0) {
		call_take_handle(c, 0, &h);
		a.listing = listing_create(c->disk, c->entry, h);
	}
	call_end(c, error, &a);
}

int disk_opendir(struct disk *disk, struct entry *e, disk_cb *done, void *user,
		 struct disk_call **out)
{
	CALL_CREATE(e, NULL);
	ASK(0, sftp_opendir(SFTP, c->path, CALL_ARGS(c, 0)));
	return call_start(c, opendir_answered, out);
}
