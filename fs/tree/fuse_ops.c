/*
 * The one fuse_lowlevel_ops table: find the node, make a req, call the op of the
 * node's kind, reply the errno of what it refused. What a kind cannot do has one
 * errno, here. See req.h for the contract and node.h for the ops.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "buf.h"
#include "dirbuf.h"
#include "err.h"
#include "fleet.h"
#include "log.h"
#include "metrics_node.h"
#include "req_internal.h"
#include "tree_internal.h"
#include "vm.h"

static struct tree *tree_of(fuse_req_t fuse)
{
	return fuse_req_userdata(fuse);
}

static void run(struct req *);

/* A req about the node of that number, or NULL: -ESTALE has been replied. */
static struct req *begin(fuse_req_t fuse, enum req_op op, fuse_ino_t ino,
			 struct fuse_file_info *fi)
{
	struct tree *tree = tree_of(fuse);
	struct node *node = node_by_ino(tree, ino);
	struct req *req;

	if (!node) {
		fuse_reply_err(fuse, ESTALE);
		return NULL;
	}
	req = req_create(tree, fuse, node, NULL);
	req->op = op;
	req->again = run;
	request_begins(req);
	if (fi) {
		req->fi = *fi;
		req->handle = (struct handle *)(uintptr_t)fi->fh;
	}
	return req;
}

/* Files of a sandbox that is gone are stale; those of .sbxfs and the top are not about one. */
static bool stale(const struct node *node)
{
	return node->vm && vm_gone(node->vm);
}

static void finish(struct req *req, int r)
{
	if (r < 0)
		req_reply_err(req, r);
}

/* What path is in node's sandbox, which has a folder at the top, or one in the trash. */
static const char *below_sandbox(const struct node *node, const char *path)
{
	const char *below = path;

	while (node->parent && node->parent->vm)
		node = node->parent;
	for (; node->parent && below; node = node->parent) {
		below = strchr(below, '/');
		below = below ? below + 1 : NULL;
	}
	return below ? below : "";
}

int req_fail(struct node *node, const char *operation, const char *name, const struct err *err)
{
	struct buf path = BUF_INIT;
	char *text;

	node_path(node, name, &path);
	text = buf_take_string(&path);
	if (node->vm && !vm_gone(node->vm)) {
		vm_set_error(node->vm, operation, below_sandbox(node, text), err);
	} else {
		fleet_note_error(node->tree->fleet, operation, text, err);
	}
	free(text);
	return err->code;
}

static int refuse(struct node *node, const char *operation, const char *name, int code,
		  const char *sentence)
{
	struct err err;

	err_set(&err, code, "%s", sentence);
	return req_fail(node, operation, name, &err);
}

/* --- names ----------------------------------------------------------------------- */

static int reply_now(struct req *req, struct node *child)
{
	struct node *shown = child;
	struct stat st;
	int r = 0;

	node_stat_init(child, &st);
	if (child->ops->stat)
		r = child->ops->stat(child, &st);
	if (r < 0)
		return r;
	if (child->ops->reach && child->ops->reach(child) > st.st_size)
		st.st_size = child->ops->reach(child);
	if (child->ops->apart)
		shown = node_apart(child);
	req->name_timeout = child->ops->lent ? vm_lend_name(child->vm) : 0;
	req_reply_entry(req, shown, &st, 0);
	if (shown != child)
		node_unref(shown);
	return 0;
}

static void do_lookup(struct req *req)
{
	struct node *dir = req->node, *child;
	int r = -ENOENT;

	if (stale(dir)) {
		r = -ESTALE;
	} else if (dir->ops->lookup_now) {
		r = dir->ops->lookup_now(dir, req->name, &child);
		if (r == 0) {
			r = reply_now(req, child);
			node_unref(child);
		}
	} else if (dir->ops->lookup) {
		r = dir->ops->lookup(req, dir, req->name);
	} else if (!S_ISDIR(dir->ops->mode)) {
		r = -ENOTDIR;
	}
	finish(req, r);
}

static void op_lookup(fuse_req_t fuse, fuse_ino_t parent, const char *name)
{
	struct req *req = begin(fuse, OP_LOOKUP, parent, NULL);

	if (!req)
		return;
	req->name = xstrdup(name);
	run(req);
}

