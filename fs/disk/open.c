/*
 * Opening: files, new files, folders.
 *
 * An OPEN goes out between two looks at the file, so that its size and time as of the
 * open cost nothing; only when they differ, the file was being changed or replaced, and the
 * handle has to be asked. They decide whether the kernel may keep the pages that it has; and
 * when the kernel was told otherwise of it a moment ago, the answer is -ESTALE: the kernel
 * then looks the name up again, is told what is true now, and comes back. Where the file
 * keeps changing, it is read past the kernel's cache and the size it believes in.
 *
 * The same where the name has been given to another file behind the kernel's look: it was that
 * file which was opened then. The kernel comes back only once; who finds it so again has the file
 * that has the name now, as a nameless twin of it, past the kernel's cache.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "disk_internal.h"

/* The pages that the kernel has may be kept if they were read this long after the first look. */
#define SETTLED_MS 2000
/* A name that comes and goes is asked for so often; so is what is refused without a reason. */
#define CREATE_TRIES 12

/* The file is open (slot 0) and looked at (slot i). */
static struct file *opened(struct disk_call *c, unsigned i)
{
	struct sftp_handle *h;

	call_take_handle(c, 0, &h);
	return file_create(c->disk, c->entry, h, c->flags, &c->slot[i].attrs);
}

/* Does the kernel believe something else of it? */
static bool kernel_is_wrong(const struct entry *e, const struct stat *st)
{
	return clock_ms() < e->told_until && entry_told_otherwise(e, st);
}

static bool pages_may_stay(const struct entry *e)
{
	return e->cached_since && e->cached_since > e->pair_since + SETTLED_MS;
}

/* It has to look again. What it will be told is this, unless it may be another file by now. */
static void look_again(struct disk_call *c, unsigned i)
{
	struct entry *e = c->entry;
	struct stat st;

	entry_retold(e);
	if (file_of(e))
		e->when = 0;
	else
		entry_update(c->disk, e, &c->slot[i].attrs, c->stamp, &st);
	call_end(c, -ESTALE, NULL);
}

/*
 * e has lost its name, and what was opened is what has it now (the server does one thing after the
 * other). False: it is to be looked up again. Who writes changes what has the name, which must
 * be known.
 */
static bool takes_successor(struct entry *e, int flags, bool *joined)
{
	struct entry *next = entry_successor(e);
	bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);

	*joined = false;
	if (!entry_was_retold(e))
		return false;
	if (next && S_ISREG(next->st.st_mode) && list_empty(&e->files)) {
		entry_changed(next);	/* what is known of it may be older than what was opened */
		twins_join(e, next);
		*joined = true;
	}
	return *joined || !next || !writes;
}

/* The name has led to another file meanwhile. */
static void end_successor(struct disk_call *c, unsigned i)
{
	struct entry *e = c->entry, *next = entry_successor(e);
	struct disk_answer a = { .entry = e };
	bool joined, takes = takes_successor(e, c->flags, &joined);

	if (next && (c->flags & O_TRUNC))
		files_changed(next, joined ? 0 : -1);
	if (!takes) {
		entry_retold(e);
		call_end(c, -ESTALE, NULL);
		return;
	}
	c->stamp.changes = c->disk->changes;
	disk_stat(c->disk, &c->slot[i].attrs, &a.st);
	if (joined)
		entry_update(c->disk, e, &c->slot[i].attrs, c->stamp, &a.st);
	e->cached_since = 0;
	a.file = opened(c, i);
	file_set_cache(a.file, false, true);
	call_end(c, 0, &a);
}

static void end_opened(struct disk_call *c, unsigned i)
{
	struct entry *e = c->entry;
	struct disk_answer a = { .entry = e };
	bool bypass, keep;

	if (call_other_type(c, &c->slot[i].attrs)) {
		call_gone(c);
		return;
	}
	if (!e->attached) {
		end_successor(c, i);
		return;
	}
	if (c->flags & O_TRUNC) {
		files_changed(e, 0);
		c->stamp.changes = c->disk->changes;
	}
	disk_stat(c->disk, &c->slot[i].attrs, &a.st);
	if (!(c->flags & O_TRUNC) && kernel_is_wrong(e, &a.st)) {
		look_again(c, i);
		return;
	}
	bypass = !(c->flags & O_TRUNC) && entry_was_retold(e) && entry_told_otherwise(e, &a.st);
	entry_update(c->disk, e, &c->slot[i].attrs, c->stamp, &a.st);
	keep = pages_may_stay(e) && !bypass;
	if (!keep)
		e->cached_since = clock_ms();
	a.file = opened(c, i);
	file_set_cache(a.file, keep, bypass);
	call_end(c, 0, &a);
}

static void open_looked(struct disk_call *c)
{
	if (c->slot[2].error)
		call_end(c, call_errno(c, 2), NULL);
	else
		end_opened(c, 2);
}

