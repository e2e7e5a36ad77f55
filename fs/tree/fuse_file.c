/* Open files, and who polls them. See fuse_ops.c. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>

#include "fuse_ops.h"
#include "req_internal.h"
#include "tree_internal.h"

/* --- open files ---------------------------------------------------------------------------- */

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
	int r = op_stale(node) ? -ESTALE : open_check(node, req->fi.flags);

	if (r == 0 && !req->handle) {
		req->handle = handle_create(node, req->fi.flags);
		req->opening = true;
	}
	if (r == 0)
		r = node->ops->open ? node->ops->open(req, node, req->handle, &req->fi) : -EACCES;
	op_finish(req, r);
}

void op_open(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct req *req = op_begin(fuse, OP_OPEN, do_open, ino, NULL);

	if (!req)
		return;
	req->fi = *fi;
	req_run(req);
}

static void do_read(struct req *req)
{
	struct handle *h = req->handle;

	op_finish(req, h->ops->read ? h->ops->read(req, h, req->size, req->off) : -EBADF);
}

void op_read(fuse_req_t fuse, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct req *req = op_begin(fuse, OP_READ, do_read, ino, fi);

	if (!req)
		return;
	req->size = size;
	req->off = off;
	req->handle->nonblock = fi->flags & O_NONBLOCK;
	req_run(req);
}

static void do_write(struct req *req)
{
	struct handle *h = req->handle;

	op_finish(req, h->ops->write ?
		       h->ops->write(req, h, req->data, req->size, req->off) : -EBADF);
}

void op_write(fuse_req_t fuse, fuse_ino_t ino, const char *data, size_t size, off_t off,
	      struct fuse_file_info *fi)
{
	struct req *req = op_begin(fuse, OP_WRITE, do_write, ino, fi);

	if (!req)
		return;
	req->data = (uint8_t *)(uintptr_t)data;
	req->size = size;
	req->off = off;
	req->handle->nonblock = fi->flags & O_NONBLOCK;
	req_run(req);
}

static void do_flush(struct req *req)
{
	struct handle *h = req->handle;

	if (h->ops->flush)
		op_finish(req, h->ops->flush(req, h));
	else
		req_reply_err(req, 0);
}

void op_flush(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct req *req = op_begin(fuse, OP_FLUSH, do_flush, ino, fi);

	if (!req)
		return;
	req_run(req);
}

static void do_fsync(struct req *req)
{
	struct handle *h = req->handle;

	if (h->ops->fsync)
		op_finish(req, h->ops->fsync(req, h, req->flags));
	else
		req_reply_err(req, 0);
}

void op_fsync(fuse_req_t fuse, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
	struct req *req = op_begin(fuse, OP_FSYNC, do_fsync, ino, fi);

	if (!req)
		return;
	req->flags = data_only != 0;
	req_run(req);
}

void op_release(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *fi)
{
	/* Answered first: nobody waits for it, and what it starts may take its time. */
	fuse_reply_err(fuse, 0);
	handle_close((struct handle *)(uintptr_t)fi->fh);
}

static void do_fallocate(struct req *req)
{
	struct handle *h = req->handle;

	op_finish(req, h->ops->fallocate ?
	       h->ops->fallocate(req, h, (int)req->flags, req->off, req->off2) : -EOPNOTSUPP);
}

void op_fallocate(fuse_req_t fuse, fuse_ino_t ino, int mode, off_t off, off_t len,
		  struct fuse_file_info *fi)
{
	struct req *req = op_begin(fuse, OP_FALLOCATE, do_fallocate, ino, fi);

	if (!req)
		return;
	req->flags = (unsigned)mode;
	req->off = off;
	req->off2 = len;
	req_run(req);
}

static void do_copy(struct req *req)
{
	struct handle *in = req->handle, *out = req->handle2;

	op_finish(req, in->ops == out->ops && in->ops->copy_range ?
	       in->ops->copy_range(req, in, req->off, out, req->off2, req->size) : -EOPNOTSUPP);
}

void op_copy_file_range(fuse_req_t fuse, fuse_ino_t ino, off_t off, struct fuse_file_info *fi,
			fuse_ino_t out_ino, off_t out_off, struct fuse_file_info *out_fi,
			size_t size, int flags)
{
	struct req *req = op_begin(fuse, OP_COPY, do_copy, ino, fi);

	if (!req)
		return;
	req->handle2 = (struct handle *)(uintptr_t)out_fi->fh;
	req->off = off;
	req->off2 = out_off;
	req->size = size;
	req_run(req);
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

void op_poll(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *fi, struct fuse_pollhandle *ph)
{
	struct req *req = op_begin(fuse, OP_POLL, NULL, ino, fi);
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
