/* Looking at names on the disk: lookup, attributes, links, the file system's figures. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk_internal.h"
#include "buf.h"
#include "link.h"
#include "metrics.h"

/*
 * A file that is open may have been replaced in the guest, and the protocol tells no inode
 * numbers. So the look at the name (slot 0) goes between two looks at the open file
 * (slots 1 and 2): attributes that do not lie between theirs are those of another file.
 */
static bool is_replaced(const struct disk_call *c)
{
	const struct sftp_attrs *name = &c->slot[0].attrs, *a = &c->slot[1].attrs,
				*b = &c->slot[2].attrs;

	if (c->slot[1].error || c->slot[2].error)
		return false;
	return name->mtime < a->mtime || name->mtime > b->mtime ||
	       (name->size != a->size && name->size != b->size) ||
	       (name->perm != a->perm && name->perm != b->perm) ||
	       (name->uid != a->uid && name->uid != b->uid);
}

static void lookup_answered(struct disk_call *c)
{
	struct disk_answer a = { 0 };
	struct entry *known = entry_find(c->dir, c->name);
	int error = call_errno(c, 0);

	if (error == 0) {
		if (c->set && known && known->changed <= c->stamp.changes && is_replaced(c))
			entry_detach(known);
		c->entry = entry_seen(c->disk, c->dir, c->name, &c->slot[0].attrs, c->stamp, &a.st);
		a.entry = c->entry;
	} else if (error == -ENOENT) {
		entry_missing(c->dir, c->name, c->stamp);
	}
	call_end(c, error, &a);
}

int disk_lookup_now(struct entry *dir, const char *name, struct entry **e, struct stat *st)
{
	*e = entry_find(dir, name);
	if ((*e && entry_fresh(*e, st)) || (!*e && folder_is_complete(dir))) {
		metric_add(METRIC_CACHE_HITS, 1);
		scan_hit(dir);
		return *e ? 1 : -ENOENT;
	}
	metric_add(METRIC_CACHE_MISSES, 1);
	scan_miss(dir, name);
	return 0;
}

int disk_lookup(struct disk *disk, struct entry *dir, const char *name, disk_cb *done, void *user,
		struct disk_call **out)
{
	struct entry *known = entry_find(dir, name);
	const struct sftp_handle *h;

	CALL_CREATE(dir, name);
	h = known && file_of(known) ? file_handle(file_of(known)) : NULL;
	if (h) {
		c->set = 1;
		ASK(1, sftp_fstat(SFTP, h, CALL_ARGS(c, 1)));
	}
	ASK(0, sftp_lstat(SFTP, c->path, CALL_ARGS(c, 0)));
	if (h)
		ASK(2, sftp_fstat(SFTP, h, CALL_ARGS(c, 2)));
	return call_start(c, lookup_answered, out);
}

/* By the handle of an open file. */
static void fgetattr_answered(struct disk_call *c)
{
	struct disk_answer a = { 0 };

	if (c->slot[0].error == 0)
		entry_update(c->disk, c->entry, &c->slot[0].attrs, c->stamp, &a.st);
	call_end(c, c->slot[0].error, &a);
}

static void getattr_answered(struct disk_call *c)
{
	struct disk_answer a = { 0 };
	struct entry *e = c->entry;
	int error = call_errno(c, 0);

	if (error == 0 && call_other_type(c, &c->slot[0].attrs)) {
		entry_detach(e);
		error = -ESTALE;
	} else if (error == 0) {
		entry_update(c->disk, e, &c->slot[0].attrs, c->stamp, &a.st);
	} else if (error == -ENOENT && e->parent) {
		entry_missing(e->parent, e->name, c->stamp);
	}
	call_end(c, error, &a);
}

int disk_getattr(struct disk *disk, struct entry *e, struct file *file, disk_cb *done, void *user,
		 struct disk_call **out)
{
	const struct sftp_handle *h;
	struct disk_call *c;
	int r;