static void op_forget(fuse_req_t fuse, fuse_ino_t ino, uint64_t n)
{
	struct node *node = node_by_ino(tree_of(fuse), ino);

	if (node && node->parent)
		node_forget(node, n);
	fuse_reply_none(fuse);
}

static void op_forget_multi(fuse_req_t fuse, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++) {
		struct node *node = node_by_ino(tree_of(fuse), forgets[i].ino);

		if (node && node->parent)
			node_forget(node, forgets[i].nlookup);
	}
	fuse_reply_none(fuse);
}

/* --- attributes ------------------------------------------------------------------- */

static void do_getattr(struct req *req)
{
	struct node *node = req->node;
	struct stat st;
	int r = 0;

	if (stale(node)) {
		r = -ESTALE;
	} else if (node->ops->getattr) {
		r = node->ops->getattr(req, node, req->handle);
	} else {
		node_stat_init(node, &st);
		if (node->ops->stat)
			r = node->ops->stat(node, &st);
		if (r == 0)
			req_reply_attr(req, &st, 0);
	}
	finish(req, r);
}

static void op_getattr(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct req *req = begin(fuse, OP_GETATTR, ino, fi);

	if (!req)
		return;
	run(req);
}

/*
 * Editors truncate, touch and chmod what they save: harmless on a control file that can be
 * written.
 */
static int setattr_default(struct req *req, struct node *node, int to_set)
{
	struct stat st;
	int r = 0;

	if (!S_ISREG(node->ops->mode) || !(node->ops->mode & 0200) ||
	    (to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)))
		return refuse(node, "setattr", NULL, -EPERM, "this file's attributes are fixed");
	node_stat_init(node, &st);
	if (node->ops->stat)
		r = node->ops->stat(node, &st);
	if (r == 0)
		req_reply_attr(req, &st, 0);
	return r;
}

static void do_setattr(struct req *req)
{
	struct node *node = req->node;
	int r;

	if (stale(node))
		r = -ESTALE;
	else if (node->ops->setattr)
		r = node->ops->setattr(req, node, req->handle, &req->attr, req->to_set);
	else
		r = setattr_default(req, node, req->to_set);
	finish(req, r);
}

static void op_setattr(fuse_req_t fuse, fuse_ino_t ino, struct stat *attr, int to_set,
		       struct fuse_file_info *fi)
{
	struct req *req = begin(fuse, OP_SETATTR, ino, fi);

	if (!req)
		return;
	req->attr = *attr;
	req->to_set = to_set;
	run(req);
}

static void do_readlink(struct req *req)
{
	struct node *node = req->node;

	finish(req, stale(node) ? -ESTALE :
	       node->ops->readlink ? node->ops->readlink(req, node) : -EINVAL);
}

static void op_readlink(fuse_req_t fuse, fuse_ino_t ino)
{
	struct req *req = begin(fuse, OP_READLINK, ino, NULL);

	if (!req)
		return;
	run(req);
}

static void do_statfs(struct req *req)
{
	struct statvfs st = { .f_bsize = 4096, .f_frsize = 4096, .f_namemax = 255 };
	struct node *node = req->node;

	if (node->ops->statfs && !stale(node))
		finish(req, node->ops->statfs(req, node));
	else
		req_reply_statfs(req, &st);
}

static void op_statfs(fuse_req_t fuse, fuse_ino_t ino)
{
	struct req *req = begin(fuse, OP_STATFS, ino, NULL);

	if (!req)
		return;
	run(req);
}

/* --- changes of a folder ------------------------------------------------------------- */

static const char no_mkdir[] = "folders cannot be made here: sandboxes are made in the mount's top "
			       "folder, named jobs in jobs/";
static const char no_create[] = "files cannot be made here: the files of this folder are fixed";
static const char no_remove[] = "this file is fixed: rmdir the sandbox to destroy it";

static void do_mkdir(struct req *req)
{
	struct node *dir = req->node;

	finish(req, stale(dir) ? -ESTALE :
	       dir->ops->mkdir ? dir->ops->mkdir(req, dir, req->name, req->mode) :
	       refuse(dir, "mkdir", req->name, -EPERM, no_mkdir));
}

