/* What is there: names and attributes. See fuse_ops.c. */
#include <errno.h>
#include <sys/statvfs.h>

#include "buf.h"
#include "fuse_ops.h"
#include "req_internal.h"
#include "tree_internal.h"
#include "vm.h"

/* --- names --------------------------------------------------------------------------------- */

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

	if (op_stale(dir)) {
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
	op_finish(req, r);
}

void op_lookup(fuse_req_t fuse, fuse_ino_t parent, const char *name)
{
	struct req *req = op_begin_name(fuse, OP_LOOKUP, do_lookup, parent, name);

	if (!req)
		return;
	req_run(req);
}

void op_forget(fuse_req_t fuse, fuse_ino_t ino, uint64_t n)
{
	struct node *node = node_by_ino(fuse_req_userdata(fuse), ino);

	if (node && node->parent)
		node_forget(node, n);
	fuse_reply_none(fuse);
}

void op_forget_multi(fuse_req_t fuse, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++) {
		struct node *node = node_by_ino(fuse_req_userdata(fuse), forgets[i].ino);

		if (node && node->parent)
			node_forget(node, forgets[i].nlookup);
	}
	fuse_reply_none(fuse);
}

/* --- attributes ---------------------------------------------------------------------------- */

static void do_getattr(struct req *req)
{
	struct node *node = req->node;
	struct stat st;
	int r = 0;

	if (op_stale(node)) {
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
	op_finish(req, r);
}

void op_getattr(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct req *req = op_begin(fuse, OP_GETATTR, do_getattr, ino, fi);

	if (!req)
		return;
	req_run(req);
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
		return op_refuse(node, "setattr", NULL, -EPERM, "this file's attributes are fixed");
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

	if (op_stale(node))
		r = -ESTALE;
	else if (node->ops->setattr)
		r = node->ops->setattr(req, node, req->handle, &req->attr, req->to_set);
	else
		r = setattr_default(req, node, req->to_set);
	op_finish(req, r);
}

void op_setattr(fuse_req_t fuse, fuse_ino_t ino, struct stat *attr, int to_set,
		struct fuse_file_info *fi)
{
	struct req *req = op_begin(fuse, OP_SETATTR, do_setattr, ino, fi);

	if (!req)
		return;
	req->attr = *attr;
	req->to_set = to_set;
	req_run(req);
}

static void do_readlink(struct req *req)
{
	struct node *node = req->node;

	op_finish(req, op_stale(node) ? -ESTALE :
	       node->ops->readlink ? node->ops->readlink(req, node) : -EINVAL);
}

void op_readlink(fuse_req_t fuse, fuse_ino_t ino)
{
	struct req *req = op_begin(fuse, OP_READLINK, do_readlink, ino, NULL);

	if (!req)
		return;
	req_run(req);
}

static void do_statfs(struct req *req)
{
	struct statvfs st = { .f_bsize = 4096, .f_frsize = 4096, .f_namemax = 255 };
	struct node *node = req->node;

	if (node->ops->statfs && !op_stale(node))
		op_finish(req, node->ops->statfs(req, node));
	else
		req_reply_statfs(req, &st);
}

void op_statfs(fuse_req_t fuse, fuse_ino_t ino)
{
	struct req *req = op_begin(fuse, OP_STATFS, do_statfs, ino, NULL);

	if (!req)
		return;
	req_run(req);
}
