/*
 * root/: open files and listings of a VM's disk. h->priv of a file is a struct file of
 * fs/disk; of a folder, a struct reading.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "remote_internal.h"

/* --- opening ----------------------------------------------------------------------- */

static void set_open_flags(struct fuse_file_info *fi, const struct file *f, const struct stat *st)
{
	int how = fi->flags & O_ACCMODE;

	fi->keep_cache = file_keep_cache(f);
	/*
	 * Files of /proc and /sys have no size and yet contents: read them to their
	 * end. What is only appended to must not leave pages in the cache: where the
	 * bytes went is the server's word.
	 */
	if ((how == O_RDONLY && st->st_size == 0) ||
	    (how == O_WRONLY && (fi->flags & O_APPEND)) || file_bypass_cache(f))
		fi->direct_io = 1;
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 11)
	fi->noflush = how == O_RDONLY;
#endif
}

/* Where the kernel is to throw away what it keeps, it would wait for who reads now: pages.c. */
static int answer_open(struct req *req)
{
	bool keeps = req->fi.keep_cache && !(req->fi.flags & O_TRUNC);

	if (!keeps && pages_locked(req, req->node))
		return req_wait_until(req, &req->tree->pages_news, REMOTE_WAIT_MS);
	req_reply_open(req, req->handle);
	return 0;
}

static void opened(struct req *req, const struct disk_answer *a)
{
	req->handle->priv = a->file;
	req->opened = true;
	req->started = 0;
	set_open_flags(&req->fi, a->file, &a->st);
	answer_open(req);
}

static void open_done(void *user, int error, const struct disk_answer *a)
{
	struct req *req = user;

	req_release(req);
	if (error) {
		remote_fail(req, error);
		return;
	}
	opened(req, a);
}

int remote_open(struct req *req, struct node *node, struct handle *h, struct fuse_file_info *fi)
{
	struct disk_answer now = { 0 };
	struct disk_call *call;
	struct disk *disk;
	int r;

	if (req->opened)
		return answer_open(req);
	if (remote_disk(req, node, &disk, &r))
		return r;
	if (fi->flags & O_TRUNC)
		vm_used(node->vm);
	if (disk_open_now(node->priv, fi->flags, &now)) {
		opened(req, &now);
		return 0;
	}
	r = disk_open(disk, node->priv, fi->flags, open_done, req, &call);
	return remote_hold(req, "open", call, r);
}

static void create_done(void *user, int error, const struct disk_answer *a)
{
	struct req *req = user;
	struct stat st = a->st;
	struct node *node;
	struct handle *h;
	double timeout;

	req_release(req);
	if (error) {
		remote_fail(req, error);
		return;
	}
	node = remote_child(req->node, req->name, a->entry, st.st_mode);
	timeout = remote_stat(node, &st);
	req->name_timeout = remote_lend(req->node, timeout);
	h = handle_create(node, req->fi.flags);
	h->priv = a->file;
	set_open_flags(&req->fi, a->file, &st);
	req->fi.direct_io &= (req->fi.flags & O_ACCMODE) != O_RDONLY;
	req_reply_create(req, node, &st, timeout, h);
	node_unref(node);
}

int remote_create(struct req *req, struct node *dir, const char *name, mode_t mode,
		  struct fuse_file_info *fi)
{
	struct disk_call *call;
	struct disk *disk;
	int r;

	if (remote_disk(req, dir, &disk, &r))
		return r;
	vm_used(dir->vm);
	r = disk_create_file(disk, remote_entry(dir, disk), name, fi->flags, mode, create_done, req,
			     &call);
	return remote_hold(req, "create", call, r);
}

void remote_release(struct handle *h)
{
	file_close(h->priv);
}

/* --- reading and writing -------------------------------------------------------------- */

static void cancel_file_call(struct req *req)
{
	file_cancel(req->priv);
}

static int hold(struct req *req, const char *operation, struct file_call *call, int r)
{
	if (r < 0)
		return r;
	req->operation = operation;
	req->priv = call;
	return req_hold(req, cancel_file_call);
}

/* The file can be used now; else the op returns r, as with remote_disk. */
static bool not_ready(struct req *req, struct handle *h, int *r)
{
	struct disk *disk;

	if (remote_disk(req, h->node, &disk, r))
		return true;
	*r = file_ready(h->priv);
	if (*r == -EAGAIN)
		*r = req_wait_until(req, file_news(h->priv), REMOTE_WAIT_MS);
	else if (*r == 0)
		return false;
	return true;
}

static void read_done(void *user, int error, const void *data, size_t len)
{
	struct req *req = user;

	req_release(req);
	if (error)
		remote_fail(req, error);
	else
		req_reply_buf(req, data, len);
}

