/*
 * The one fuse_lowlevel_ops table: find the node, make a req, call the op of the
 * node's kind, reply the errno of what it refused. What a kind cannot do has one
 * errno, in fuse_look.c, fuse_change.c, fuse_file.c or fuse_list.c, where the ops
 * are. See req.h for the contract and node.h for the ops of a kind.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "err.h"
#include "fleet.h"
#include "fuse_ops.h"
#include "metrics_node.h"
#include "req_internal.h"
#include "tree_internal.h"
#include "vm.h"

struct req *op_begin(fuse_req_t fuse, enum req_op op, void (*perform)(struct req *),
		     fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct tree *tree = fuse_req_userdata(fuse);
	struct node *node = node_by_ino(tree, ino);
	struct req *req;

	if (!node) {
		fuse_reply_err(fuse, ESTALE);
		return NULL;
	}
	req = req_create(tree, fuse, node, NULL);
	req->op = op;
	req->perform = perform;
	request_begins(req);
	if (fi) {
		req->fi = *fi;
		req->handle = (struct handle *)(uintptr_t)fi->fh;
	}
	return req;
}

struct req *op_begin_name(fuse_req_t fuse, enum req_op op, void (*perform)(struct req *),
			  fuse_ino_t parent, const char *name)
{
	struct req *req = op_begin(fuse, op, perform, parent, NULL);

	if (req)
		req->name = xstrdup(name);
	return req;
}

/* Files of a sandbox that is gone are stale; those of .sbxfs and the top are not about one. */
bool op_stale(const struct node *node)
{
	return node->vm && vm_gone(node->vm);
}

void op_finish(struct req *req, int r)
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

int op_refuse(struct node *node, const char *operation, const char *name, int code,
	      const char *sentence)
{
	struct err err;

	err_set(&err, code, "%s", sentence);
	return req_fail(node, operation, name, &err);
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
