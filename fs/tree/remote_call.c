/*
 * root/: what every op on a VM's disk begins and ends with. It gets the disk or waits for it, makes
 * one call, and when that is answered the request is: with what came, or with an errno and the
 * sentence for it.
 */
#include "remote_internal.h"

#include <errno.h>

#include "buf.h"
#include "err.h"

bool remote_disk(struct req *req, struct node *node, struct disk **disk, int *r)
{
	*disk = NULL;
	*r = vm_disk(node->vm, disk);
	if (*r == -EAGAIN) {
		*r = req_wait_until(req, vm_news(node->vm), REMOTE_WAIT_MS);
		return true;
	}
	if (*r == 0)
		return false;
	/* The server was given up a moment ago. */
	if (*disk && disk_error(*disk)->code == *r)
		req_fail(node, "reach", req->name, disk_error(*disk));
	if (*r == -ENOSYS)	/* the kernel would take that for the whole mount */
		*r = -EOPNOTSUPP;
	return true;
}

static void cancel_call(struct req *req)
{
	disk_cancel(req->priv);
}

int remote_hold(struct req *req, const char *operation, struct disk_call *call, int r)
{
	if (r < 0)
		return r;
	req->operation = operation;
	req->priv = call;
	return req_hold(req, cancel_call);
}

/* The sentence for an error that says something of the sandbox rather than of the request. */
static void explain(struct node *node, int error, struct err *err)
{
	struct disk *disk = NULL;

	switch (error) {
	case -EIO:
		err_set(err, error, "the sandbox's file server said \"failure\", or made no sense");
		break;
	case -ENOSPC:
		err_set(err, error, "the sandbox's disk is full");
		break;
	case -ENOMEM:
		err_set(err, error, "folders without an end take the memory for listings");
		break;
	case -EFBIG:
		if (S_ISDIR(node->ops->mode))
			err_set(err, error, "this folder has too many names to be listed");
		break;
	case -EROFS:
		err_set(err, error, "the sandbox mounted this file system read-only");
		break;
	case -EPROTO:
	case -ETIMEDOUT:
		vm_disk(node->vm, &disk);
		if (disk && disk_error(disk)->code == error)
			*err = *disk_error(disk);
		break;
	default:
		break;
	}
}

/*
 * The server ended by itself (-ESHUTDOWN: some do so when they are idle), perhaps before it saw
 * the call: what only looks is asked again. Or a folder was renamed meanwhile (-ERESTART), and
 * there was nothing at the old path: nothing has been done, and whatever it was is asked again.
 */
#define ASK_AGAIN_MAX 8
#define MOVED_MAX 100		/* somebody may rename it all the time */

static bool asked_again(struct req *req, int error)
{
	bool looks = req->op == OP_LOOKUP || req->op == OP_GETATTR || req->op == OP_READLINK ||
		     req->op == OP_STATFS || req->op == OP_OPENDIR || req->op == OP_READ ||
		     (req->op == OP_OPEN && !(req->fi.flags & O_TRUNC));

	if (req->interrupted || (error == -ERESTART ? req->asked_again >= MOVED_MAX :
				 !looks || req->asked_again >= ASK_AGAIN_MAX))
		return false;
	req->asked_again++;
	req_run_later(req);	/* behind the answers to all calls */
	return true;
}

void remote_fail(struct req *req, int error)
{
	struct err err = ERR_NONE;

	if ((error == -ESHUTDOWN || error == -ERESTART) && asked_again(req, error))
		return;
	if (error == -ESHUTDOWN)
		error = -EIO;
	if (error == -ERESTART)		/* the kernel looks again */
		error = req->interrupted ? -EINTR : -ESTALE;
	explain(req->node, error, &err);
	if (err.code)
		req_fail(req->node, req->operation, req->name, &err);
	req_reply_err(req, error);
}

int remote_answered(struct req *req, int error)
{
	req_release(req);
	if (error)
		remote_fail(req, error);
	return error;
}
