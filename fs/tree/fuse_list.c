/* Listings of folders. See fuse_ops.c. */
#include <errno.h>

#include "buf.h"
#include "dirbuf.h"
#include "fuse_ops.h"
#include "req_internal.h"
#include "tree_internal.h"

static void do_opendir(struct req *req)
{
	struct node *node = req->node;
	int r = 0;

	if (op_stale(node))
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
		op_finish(req, node->ops->opendir(req, node, req->handle, &req->fi));
	else
		req_reply_open(req, req->handle);
}

void op_opendir(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct req *req = op_begin(fuse, OP_OPENDIR, do_opendir, ino, NULL);

	if (!req)
		return;
	req->fi = *fi;
	req_run(req);
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
		op_finish(req, h->ops->readdir(req, h, req->size, req->off, req->flags));
		return;
	}
	if (op_stale(h->node))
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
	struct req *req = op_begin(fuse, OP_READDIR, do_readdir, ino, fi);

	if (!req)
		return;
	req->size = size;
	req->off = off;
	req->flags = plus;
	req_run(req);
}

void op_readdir(fuse_req_t fuse, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	start_readdir(fuse, ino, size, off, fi, false);
}

void op_readdirplus(fuse_req_t fuse, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	start_readdir(fuse, ino, size, off, fi, true);
}