static void op_mkdir(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct req *req = begin(fuse, OP_MKDIR, parent, NULL);

	if (!req)
		return;
	req->name = xstrdup(name);
	req->mode = mode;
	run(req);
}

static void do_rmdir(struct req *req)
{
	struct node *dir = req->node;
	int r;

	if (stale(dir))
		r = -ESTALE;
	else if (guard_refused(req, dir))
		r = -EPERM;
	else if (dir->ops->rmdir)
		r = dir->ops->rmdir(req, dir, req->name);
	else
		r = refuse(dir, "rmdir", req->name, -EPERM, no_remove);
	finish(req, r);
}

static void op_rmdir(fuse_req_t fuse, fuse_ino_t parent, const char *name)
{
	struct req *req = begin(fuse, OP_RMDIR, parent, NULL);

	if (!req)
		return;
	req->name = xstrdup(name);
	run(req);
}

static void do_unlink(struct req *req)
{
	struct node *dir = req->node;
	int r;

	if (stale(dir)) {
		r = -ESTALE;
	} else if (guard_refused(req, dir)) {
		guard_note(req, dir);
		r = -EPERM;
	} else if (dir->ops->unlink) {
		r = dir->ops->unlink(req, dir, req->name);
	} else {
		guard_note(req, dir);
		r = refuse(dir, "unlink", req->name, -EPERM, no_remove);
	}
	finish(req, r);
}

static void op_unlink(fuse_req_t fuse, fuse_ino_t parent, const char *name)
{
	struct req *req = begin(fuse, OP_UNLINK, parent, NULL);

	if (!req)
		return;
	req->name = xstrdup(name);
	run(req);
}

static void do_rename(struct req *req)
{
	struct node *dir = req->node, *newdir = req->node2;
	int r;

	if (stale(dir) || stale(newdir))
		r = -ESTALE;
	else if (dir->ops->rename && (dir->ops == newdir->ops || dir->ops->renames_out))
		r = dir->ops->rename(req, dir, req->name, newdir, req->name2, req->flags);
	else if (dir->ops->rename && newdir->ops->rename && !newdir->ops->renames_out)
		r = -EXDEV;	/* mv then copies */
	else
		r = refuse(dir, "rename", req->name, -EPERM, "the names of this folder are fixed");
	finish(req, r);
}

static void op_rename(fuse_req_t fuse, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
		      const char *newname, unsigned flags)
{
	struct req *req = begin(fuse, OP_RENAME, parent, NULL);

	if (!req)
		return;
	req->node2 = node_by_ino(req->tree, newparent);
	if (!req->node2) {
		req_reply_err(req, -ESTALE);
		return;
	}
	node_ref(req->node2);
	req->name = xstrdup(name);
	req->name2 = xstrdup(newname);
	req->flags = flags;
	run(req);
}

static void do_create(struct req *req)
{
	struct node *dir = req->node;

	finish(req, stale(dir) ? -ESTALE :
	       dir->ops->create ? dir->ops->create(req, dir, req->name, req->mode, &req->fi) :
	       refuse(dir, "create", req->name, -EPERM, no_create));
}

static void op_create(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	struct req *req = begin(fuse, OP_CREATE, parent, NULL);

	if (!req)
		return;
	req->fi = *fi;
	req->name = xstrdup(name);
	req->mode = mode;
	run(req);
}

static void do_mknod(struct req *req)
{
	struct node *dir = req->node;

	finish(req, stale(dir) ? -ESTALE :
	       dir->ops->mknod ? dir->ops->mknod(req, dir, req->name, req->mode) :
	       refuse(dir, "mknod", req->name, -EPERM, no_create));
}

static void op_mknod(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct req *req = begin(fuse, OP_MKNOD, parent, NULL);

	if (!req)
		return;
	req->name = xstrdup(name);
	req->mode = mode;
	run(req);
}

static void do_symlink(struct req *req)
{
	struct node *dir = req->node;

	finish(req, stale(dir) ? -ESTALE :
	       dir->ops->symlink ? dir->ops->symlink(req, dir, req->name, req->name2) :
	       refuse(dir, "symlink", req->name, -EPERM, no_create));
}