int remote_read(struct req *req, struct handle *h, size_t size, off_t off)
{
	struct file_call *call;
	int r;

	pages_watch(req->tree);
	if (not_ready(req, h, &r))
		return r;
	r = file_read(h->priv, off, size, read_done, req, &call);
	return hold(req, "read", call, r);
}

static void write_done(void *user, int error, const void *data, size_t len)
{
	struct req *req = user;

	req_release(req);
	if (error)
		remote_fail(req, error);
	else
		req_reply_write(req, req->size);
}

int remote_write(struct req *req, struct handle *h, const void *data, size_t size, off_t off)
{
	struct file_call *call;
	int r;

	if (not_ready(req, h, &r))
		return r;
	vm_used(h->node->vm);
	r = file_write(h->priv, off, data, size, write_done, req, &call);
	if (r == 0 && !req->data_owned)
		req->data = NULL;	/* it is on its way: no need to keep it */
	return hold(req, "write", call, r);
}

static void copy_done(void *user, int error, const void *data, size_t len)
{
	struct req *req = user;

	req_release(req);
	if (error)
		req_reply_err(req, error); /* the kernel tries otherwise; then it is told why */
	else
		req_reply_write(req, len);
}

int remote_copy(struct req *req, struct handle *in, off_t off, struct handle *out, off_t out_off,
		size_t size)
{
	struct file_call *call;
	int r;

	if (in->node->vm != out->node->vm)
		return -EXDEV;
	if (not_ready(req, in, &r) || not_ready(req, out, &r))
		return r;
	vm_used(out->node->vm);
	r = file_copy(in->priv, off, out->priv, out_off, size, copy_done, req, &call);
	return hold(req, "copy", call, r);
}

static void sync_done(void *user, int error, const void *data, size_t len)
{
	struct req *req = user;

	req_release(req);
	if (error)
		remote_fail(req, error);
	else
		req_reply_err(req, 0);
}

int remote_flush(struct req *req, struct handle *h)
{
	struct file_call *call;
	int r = file_flush(h->priv, sync_done, req, &call);

	return hold(req, "close", call, r);
}

int remote_fsync(struct req *req, struct handle *h, bool data_only)
{
	struct file_call *call;
	int r;

	if (not_ready(req, h, &r))
		return r;
	r = file_fsync(h->priv, sync_done, req, &call);
	return hold(req, "fsync", call, r);
}

/* --- listings ------------------------------------------------------------------------------ */

/*
 * An open folder: the listing, and whether any of it was given.
 *
 * The kernel may keep a listing as long as it may keep the names in it, and give it to whoever
 * opens the folder next: then there is nothing to be done but to say at the open whether it is
 * still the one (edition). Those who have the folder open fill what it keeps together, so all of
 * them must have one listing. The kernel gives it again to who rewinds, as long as the folder's
 * time is the same; so that must be sure to change with the names.
 */
struct reading {
	struct listing *listing;
	bool begun;
	struct entry *dir;	/* counted; set if the kernel keeps it. Its edition at the open: */
	uint64_t edition;	/* 0: it has been fetched anew */
};

static struct reading *opened_folder(struct req *req, struct listing *l)
{
	struct reading *d = xcalloc(1, sizeof(*d));

	d->listing = l;
	req->handle->priv = d;
	return d;
}

static void lend_listing(struct req *req, struct entry *dir, struct reading *d)
{
	struct node *node = req->node;
	uint64_t edition = disk_edition(dir);

	if (!disk_names_settled(dir) || remote_lend(node, disk_names_hold(dir)) <= 0 ||
	    (node->keeping && node->edition != edition))
		return;
	req->fi.cache_readdir = 1;
	req->fi.keep_cache = node->edition == edition;
	node->edition = d->edition = edition;
	node->keeping++;
	d->dir = entry_ref(dir);
}

static void opendir_done(void *user, int error, const struct disk_answer *a)
{
	struct req *req = user;

	req_release(req);
	if (error) {
		remote_fail(req, error);
		return;
	}
	opened_folder(req, a->listing);
	req_reply_open(req, req->handle);
}

int remote_opendir(struct req *req, struct node *node, struct handle *h, struct fuse_file_info *fi)
{
	struct wait_list *coming;
	struct disk_call *call;
	struct listing *l;
	struct disk *disk;
	int r;

	if (remote_disk(req, node, &disk, &r))
		return r;
	l = disk_opendir_now(remote_entry(node, disk));
	if (l) {
		lend_listing(req, remote_entry(node, disk), opened_folder(req, l));
		req_reply_open(req, h);
		return 0;
	}
	coming = disk_opendir_coming(remote_entry(node, disk));
	if (coming)
		return req_wait_until(req, coming, REMOTE_WAIT_MS);
	r = disk_opendir(disk, remote_entry(node, disk), opendir_done, req, &call);
	return remote_hold(req, "opendir", call, r);
}

