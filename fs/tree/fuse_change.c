/* Names that come, go and move. See fuse_ops.c. */
#include <errno.h>

#include "buf.h"
#include "fuse_ops.h"
#include "req_internal.h"
#include "tree_internal.h"

static const char no_mkdir[] = "folders cannot be made here: sandboxes are made in the mount's top "
			       "folder, named jobs in jobs/";
static const char no_create[] = "files cannot be made here: the files of this folder are fixed";
static const char no_remove[] = "this file is fixed: rmdir the sandbox to destroy it";

static void do_mkdir(struct req *req)
{
	struct node *dir = req->node;

	op_finish(req, op_stale(dir) ? -ESTALE :
	       dir->ops->mkdir ? dir->ops->mkdir(req, dir, req->name, req->mode) :
	       op_refuse(dir, "mkdir", req->name, -EPERM, no_mkdir));
}

void op_mkdir(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct req *req = op_begin_name(fuse, OP_MKDIR, do_mkdir, parent, name);

	if (!req)
		return;
	req->mode = mode;
	req_run(req);
}

static void do_rmdir(struct req *req)
{
	struct node *dir = req->node;
	int r;

	if (op_stale(dir))
		r = -ESTALE;
	else if (guard_refused(req, dir))
		r = -EPERM;
	else if (dir->ops->rmdir)
		r = dir->ops->rmdir(req, dir, req->name);
	else
		r = op_refuse(dir, "rmdir", req->name, -EPERM, no_remove);
	op_finish(req, r);
}

void op_rmdir(fuse_req_t fuse, fuse_ino_t parent, const char *name)
{
	struct req *req = op_begin_name(fuse, OP_RMDIR, do_rmdir, parent, name);

	if (!req)
		return;
	req_run(req);
}

static void do_unlink(struct req *req)
{
	struct node *dir = req->node;
	int r;

	if (op_stale(dir)) {
		r = -ESTALE;
	} else if (guard_refused(req, dir)) {
		guard_note(req, dir);
		r = -EPERM;
	} else if (dir->ops->unlink) {
		r = dir->ops->unlink(req, dir, req->name);
	} else {
		guard_note(req, dir);
		r = op_refuse(dir, "unlink", req->name, -EPERM, no_remove);
	}
	op_finish(req, r);
}

void op_unlink(fuse_req_t fuse, fuse_ino_t parent, const char *name)
{
	struct req *req = op_begin_name(fuse, OP_UNLINK, do_unlink, parent, name);

	if (!req)
		return;
	req_run(req);
}

static void do_rename(struct req *req)
{
	struct node *dir = req->node, *newdir = req->node2;
	int r;

	if (op_stale(dir) || op_stale(newdir))
		r = -ESTALE;
	else if (dir->ops->rename && (dir->ops == newdir->ops || dir->ops->renames_out))
		r = dir->ops->rename(req, dir, req->name, newdir, req->name2, req->flags);
	else if (dir->ops->rename && newdir->ops->rename && !newdir->ops->renames_out)
		r = -EXDEV;	/* mv then copies */
	else
		r = op_refuse(dir, "rename", req->name, -EPERM,
			      "the names of this folder are fixed");
	op_finish(req, r);
}

void op_rename(fuse_req_t fuse, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
	       const char *newname, unsigned flags)
{
	struct req *req = op_begin_name(fuse, OP_RENAME, do_rename, parent, name);

	if (!req)
		return;
	req->node2 = node_by_ino(req->tree, newparent);
	if (!req->node2) {
		req_reply_err(req, -ESTALE);
		return;
	}
	node_ref(req->node2);
	req->name2 = xstrdup(newname);
	req->flags = flags;
	req_run(req);
}

static void do_create(struct req *req)
{
	struct node *dir = req->node;

	op_finish(req, op_stale(dir) ? -ESTALE :
	       dir->ops->create ? dir->ops->create(req, dir, req->name, req->mode, &req->fi) :
	       op_refuse(dir, "create", req->name, -EPERM, no_create));
}

void op_create(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode,
	       struct fuse_file_info *fi)
{
	struct req *req = op_begin_name(fuse, OP_CREATE, do_create, parent, name);

	if (!req)
		return;
	req->fi = *fi;
	req->mode = mode;
	req_run(req);
}

static void do_mknod(struct req *req)
{
	struct node *dir = req->node;

	op_finish(req, op_stale(dir) ? -ESTALE :
	       dir->ops->mknod ? dir->ops->mknod(req, dir, req->name, req->mode) :
	       op_refuse(dir, "mknod", req->name, -EPERM, no_create));
}

void op_mknod(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct req *req = op_begin_name(fuse, OP_MKNOD, do_mknod, parent, name);

	if (!req)
		return;
	req->mode = mode;
	req_run(req);
}

static void do_symlink(struct req *req)
{
	struct node *dir = req->node;

	op_finish(req, op_stale(dir) ? -ESTALE :
	       dir->ops->symlink ? dir->ops->symlink(req, dir, req->name, req->name2) :
	       op_refuse(dir, "symlink", req->name, -EPERM, no_create));
}

void op_symlink(fuse_req_t fuse, const char *text, fuse_ino_t parent, const char *name)
{
	struct req *req = op_begin_name(fuse, OP_SYMLINK, do_symlink, parent, name);

	if (!req)
		return;
	req->name2 = xstrdup(text);
	req_run(req);
}

static void do_link(struct req *req)
{
	struct node *src = req->node, *dir = req->node2;

	op_finish(req, op_stale(dir) || op_stale(src) ? -ESTALE :
	       src->vm != dir->vm ? -EXDEV :
	       dir->ops->link ? dir->ops->link(req, src, dir, req->name) :
	       op_refuse(dir, "link", req->name, -EPERM, no_create));
}

void op_link(fuse_req_t fuse, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	struct req *req = op_begin(fuse, OP_LINK, do_link, ino, NULL);

	if (!req)
		return;
	req->node2 = node_by_ino(req->tree, newparent);
	if (!req->node2) {
		req_reply_err(req, -ESTALE);
		return;
	}
	node_ref(req->node2);
	req->name = xstrdup(newname);
	req_run(req);
}