static void op_symlink(fuse_req_t fuse, const char *text, fuse_ino_t parent, const char *name)
{
	struct req *req = begin(fuse, OP_SYMLINK, parent, NULL);

	if (!req)
		return;
	req->name = xstrdup(name);
	req->name2 = xstrdup(text);
	run(req);
}

static void do_link(struct req *req)
{
	struct node *src = req->node, *dir = req->node2;

	finish(req, stale(dir) || stale(src) ? -ESTALE :
	       src->vm != dir->vm ? -EXDEV :
	       dir->ops->link ? dir->ops->link(req, src, dir, req->name) :
	       refuse(dir, "link", req->name, -EPERM, no_create));
}

static void op_link(fuse_req_t fuse, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	struct req *req = begin(fuse, OP_LINK, ino, NULL);

	if (!req)
		return;
	req->node2 = node_by_ino(req->tree, newparent);
	if (!req->node2) {
		req_reply_err(req, -ESTALE);
		return;
	}
	node_ref(req->node2);
	req->name = xstrdup(newname);
	run(req);
}

/* --- open files ------------------------------------------------------------------------ */

/* The kernel leaves modes to us: what has no write bit cannot be written, whoever asks. */
static int open_check(const struct node *node, int flags)
{
	int how = flags & O_ACCMODE;

	if (node->ops->setattr)
		return 0;	/* a file with modes of its own: the server decides, for root/ */
	if (how != O_WRONLY && !(node->ops->mode & 0400))
		return -EACCES;
	if (how != O_RDONLY && !(node->ops->mode & 0200))
		return -EACCES;
	return 0;
}

static void do_open(struct req *req)
{
	struct node *node = req->node;
	int r = stale(node) ? -ESTALE : open_check(node, req->fi.flags);

	if (r == 0 && !req->handle) {
		req->handle = handle_create(node, req->fi.flags);
		req->opening = true;
	}
	if (r == 0)
		r = node->ops->open ? node->ops->open(req, node, req->handle, &req->fi) : -EACCES;
	finish(req, r);
}

static void op_open(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct req *req = begin(fuse, OP_OPEN, ino, NULL);

	if (!req)
		return;
	req->fi = *fi;
	run(req);
}

static void do_read(struct req *req)
{
	struct handle *h = req->handle;

	finish(req, h->ops->read ? h->ops->read(req, h, req->size, req->off) : -EBADF);
}

static void op_read(fuse_req_t fuse, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	struct req *req = begin(fuse, OP_READ, ino, fi);

	if (!req)
		return;
	req->size = size;
	req->off = off;
	req->handle->nonblock = fi->flags & O_NONBLOCK;
	run(req);
}

static void do_write(struct req *req)
{
	struct handle *h = req->handle;

	finish(req, h->ops->write ? h->ops->write(req, h, req->data, req->size, req->off) : -EBADF);
}

static void op_write(fuse_req_t fuse, fuse_ino_t ino, const char *data, size_t size, off_t off,
		     struct fuse_file_info *fi)
{
	struct req *req = begin(fuse, OP_WRITE, ino, fi);

	if (!req)
		return;
	req->data = (uint8_t *)(uintptr_t)data;
	req->size = size;
	req->off = off;
	req->handle->nonblock = fi->flags & O_NONBLOCK;
	run(req);
}

static void do_flush(struct req *req)
{
	struct handle *h = req->handle;

	if (h->ops->flush)
		finish(req, h->ops->flush(req, h));
	else
		req_reply_err(req, 0);
}

static void op_flush(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct req *req = begin(fuse, OP_FLUSH, ino, fi);

	if (!req)
		return;
	run(req);
}

static void do_fsync(struct req *req)
{
	struct handle *h = req->handle;

	if (h->ops->fsync)
		finish(req, h->ops->fsync(req, h, req->flags));
	else
		req_reply_err(req, 0);
}

static void op_fsync(fuse_req_t fuse, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
	struct req *req = begin(fuse, OP_FSYNC, ino, fi);

	if (!req)
		return;
	req->flags = data_only != 0;
	run(req);
}

static void op_release(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *fi)
{
	/* Answered first: nobody waits for it, and what it starts may take its time. */
	fuse_reply_err(fuse, 0);
	handle_close((struct handle *)(uintptr_t)fi->fh);
}

