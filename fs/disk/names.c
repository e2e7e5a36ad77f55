/*
 * Making, removing and renaming on the disk. The requests of a step go out
 * together, so most calls cost one round trip: a change and, right behind it,
 * the attributes that it leads to. (The draft has requests on one file take
 * effect in the order in which they were sent.)
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk_internal.h"
#include "buf.h"

/* The guest has put something else there since: what was made is no more. */
static bool is_replaced(const struct disk_call *c, const struct sftp_attrs *attrs)
{
	struct stat st;

	disk_stat(c->disk, attrs, &st);
	return (c->mode & S_IFMT) && (c->mode & S_IFMT) != (st.st_mode & S_IFMT);
}

/* The end of a call that made c->name: its attributes are in slot i. */
static void end_made(struct disk_call *c, unsigned i)
{
	struct disk_answer a = { 0 };

	entry_changed(c->dir);
	if (is_replaced(c, &c->slot[i].attrs)) {
		folder_uncertain(c->dir);
		call_end(c, -ESTALE, NULL);	/* the kernel looks again, and finds it */
		return;
	}
	c->entry = entry_seen(c->disk, c->dir, c->name, &c->slot[i].attrs, c->stamp, &a.st);
	c->entry->made = c->disk->changes;
	call_dir_came(c);
	if (c->source)
		twins_join(c->entry, c->source);
	if (c->made && S_ISDIR(a.st.st_mode))
		folder_is_new(c->entry, c->stamp);
	a.entry = c->entry;
	call_end(c, 0, &a);
}

/* Slot 0 made it, slot 1 are its attributes, if they came. */
static void made_looked(struct disk_call *c)
{
	int error = call_errno(c, 1);

	if (error == 0) {
		end_made(c, 1);
		return;
	}
	entry_changed(c->dir);
	folder_uncertain(c->dir);
	call_end(c, error, NULL);
}

/* It is there: look, unless that has been done. */
static void look_at_made(struct disk_call *c)
{
	if (c->slot[1].error == 0) {
		made_looked(c);
		return;
	}
	call_clear(c);
	ASK(1, sftp_lstat(SFTP, c->path, CALL_ARGS(c, 1)));
	call_step(c, made_looked);
}

static void made(struct disk_call *c)
{
	struct sftp_attrs attrs;
	mode_t bits;

	if (c->slot[0].error) {
		if (c->slot[0].vague && c->slot[1].error == 0)
			call_end(c, -EEXIST, NULL);
		else
			call_explain(c, EXPLAIN_MAKE, call_errno(c, 0), c->slot[0].vague);
		return;
	}
	bits = c->slot[1].error || is_replaced(c, &c->slot[1].attrs) ? 0 :
	       call_missing_bits(c, &c->slot[1].attrs);
	if (!bits) {
		look_at_made(c);
		return;
	}
	attrs = call_with_bits(&c->slot[1].attrs, bits);
	call_clear(c);
	ASK(0, sftp_setstat(SFTP, c->path, &attrs, CALL_ARGS(c, 0)));
	ASK(1, sftp_lstat(SFTP, c->path, CALL_ARGS(c, 1)));
	call_step(c, made_looked);
}

int disk_mkdir(struct disk *disk, struct entry *dir, const char *name, mode_t mode, disk_cb *done,
	       void *user, struct disk_call **out)
{
	struct sftp_attrs attrs = { .flags = SFTP_ATTR_PERMISSIONS, .perm = mode & 07777 };

	CALL_CREATE(dir, name);
	c->mode = S_IFDIR | mode;
	c->made = true;
	ASK(0, sftp_mkdir(SFTP, c->path, &attrs, CALL_ARGS(c, 0)));
	ASK(1, sftp_lstat(SFTP, c->path, CALL_ARGS(c, 1)));
	call_ask_dir(c);
	return call_start(c, made, out);
}

int disk_mknod(struct disk *disk, struct entry *dir, const char *name, mode_t mode, disk_cb *done,
	       void *user, struct disk_call **out)
{
	struct sftp_attrs attrs = { .flags = SFTP_ATTR_PERMISSIONS, .perm = mode & 07777 };

	CALL_CREATE(dir, name);
	c->mode = S_IFREG | (mode & 07777);
	/* Nobody takes the handle: it is closed with the slot. */
	ASK(0, sftp_open(SFTP, c->path, SFTP_WRITABLE | SFTP_CREAT | SFTP_EXCL, &attrs,
			 CALL_ARGS(c, 0)));
	ASK(1, sftp_lstat(SFTP, c->path, CALL_ARGS(c, 1)));
	call_ask_dir(c);
	return call_start(c, made, out);
}

int disk_symlink(struct disk *disk, struct entry *dir, const char *name, const char *text,
		 disk_cb *done, void *user, struct disk_call **out)
{
	CALL_CREATE(dir, name);
	c->mode = S_IFLNK;
	ASK(0, sftp_symlink(SFTP, text, c->path, CALL_ARGS(c, 0)));
	ASK(1, sftp_lstat(SFTP, c->path, CALL_ARGS(c, 1)));
	call_ask_dir(c);
	return call_start(c, made, out);
}