	/* What is open is asked by its handle, whatever has its name by now. */
	if (!file || !file_handle(file))
		file = file_of(e);
	h = file ? file_handle(file) : NULL;
	if (!h && !e->attached)
		return -ESTALE;
	c = call_about(disk, e, done, user, &r);
	if (!c)
		return r;
	if (h)
		ASK(0, sftp_fstat(SFTP, h, CALL_ARGS(c, 0)));
	else
		ASK(0, sftp_lstat(SFTP, c->path, CALL_ARGS(c, 0)));
	return call_start(c, h ? fgetattr_answered : getattr_answered, out);
}

/* text is what the guest has, or what it leads to there. */
static void end_readlink(struct disk_call *c, const char *text)
{
	char out[PATH_MAX];
	struct disk_answer a = { .text = out };
	int error;

	*strrchr(c->path, '/') = 0;	/* the folder; "" is the root */
	error = link_contain(c->path, text, strlen(text), out, sizeof(out));
	if (error == 0 && c->entry->changed <= c->stamp.changes) {
		free(c->entry->text);
		c->entry->text = xstrdup(out);
		c->entry->text_when = clock_ms();
		c->entry->text_jobs = c->stamp.jobs;
	}
	call_end(c, error, &a);
}

bool disk_readlink_now(struct entry *e, const char **text)
{
	*text = e->text;
	return e->disk && e->text && e->text_when && e->text_jobs == e->disk->jobs &&
	       clock_ms() - e->text_when < FRESH_MS;
}

static void realpath_answered(struct disk_call *c)
{
	/* What cannot be resolved is taken as it stands. */
	end_readlink(c, c->slot[1].error ? c->text : c->slot[1].text);
}

static void readlink_answered(struct disk_call *c)
{
	int error = call_errno(c, 0);

	if (error == -EINVAL && S_ISLNK(c->entry->st.st_mode)) {	/* it is none any more */
		call_gone(c);
		return;
	}
	if (error) {
		call_end(c, error, NULL);
		return;
	}
	c->text = c->slot[0].text;
	c->slot[0].text = NULL;
	if (!link_needs_resolving(c->text, strlen(c->text))) {
		end_readlink(c, c->text);
		return;
	}
	c->path2 = *c->text == '/' ? xstrdup(c->text) :
		   xasprintf("%.*s/%s", (int)(strrchr(c->path, '/') - c->path), c->path, c->text);
	ASK(1, sftp_realpath(SFTP, c->path2, CALL_ARGS(c, 1)));
	call_step(c, realpath_answered);
}

int disk_readlink(struct disk *disk, struct entry *e, disk_cb *done, void *user,
		  struct disk_call **out)
{
	CALL_CREATE(e, NULL);
	ASK(0, sftp_readlink(SFTP, c->path, CALL_ARGS(c, 0)));
	return call_start(c, readlink_answered, out);
}

static void statfs_answered(struct disk_call *c)
{
	const struct sftp_statvfs *v = &c->slot[0].vfs;
	struct disk_answer a = { .vfs = {
		.f_bsize = v->bsize, .f_frsize = v->frsize, .f_blocks = v->blocks,
		.f_bfree = v->bfree, .f_bavail = v->bavail, .f_files = v->files,
		.f_ffree = v->ffree, .f_favail = v->favail, .f_namemax = v->namemax,
	} };

	call_end(c, call_errno(c, 0), &a);
}

int disk_statfs(struct disk *disk, struct entry *e, disk_cb *done, void *user,
		struct disk_call **out)
{
	CALL_CREATE(e, NULL);
	if (!sftp_has(SFTP, SFTP_EXT_STATVFS)) {
		call_free(c);
		return -EOPNOTSUPP;
	}
	ASK(0, sftp_statvfs(SFTP, c->path, CALL_ARGS(c, 0)));
	return call_start(c, statfs_answered, out);
}