/* Slots 1 and 3: before and behind the OPEN. An OPEN that truncates is meant to change it. */
static bool same_looks(const struct disk_call *c)
{
	const struct sftp_attrs *a = &c->slot[3].attrs, *b = &c->slot[1].attrs;

	if (c->flags & O_TRUNC)
		return true;
	return c->slot[3].error == 0 && a->size == b->size && a->mtime == b->mtime &&
	       a->perm == b->perm && a->uid == b->uid;
}

static void open_answered(struct disk_call *c)
{
	int error = call_errno(c, 0);

	if (error == -ENOENT && c->slot[1].error == -ENOENT) {
		call_gone(c);
	} else if (error && c->slot[0].vague && (call_is_another(c, 3) || call_is_another(c, 1))) {
		call_gone(c);
	} else if (error) {
		c->flags = (int)file_sftp_flags(c->flags);
		call_explain(c, EXPLAIN_OPEN, error, c->slot[0].vague);
	} else if (c->slot[1].error == 0 && same_looks(c)) {
		end_opened(c, 1);
	} else {
		/* Something is going on with that name: ask the file itself. */
		ASK(2, sftp_fstat(SFTP, c->slot[0].handle, CALL_ARGS(c, 2)));
		call_step(c, open_looked);
	}
}

int disk_open(struct disk *disk, struct entry *e, int flags, disk_cb *done, void *user,
	      struct disk_call **out)
{
	struct entry *next = entry_to_ask(e);

	CALL_CREATE(next, NULL);
	if (next != e) {
		c->source = c->entry;
		c->entry = entry_ref(e);
	}
	c->flags = flags & ~(O_CREAT | O_EXCL);
	ASK(3, sftp_stat(SFTP, c->path, CALL_ARGS(c, 3)));
	ASK(0, sftp_open(SFTP, c->path, file_sftp_flags(c->flags), NULL, CALL_ARGS(c, 0)));
	ASK(1, sftp_stat(SFTP, c->path, CALL_ARGS(c, 1)));
	return call_start(c, open_answered, out);
}

/* The name has been given to something else since: what was opened is no file of that name. */
static bool is_no_file(const struct disk_call *c)
{
	struct stat st;

	disk_stat(c->disk, &c->slot[1].attrs, &st);
	return !S_ISREG(st.st_mode);
}

/* What was there is not any more, or something else is: the guest has changed it meanwhile. */
static bool came_or_went(const struct disk_call *c, int error)
{
	return !c->made && (c->slot[0].vague || error == -ESTALE);
}

/* It is open (slot 0), its attributes in slot 1. */
static void created(struct disk_call *c)
{
	struct disk_answer a = { 0 };
	int error = call_errno(c, 0);

	if (error == 0)
		error = call_errno(c, 1);
	if (error == 0 && is_no_file(c))
		error = -ESTALE;	/* the kernel looks again */
	if (error && came_or_went(c, error) && open_create_again(c))
		return;
	if (error) {
		folder_uncertain(c->dir);
		call_end(c, error, NULL);
		return;
	}
	entry_changed(c->dir);
	c->entry = entry_seen(c->disk, c->dir, c->name, &c->slot[1].attrs, c->stamp, &a.st);
	c->entry->made = c->disk->changes;
	c->entry->cached_since = 0;
	call_dir_came(c);
	a.entry = c->entry;
	a.file = opened(c, 1);
	if (c->made)
		file_set_made(a.file);
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

	c->made = true;
	bits = c->slot[1].error || is_no_file(c) ? 0 : call_missing_bits(c, &c->slot[1].attrs);
	if (!bits) {
		created(c);
		return;
	}
	attrs = call_with_bits(&c->slot[1].attrs, bits);
	ASK(3, sftp_fsetstat(SFTP, c->slot[0].handle, &attrs, CALL_ARGS(c, 3)));
	ASK(2, sftp_fstat(SFTP, c->slot[0].handle, CALL_ARGS(c, 2)));
	call_step(c, create_mended);
}

static void either_answered(struct disk_call *c)
{
	if (c->slot[0].vague && !c->slot[1].error && S_ISDIR(c->slot[1].attrs.perm)) {
		call_end(c, -EISDIR, NULL);
		return;
	}
	if (c->slot[0].error || !c->slot[1].error) {
		created(c);
		return;
	}
	/* It is open, and has lost its name already. */
	ASK(1, sftp_fstat(SFTP, c->slot[0].handle, CALL_ARGS(c, 1)));
	call_step(c, created);
}

/* Whether or not it is there. */
static void ask_either(struct disk_call *c)
{
	struct sftp_attrs attrs = { .flags = SFTP_ATTR_PERMISSIONS, .perm = c->mode & 07777 };

	call_clear(c);
	ASK(0, sftp_open(SFTP, c->path, file_sftp_flags(c->flags), &attrs, CALL_ARGS(c, 0)));
	ASK(1, sftp_lstat(SFTP, c->path, CALL_ARGS(c, 1)));
	call_step(c, either_answered);
}