static void do_fallocate(struct req *req)
{
	struct handle *h = req->handle;

	finish(req, h->ops->fallocate ?
	       h->ops->fallocate(req, h, (int)req->flags, req->off, req->off2) : -EOPNOTSUPP);
}

static void op_fallocate(fuse_req_t fuse, fuse_ino_t ino, int mode, off_t off, off_t len,
			 struct fuse_file_info *fi)
{
	struct req *req = begin(fuse, OP_FALLOCATE, ino, fi);

	if (!req)
		return;
	req->flags = (unsigned)mode;
	req->off = off;
	req->off2 = len;
	run(req);
}

static void do_copy(struct req *req)
{
	struct handle *in = req->handle, *out = req->handle2;

	finish(req, in->ops == out->ops && in->ops->copy_range ?
	       in->ops->copy_range(req, in, req->off, out, req->off2, req->size) : -EOPNOTSUPP);
}

static void op_copy_file_range(fuse_req_t fuse, fuse_ino_t ino, off_t off,
			       struct fuse_file_info *fi, fuse_ino_t out_ino, off_t out_off,
			       struct fuse_file_info *out_fi, size_t size, int flags)
{
	struct req *req = begin(fuse, OP_COPY, ino, fi);

	if (!req)
		return;
	req->handle2 = (struct handle *)(uintptr_t)out_fi->fh;
	req->off = off;
	req->off2 = out_off;
	req->size = size;
	run(req);
}

/* --- poll ---------------------------------------------------------------------------------- */

static void poll_again(struct waiter *w)
{
	struct handle *h = container_of(w, struct handle, poll_waiter);
	struct fuse_pollhandle *ph = h->ph;

	h->ph = NULL;
	if (ph) {
		fuse_lowlevel_notify_poll(ph);
		fuse_pollhandle_destroy(ph);
	}
}

static void op_poll(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *fi,
		    struct fuse_pollhandle *ph)
{
	struct req *req = begin(fuse, OP_POLL, ino, fi);
	struct wait_list *news = NULL;
	unsigned events = POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM;
	struct handle *h;

	if (!req) {
		if (ph)
			fuse_pollhandle_destroy(ph);
		return;
	}
	h = req->handle;
	if (h && h->ops->poll)
		events = h->ops->poll(h, &news);
	if (ph && h) {
		/* The kernel keeps one registration a handle: the latest takes over. */
		if (h->ph)
			fuse_pollhandle_destroy(h->ph);
		wait_cancel(&h->poll_waiter);
		h->ph = ph;
		waiter_init(&h->poll_waiter, poll_again);
		if (news)
			wait_add(news, &h->poll_waiter);
	}
	req_reply_poll(req, events);
}

/* --- listings --------------------------------------------------------------------------------- */

static void do_opendir(struct req *req)
{
	struct node *node = req->node;
	int r = 0;

	if (stale(node))
		r = -ESTALE;
	else if (guard_refused(req, node))
		r = -EPERM;
	else if (!S_ISDIR(node->ops->mode) && !node->ops->opendir)
		r = -ENOTDIR;
	if (r < 0) {
		req_reply_err(req, r);
		return;
	}
	if (!req->handle) {
		req->handle = handle_create(node, req->fi.flags);
		req->opening = true;
	}
	if (node->ops->opendir)
		finish(req, node->ops->opendir(req, node, req->handle, &req->fi));
	else
		req_reply_open(req, req->handle);
}

static void op_opendir(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct req *req = begin(fuse, OP_OPENDIR, ino, NULL);

	if (!req)
		return;
	req->fi = *fi;
	run(req);
}

/* The snapshot is taken when the listing begins: rewinddir sees what is new. */
static int list_snapshot(struct handle *h)
{
	dirbuf_destroy(h->dir);
	h->dir = dirbuf_create();
	dirbuf_add(h->dir, ".", S_IFDIR);
	dirbuf_add(h->dir, "..", S_IFDIR);
	return h->ops->list ? h->ops->list(h->node, h->dir) : 0;
}