static void link_answered(struct disk_call *c)
{
	int error = call_errno(c, 0);
	char *swap;

	if (error == 0) {
		look_at_made(c);
		return;
	}
	swap = c->path;
	c->path = c->path2;
	c->path2 = swap;
	call_explain(c, EXPLAIN_LINK, error, c->slot[0].vague);
}

int disk_link(struct disk *disk, struct entry *e, struct entry *dir, const char *name,
	      disk_cb *done, void *user, struct disk_call **out)
{
	char from[PATH_MAX];

	CALL_CREATE(dir, name);
	r = sftp_has(SFTP, SFTP_EXT_HARDLINK) ? entry_path(e, NULL, from) : -EPERM;
	if (r < 0) {
		call_free(c);
		return r;
	}
	c->path2 = xstrdup(from);
	c->source = entry_ref(e);
	c->mode = e->known ? e->st.st_mode & S_IFMT : 0;
	ASK(0, sftp_hardlink(SFTP, c->path2, c->path, CALL_ARGS(c, 0)));
	ASK(1, sftp_lstat(SFTP, c->path, CALL_ARGS(c, 1)));
	call_ask_dir(c);
	return call_start(c, link_answered, out);
}

/* --- removing and renaming -------------------------------------------------------- */

static void removed(struct disk_call *c, enum explain what)
{
	struct entry *e;
	int error = call_errno(c, 0);

	if (error) {
		call_explain(c, what, error, c->slot[0].vague);
		return;
	}
	entry_names_changed(c->dir);
	e = entry_find(c->dir, c->name);
	if (e)
		entry_detach(e);
	call_dir_came(c);
	call_end(c, 0, NULL);
}

static void unlink_answered(struct disk_call *c)
{
	removed(c, EXPLAIN_REMOVE);
}

static void rmdir_answered(struct disk_call *c)
{
	removed(c, EXPLAIN_RMDIR);
}

static void ask_remove(struct disk_call *c)
{
	ASK(0, sftp_remove(SFTP, c->path, CALL_ARGS(c, 0)));
	call_ask_dir(c);
}

int disk_unlink(struct disk *disk, struct entry *dir, const char *name, disk_cb *done, void *user,
		struct disk_call **out)
{
	CALL_CREATE(dir, name);
	ask_remove(c);
	return call_start(c, unlink_answered, out);
}

void names_remove(struct disk_call *c)
{
	int lost = disk_lost(c->disk);

	if (lost) {
		call_end(c, lost, NULL);
		return;
	}
	call_clear(c);
	ask_remove(c);
	call_step(c, unlink_answered);
}

int disk_rmdir(struct disk *disk, struct entry *dir, const char *name, disk_cb *done, void *user,
	       struct disk_call **out)
{
	CALL_CREATE(dir, name);
	ASK(0, sftp_rmdir(SFTP, c->path, CALL_ARGS(c, 0)));
	call_ask_dir(c);
	return call_start(c, rmdir_answered, out);
}

/* Renaming a name of a file over another name of it does nothing, and both stay. */
static bool may_be_one(const struct entry *a, const struct entry *b)
{
	return a && b && a != b && !S_ISDIR(a->st.st_mode) && !S_ISDIR(b->st.st_mode);
}

static void renamed(struct disk_call *c)
{
	struct entry *e = entry_find(c->dir, c->name), *there = entry_find(c->dir2, c->name2);

	if (!e || !e->known || S_ISDIR(e->st.st_mode)) {
		c->disk->moves++;
		listings_moved(c->disk, e);
	}
	if (e)
		e->moved = ++c->disk->changes;
	if (c->set && c->slot[1].error == 0)
		entry_changed(e);		/* its name is still there */
	else if (e)
		entry_move(e, c->dir2, c->name2);
	else if (there)
		entry_detach(there);
	if (!e)
		folder_uncertain(c->dir2);
	if (c->set && c->slot[1].error)
		folder_uncertain(c->dir);
}

static void rename_answered(struct disk_call *c)
{
	int error = call_errno(c, 0);

	if (error) {
		call_explain(c, EXPLAIN_RENAME, error, c->slot[0].vague);
		return;
	}
	entry_names_changed(c->dir);
	entry_names_changed(c->dir2);
	renamed(c);
	call_dir_came(c);
	call_end(c, 0, NULL);
}

int disk_rename(struct disk *disk, struct entry *dir, const char *name, struct entry *newdir,
		const char *newname, bool keep, disk_cb *done, void *user, struct disk_call **out)
{
	char to[PATH_MAX];
	bool replace;

	CALL_CREATE(dir, name);
	r = entry_path(newdir, newname, to);
	if (r < 0) {
		call_free(c);
		return r;
	}
	replace = !keep && sftp_has(SFTP, SFTP_EXT_POSIX_RENAME);
	c->flags = !replace;
	c->path2 = xstrdup(to);
	c->dir2 = entry_ref(newdir);
	c->name2 = xstrdup(newname);
	ASK(0, sftp_rename(SFTP, c->path, c->path2, replace, CALL_ARGS(c, 0)));
	c->set = may_be_one(entry_find(dir, name), entry_find(newdir, newname));
	if (c->set)
		ASK(1, sftp_lstat(SFTP, c->path, CALL_ARGS(c, 1)));
	call_ask_dir(c);
	return call_start(c, rename_answered, out);
}