/* Somebody else was first. */
static void create_taken(struct disk_call *c)
{
	if (c->flags & O_EXCL) {
		call_end(c, -EEXIST, NULL);
	} else if (S_ISDIR(c->slot[1].attrs.perm)) {
		call_end(c, -EISDIR, NULL);
	} else if (!S_ISREG(c->slot[1].attrs.perm)) {
		/* A link, say: the kernel looks again and follows it. */
		call_end(c, -ESTALE, NULL);
	} else {
		ask_either(c);
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

bool open_create_again(struct disk_call *c)
{
	if (!(c->flags & O_CREAT) || (c->flags & O_EXCL) || c->tries++ >= CREATE_TRIES)
		return false;
	ask_either(c);
	return true;
}

int disk_create_file(struct disk *disk, struct entry *dir, const char *name, int flags, mode_t mode,
		     disk_cb *done, void *user, struct disk_call **out)
{
	struct sftp_attrs attrs = { .flags = SFTP_ATTR_PERMISSIONS, .perm = mode & 07777 };

	CALL_CREATE(dir, name);
	c->flags = flags | O_CREAT;
	c->mode = mode;
	/*
	 * As the kernel has looked, there is nothing: EXCL tells whether we made it, and only then
	 * its permissions are ours to mend.
	 */
	ASK(0, sftp_open(SFTP, c->path, file_sftp_flags(c->flags | O_EXCL), &attrs,
				 CALL_ARGS(c, 0)));
	ASK(1, sftp_lstat(SFTP, c->path, CALL_ARGS(c, 1)));
	call_ask_dir(c);
	return call_start(c, create_answered, out);
}

static void opendir_answered(struct disk_call *c)
{
	struct disk_answer a = { 0 };
	struct sftp_handle *h;
	int error = call_errno(c, 0);

	if (error == 0) {
		call_take_handle(c, 0, &h);
		a.listing = listing_create(c->disk, c->entry, h, c->stamp, c->limit);
	}
	call_end(c, error, &a);
}

int disk_list_ahead(struct disk *disk, struct entry *e, size_t limit, disk_cb *done, void *user,
		    struct disk_call **out)
{
	CALL_CREATE(e, NULL);
	c->limit = limit;
	ASK(0, sftp_opendir(SFTP, c->path, CALL_ARGS(c, 0)));
	return call_start(c, opendir_answered, out);
}

/* --- ahead of an open, and the open that finds it so -------------------------------------- */

static void ahead_answered(struct disk_call *c)
{
	struct stat st;
	int error = c->slot[0].error;

	call_take_handle(c, 0, &c->ahead);
	if (c->set && error == 0) {
		error = c->slot[1].error;
		if (error == 0 && call_other_type(c, &c->slot[1].attrs))
			error = -ESTALE;
		if (error == 0)
			entry_update(c->disk, c->entry, &c->slot[1].attrs, c->stamp, &st);
	}
	call_end(c, error, NULL);
}

struct sftp_handle *disk_call_handle(struct disk_call *c)
{
	return c->ahead;
}

int disk_open_ahead(struct disk *disk, struct entry *e, disk_cb *done, void *user,
		    struct disk_call **out)
{
	CALL_CREATE(e, NULL);
	/* Contents are believed as long as attributes: those of an old listing would not do. */
	c->set = clock_ms() - e->when > FRESH_MS / 4;
	ASK(0, sftp_open(SFTP, c->path, SFTP_READABLE, NULL, CALL_ARGS(c, 0)));
	if (c->set)
		ASK(1, sftp_lstat(SFTP, c->path, CALL_ARGS(c, 1)));
	return call_start(c, ahead_answered, out);
}

bool disk_open_now(struct entry *e, int flags, struct disk_answer *a)
{
	bool keep;

	if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) || !e->disk ||
	    !S_ISREG(e->st.st_mode))
		return false;
	a->file = entry_fresh(e, &a->st) && !kernel_is_wrong(e, &a->st) ? ahead_take(e) : NULL;
	scan_read(e, a->file != NULL);
	if (!a->file)
		return false;
	a->entry = e;
	keep = pages_may_stay(e);
	if (!keep)
		e->cached_since = clock_ms();
	file_set_cache(a->file, keep, false);
	return true;
}

int disk_opendir(struct disk *disk, struct entry *e, disk_cb *done, void *user,
		 struct disk_call **out)
{
	CALL_CREATE(e, NULL);
	ASK(0, sftp_opendir(SFTP, c->path, CALL_ARGS(c, 0)));
	return call_start(c, opendir_answered, out);
}