void remote_releasedir(struct handle *h)
{
	struct reading *d = h->priv;

	if (!d)
		return;
	listing_close(d->listing);
	h->node->keeping -= d->dir != NULL;
	entry_unref(d->dir);
	free(d);
}

/* "." and "..": no numbers of their own; FUSE wants one that is not 0. */
static const struct stat some_folder = { .st_ino = UINT32_MAX, .st_mode = S_IFDIR };

static size_t put_plain(struct req *req, struct node *dir, char *out, size_t room, const char *name,
			mode_t type, off_t next)
{
	struct node *known = node_find(dir, name);
	struct stat st = { .st_ino = UINT32_MAX, .st_mode = type };

	if (known && known->priv)
		st.st_ino = entry_number(known->priv, known->ino);
	return fuse_add_direntry(req->fuse, out, room, name, &st, next);
}

/* With attributes: this counts as a lookup, unless it does not fit. */
static size_t put_plus(struct req *req, struct node *dir, struct listing *l, size_t i, char *out,
		       size_t room, off_t next)
{
	struct fuse_entry_param p = { 0 };
	struct node *node = NULL;
	struct entry *e;
	mode_t type;
	const char *name = listing_name(l, i, &type);
	size_t used;

	e = listing_entry(l, i, &p.attr);
	/* The kernel asks by itself for one that it would have to wait for. */
	if (e && !pages_busy(req, node_find(dir, name), e, &p.attr)) {
		node = remote_child(dir, name, e, p.attr.st_mode);
		p.attr_timeout = remote_stat(node, &p.attr);
		p.entry_timeout = remote_lend(dir, p.attr_timeout);
		p.ino = node->ino;
	} else {
		p.attr = (struct stat){ .st_ino = UINT32_MAX, .st_mode = type };
	}
	used = fuse_add_direntry_plus(req->fuse, out, room, name, &p, next);
	if (node && used <= room)
		node_looked_up(node);
	node_unref(node);
	entry_unref(e);
	return used;
}

static size_t put_dots(struct req *req, char *out, size_t room, const char *name, off_t next,
		       bool plus)
{
	struct fuse_entry_param p = { .attr = some_folder };

	return plus ? fuse_add_direntry_plus(req->fuse, out, room, name, &p, next) :
		      fuse_add_direntry(req->fuse, out, room, name, &some_folder, next);
}

static void reply_listing(struct req *req, struct node *dir, struct listing *l, size_t size,
			  off_t off, bool plus)
{
	size_t count = listing_count(l) + 2, len = 0, used;
	char *out = xmalloc(size);

	for (size_t i = (size_t)off; i < count; i++, len += used) {
		off_t next = (off_t)i + 1;
		mode_t type;
		const char *name;

		if (i < 2) {
			used = put_dots(req, out + len, size - len, i ? ".." : ".", next, plus);
		} else if (plus) {
			used = put_plus(req, dir, l, i - 2, out + len, size - len, next);
		} else {
			name = listing_name(l, i - 2, &type);
			used = put_plain(req, dir, out + len, size - len, name, type, next);
		}
		if (used > size - len)
			break;
	}
	req_reply_buf(req, out, len);
	free(out);
}

static void reopened(void *user, int error, const struct disk_answer *a)
{
	struct req *req = user;
	struct reading *d = req->handle->priv;

	req_release(req);
	if (error) {
		remote_fail(req, error);
		return;
	}
	listing_close(d->listing);
	d->listing = a->listing;
	d->begun = false;
	d->edition = 0;
	req_run(req);
}

/* rewinddir: the folder as it is now. */
static int rewind_listing(struct req *req, struct handle *h)
{
	struct disk_call *call;
	struct disk *disk;
	int r;

	if (remote_disk(req, h->node, &disk, &r))
		return r;
	r = disk_opendir(disk, remote_entry(h->node, disk), reopened, req, &call);
	return remote_hold(req, "readdir", call, r);
}

int remote_readdir(struct req *req, struct handle *h, size_t size, off_t off, bool plus)
{
	struct reading *d = h->priv;
	int r;

	if (off == 0 && (d->begun || (d->edition && d->edition != disk_edition(d->dir))))
		return rewind_listing(req, h);
	/* What has come is given out while the rest is on its way. */
	r = off >= 2 ? listing_reaches(d->listing, (size_t)off - 2) : 0;
	if (r == -EAGAIN)
		return req_wait_until(req, listing_news(d->listing), REMOTE_WAIT_MS);
	if (r < 0) {
		req->operation = "readdir";
		remote_fail(req, r);
		return 0;
	}
	d->begun = true;
	reply_listing(req, h->node, d->listing, size, off, plus);
	return 0;
}