static void do_readdir(struct req *req)
{
	struct handle *h = req->handle;
	int r = 0;

	if (h->ops->readdir) {
		finish(req, h->ops->readdir(req, h, req->size, req->off, req->flags));
		return;
	}
	if (stale(h->node))
		r = -ESTALE;
	else if (req->off == 0 || !h->dir)
		r = list_snapshot(h);
	if (r < 0)
		req_reply_err(req, r);
	else
		dirbuf_reply(h->dir, req, h->node, req->size, req->off, req->flags);
}

static void start_readdir(fuse_req_t fuse, fuse_ino_t ino, size_t size, off_t off,
			  struct fuse_file_info *fi, bool plus)
{
	struct req *req = begin(fuse, OP_READDIR, ino, fi);

	if (!req)
		return;
	req->size = size;
	req->off = off;
	req->flags = plus;
	run(req);
}

static void op_readdir(fuse_req_t fuse, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	start_readdir(fuse, ino, size, off, fi, false);
}

static void op_readdirplus(fuse_req_t fuse, fuse_ino_t ino, size_t size, off_t off,
			   struct fuse_file_info *fi)
{
	start_readdir(fuse, ino, size, off, fi, true);
}

/* Run the op of a req, the first time and whenever there is news for it. */
static void run(struct req *req)
{
	static void (*const ops[OP_COUNT])(struct req *) = {
		[OP_LOOKUP] = do_lookup,
		[OP_GETATTR] = do_getattr,
		[OP_SETATTR] = do_setattr,
		[OP_READLINK] = do_readlink,
		[OP_STATFS] = do_statfs,
		[OP_MKDIR] = do_mkdir,
		[OP_RMDIR] = do_rmdir,
		[OP_UNLINK] = do_unlink,
		[OP_RENAME] = do_rename,
		[OP_CREATE] = do_create,
		[OP_MKNOD] = do_mknod,
		[OP_SYMLINK] = do_symlink,
		[OP_LINK] = do_link,
		[OP_OPEN] = do_open,
		[OP_READ] = do_read,
		[OP_WRITE] = do_write,
		[OP_FLUSH] = do_flush,
		[OP_FSYNC] = do_fsync,
		[OP_FALLOCATE] = do_fallocate,
		[OP_COPY] = do_copy,
		[OP_OPENDIR] = do_opendir,
		[OP_READDIR] = do_readdir,
	};

	struct fleet *fleet = req->tree->fleet;

	fleet_caller(fleet, req->uid, req->pid);
	ops[req->op](req);
	fleet_caller(fleet, (uid_t)-1, 0);
}

/* --- the connection --------------------------------------------------------------------------- */

static void op_init(void *user, struct fuse_conn_info *conn)
{
	struct tree *tree = user;

	/* Requests are kept while they wait: they must be memory, not a pipe's pages. */
	conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
				  FUSE_CAP_SPLICE_MOVE | FUSE_CAP_WRITEBACK_CACHE);
	conn->want |= conn->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS |
				       FUSE_CAP_ASYNC_DIO | FUSE_CAP_AUTO_INVAL_DATA |
				       FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
				       FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_HANDLE_KILLPRIV);
	conn->max_readahead = 1024 * 1024;
	conn->max_write = 1024 * 1024;
	/* Held reads are background work to the kernel: they must not fill its queue. */
	conn->max_background = 1024;
	conn->congestion_threshold = 768;
	conn->time_gran = 1;
	tree->parallel_dirops = conn->want & FUSE_CAP_PARALLEL_DIROPS;
	tree->handle_killpriv = conn->want & FUSE_CAP_HANDLE_KILLPRIV;
	if (tree->conf.mounted)
		tree->conf.mounted(tree->conf.user);
}

const struct fuse_lowlevel_ops tree_fuse_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readlink = op_readlink,
	.statfs = op_statfs,
	.mkdir = op_mkdir,
	.rmdir = op_rmdir,
	.unlink = op_unlink,
	.rename = op_rename,
	.create = op_create,
	.mknod = op_mknod,
	.symlink = op_symlink,
	.link = op_link,
	.open = op_open,
	.read = op_read,
	.write = op_write,
	.flush = op_flush,
	.fsync = op_fsync,
	.release = op_release,
	.fallocate = op_fallocate,
	.copy_file_range = op_copy_file_range,
	.poll = op_poll,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.releasedir = op_release,
};
