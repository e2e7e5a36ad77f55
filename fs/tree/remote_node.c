/*
 * root/: the names on a VM's disk. An op turns a node into what fs/disk knows
 * it by (an entry), makes one call, and replies when that is answered; what
 * was seen less than a second ago is answered from there at once.
 *
 * `root` itself is answered from memory, whatever the network does.
 *
 * Timeouts. Attributes are left to the kernel for at most a second. Names are lent to it for
 * as long, where it can be told in one word that it shall ask for all of them again
 * (mount.c), and only while no job runs: before one starts, all are called back (lend.c
 * of fs/vm). Elsewhere names are never left to it; the answers come from memory for as long as
 * they hold. So the end of a command, which makes everything be checked again, needs no
 * further word.
 */
#include "remote_node.h"

#include <errno.h>
#include <linux/fs.h>
#include <string.h>
#include <time.h>

#include "buf.h"
#include "err.h"
#include "remote_internal.h"

static const struct node_ops dir_ops, file_ops, link_ops, fifo_ops, socket_ops, char_ops, block_ops;

/* --- helpers -------------------------------------------------------------------- */

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

static bool is_root(const struct node *node)
{
	return !node->priv;
}

struct entry *remote_entry(const struct node *node, struct disk *disk)
{
	return is_root(node) ? disk_root(disk) : node->priv;
}

static const struct node_ops *ops_of(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return &dir_ops;
	case S_IFLNK:
		return &link_ops;
	case S_IFIFO:
		return &fifo_ops;
	case S_IFSOCK:
		return &socket_ops;
	case S_IFCHR:
		return &char_ops;
	case S_IFBLK:
		return &block_ops;
	default:
		return &file_ops;
	}
}

static bool is_remote(const struct node *node)
{
	return node->ops == ops_of(node->ops->mode);
}

struct node *remote_child(struct node *dir, const char *name, struct entry *e, mode_t mode)
{
	struct node *node = node_find(dir, name);

	/* The disk knows it as another file than we did. */
	if (node && node->priv != e)
		node_detach(node);
	node = node_get(dir, name, ops_of(mode), dir->vm, NULL);
	if (!node->priv)
		node->priv = entry_ref(e);
	return node;
}

static void remote_free(struct node *node)
{
	entry_unref(node->priv);
}

double remote_stat(const struct node *node, struct stat *st)
{
	st->st_ino = entry_number(node->priv, node->ino);
	return entry_tell(node->priv, st);
}

double remote_lend(const struct node *node, double held)
{
	struct disk *disk;

	return vm_disk(node->vm, &disk) == 0 ? disk_lend(disk, held) : 0;
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

/* The first line of a done: the call is over. Returns the error that was replied. */
static int answered(struct req *req, int error)
{
	req_release(req);
	if (error)
		remote_fail(req, error);
	return error;
}

/* --- lookup and attributes ----------------------------------------------------------- */

static void reply_entry(struct req *req, struct node *dir, struct entry *e, struct stat st)
{
	struct node *node = remote_child(dir, req->name, e, st.st_mode);
	double timeout = remote_stat(node, &st);

	req->name_timeout = remote_lend(dir, timeout);
	req_reply_entry(req, node, &st, timeout);
	node_unref(node);
}

/* The guest has removed it, or put something else there: it gets a number of its own. */
static void forget_missing(struct node *dir, const char *name)
{
	struct node *node = node_find(dir, name);

	if (node && node->priv && !entry_attached(node->priv))
		node_detach(node);
}

static void lookup_done(void *user, int error, const struct disk_answer *a)
{
	struct req *req = user;

	if (error)
		forget_missing(req->node, req->name);
	if (answered(req, error) == 0)
		reply_entry(req, req->node, a->entry, a->st);
}

static int remote_lookup(struct req *req, struct node *dir, const char *name)
{
	struct disk_call *call;
	struct entry *e;
	struct disk *disk;
	struct stat st;
	int r;

	if (remote_disk(req, dir, &disk, &r))
		return r;
	r = disk_lookup_now(remote_entry(dir, disk), name, &e, &st);
	if (r > 0) {
		reply_entry(req, dir, e, st);
		return 0;
	}
	if (r < 0) {
		forget_missing(dir, name);
		req->name_timeout = disk_lend(disk, disk_names_hold(remote_entry(dir, disk)));
		req_reply_missing(req);
		return 0;
	}
	r = disk_lookup(disk, remote_entry(dir, disk), name, lookup_done, req, &call);
	return remote_hold(req, "lookup", call, r);
}

static void attr_done(void *user, int error, const struct disk_answer *a)
{
	struct req *req = user;
	struct stat st = a->st;
	double timeout;

	if (answered(req, error))
		return;
	timeout = remote_stat(req->node, &st);
	req_reply_attr(req, &st, timeout);
}

static struct file *file_of_handle(const struct node *node, const struct handle *h)
{
	return h && S_ISREG(node->ops->mode) ? h->priv : NULL;
}

static int remote_getattr(struct req *req, struct node *node, struct handle *h)
{
	struct disk_call *call;
	struct disk *disk;
	struct stat st;
	int r;

	if (is_root(node)) {
		node_stat_init(node, &st);
		req_reply_attr(req, &st, 0);
		return 0;
	}
	if (remote_disk(req, node, &disk, &r))
		return r;
	if (entry_fresh(node->priv, &st)) {
		double timeout = remote_stat(node, &st);

		req_reply_attr(req, &st, timeout);
		return 0;
	}
	r = disk_getattr(disk, node->priv, file_of_handle(node, h), attr_done, req, &call);
	/* Somebody is in a folder that was removed. */
	if (r == -ESTALE && S_ISDIR(node->ops->mode) && entry_last(node->priv, &st)) {
		req_reply_attr(req, &st, 0);
		return 0;
	}
	return remote_hold(req, "getattr", call, r);
}

static unsigned set_of(int to_set, struct stat *st)
{
	static const struct { int fuse; unsigned disk; } bits[] = {
		{ FUSE_SET_ATTR_MODE, DISK_SET_MODE }, { FUSE_SET_ATTR_UID, DISK_SET_UID },
		{ FUSE_SET_ATTR_GID, DISK_SET_GID }, { FUSE_SET_ATTR_SIZE, DISK_SET_SIZE },
		{ FUSE_SET_ATTR_ATIME, DISK_SET_ATIME }, { FUSE_SET_ATTR_MTIME, DISK_SET_MTIME },
		{ FUSE_SET_ATTR_ATIME_NOW, DISK_SET_ATIME },
		{ FUSE_SET_ATTR_MTIME_NOW, DISK_SET_MTIME },
	};
	unsigned set = 0;

	for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
		if (to_set & bits[i].fuse)
			set |= bits[i].disk;
	if (to_set & FUSE_SET_ATTR_ATIME_NOW)
		st->st_atime = time(NULL);
	if (to_set & FUSE_SET_ATTR_MTIME_NOW)
		st->st_mtime = time(NULL);
	return set;
}

static int remote_setattr(struct req *req, struct node *node, struct handle *h,
			  const struct stat *attr, int to_set)
{
	struct disk_call *call;
	struct stat st = *attr, known;
	unsigned set = set_of(to_set, &st);
	struct disk *disk;
	int r;

	if (is_root(node))
		return -EPERM;
	if (!set)
		return remote_getattr(req, node, h);
	if (remote_disk(req, node, &disk, &r))
		return r;
	vm_used(node->vm);
	if (disk_setattr_now(node->priv, &st, set, &known)) {
		req_reply_attr(req, &known, remote_stat(node, &known));
		return 0;
	}
	r = disk_setattr(disk, node->priv, file_of_handle(node, h), &st, set, attr_done, req,
			 &call);
	return remote_hold(req, "setattr", call, r);
}

static void readlink_done(void *user, int error, const struct disk_answer *a)
{
	struct req *req = user;

	if (answered(req, error) == 0)
		req_reply_readlink(req, a->text);
}

static int remote_readlink(struct req *req, struct node *node)
{
	struct disk_call *call;
	struct disk *disk;
	const char *text;
	int r;

	if (remote_disk(req, node, &disk, &r))
		return r;
	if (disk_readlink_now(node->priv, &text)) {
		req_reply_readlink(req, text);
		return 0;
	}
	r = disk_readlink(disk, node->priv, readlink_done, req, &call);
	return remote_hold(req, "readlink", call, r);
}

static void statfs_done(void *user, int error, const struct disk_answer *a)
{
	struct req *req = user;

	if (answered(req, error) == 0)
		req_reply_statfs(req, &a->vfs);
}

/* df must not wait for a sandbox: what cannot be asked now has no figures. */
static int remote_statfs(struct req *req, struct node *node)
{
	static const struct statvfs unknown = {
		.f_bsize = 4096, .f_frsize = 4096, .f_namemax = 255,
	};
	struct disk_call *call;
	struct disk *disk;
	int r = vm_disk(node->vm, &disk);

	if (r == 0)
		r = disk_statfs(disk, remote_entry(node, disk), statfs_done, req, &call);
	if (r < 0) {
		req_reply_statfs(req, &unknown);
		return 0;
	}
	return remote_hold(req, "statfs", call, r);
}

/* --- making ------------------------------------------------------------------------------ */

/* What was made has req->name in the folder dir. */
static void made(struct req *req, struct node *dir, int error, const struct disk_answer *a)
{
	if (answered(req, error) == 0)
		reply_entry(req, dir, a->entry, a->st);
}

static void made_done(void *user, int error, const struct disk_answer *a)
{
	struct req *req = user;

	made(req, req->node, error, a);
}

static void link_done(void *user, int error, const struct disk_answer *a)
{
	struct req *req = user;

	if (error == 0)
		vm_recall_names(req->node2->vm);
	made(req, req->node2, error, a);
}

static int remote_mkdir(struct req *req, struct node *dir, const char *name, mode_t mode)
{
	struct disk_call *call;
	struct disk *disk;
	int r;

	if (remote_disk(req, dir, &disk, &r))
		return r;
	vm_used(dir->vm);
	r = disk_mkdir(disk, remote_entry(dir, disk), name, mode, made_done, req, &call);
	return remote_hold(req, "mkdir", call, r);
}

static int remote_mknod(struct req *req, struct node *dir, const char *name, mode_t mode)
{
	struct disk_call *call;
	struct disk *disk;
	int r;

	if ((mode & S_IFMT) && !S_ISREG(mode))
		return -EPERM;		/* the protocol has no devices, pipes and sockets */
	if (remote_disk(req, dir, &disk, &r))
		return r;
	vm_used(dir->vm);
	r = disk_mknod(disk, remote_entry(dir, disk), name, mode, made_done, req, &call);
	return remote_hold(req, "mknod", call, r);
}

static int remote_symlink(struct req *req, struct node *dir, const char *name, const char *text)
{
	struct disk_call *call;
	struct disk *disk;
	int r;

	if (remote_disk(req, dir, &disk, &r))
		return r;
	vm_used(dir->vm);
	r = disk_symlink(disk, remote_entry(dir, disk), name, text, made_done, req, &call);
	return remote_hold(req, "symlink", call, r);
}

static int remote_link(struct req *req, struct node *src, struct node *dir, const char *name)
{
	struct disk_call *call;
	struct disk *disk;
	int r;

	if (!is_remote(src) || is_root(src) || src->vm != dir->vm)
		return -EXDEV;
	if (remote_disk(req, dir, &disk, &r))
		return r;
	vm_used(dir->vm);
	r = disk_link(disk, src->priv, remote_entry(dir, disk), name, link_done, req, &call);
	return remote_hold(req, "link", call, r);
}

/* --- removing and renaming ----------------------------------------------------------------- */

static void removed_done(void *user, int error, const struct disk_answer *a)
{
	struct req *req = user;
	struct node *node = error ? NULL : node_find(req->node, req->name);

	if (node)
		node_detach(node);
	if (answered(req, error) == 0)
		req_reply_err(req, 0);
}

static int remote_unlink(struct req *req, struct node *dir, const char *name)
{
	struct disk_call *call;
	struct disk *disk;
	int r;

	if (remote_disk(req, dir, &disk, &r))
		return r;
	vm_used(dir->vm);
	r = disk_unlink(disk, remote_entry(dir, disk), name, removed_done, req, &call);
	return remote_hold(req, "unlink", call, r);
}

static int remote_rmdir(struct req *req, struct node *dir, const char *name)
{
	struct disk_call *call;
	struct disk *disk;
	int r;

	if (remote_disk(req, dir, &disk, &r))
		return r;
	vm_used(dir->vm);
	r = disk_rmdir(disk, remote_entry(dir, disk), name, removed_done, req, &call);
	return remote_hold(req, "rmdir", call, r);
}

static void renamed_done(void *user, int error, const struct disk_answer *a)
{
	struct req *req = user;
	struct node *node, *there;

	if (error == 0) {
		node = node_find(req->node, req->name);
		there = node_find(req->node2, req->name2);
		if (there && there != node)
			node_detach(there);
		if (node)
			node_move(node, req->node2, req->name2);
	}
	if (answered(req, error) == 0)
		req_reply_err(req, 0);
}

static int remote_rename(struct req *req, struct node *dir, const char *name, struct node *newdir,
			 const char *newname, unsigned flags)
{
	struct disk_call *call;
	struct disk *disk;
	int r;

	if (flags & ~(unsigned)RENAME_NOREPLACE)
		return -EINVAL;
	if (dir->vm != newdir->vm)
		return -EXDEV;
	if (remote_disk(req, dir, &disk, &r))
		return r;
	vm_used(dir->vm);
	r = disk_rename(disk, remote_entry(dir, disk), name, remote_entry(newdir, disk), newname,
			flags & RENAME_NOREPLACE, renamed_done, req, &call);
	return remote_hold(req, "rename", call, r);
}

/* --- the kinds: one a file type, for the type of a node never changes ------------------------ */

static const struct node_ops dir_ops = {
	.kind = "remote folder",
	.mode = S_IFDIR | 0755,
	.lent = true,		/* root itself; of those in it remote_lend decides */
	.getattr = remote_getattr,
	.setattr = remote_setattr,
	.lookup = remote_lookup,
	.mkdir = remote_mkdir,
	.rmdir = remote_rmdir,
	.unlink = remote_unlink,
	.rename = remote_rename,
	.create = remote_create,
	.mknod = remote_mknod,
	.symlink = remote_symlink,
	.link = remote_link,
	.statfs = remote_statfs,
	.opendir = remote_opendir,
	.readdir = remote_readdir,
	.release = remote_releasedir,
	.free = remote_free,
};

static const struct node_ops file_ops = {
	.kind = "remote file",
	.mode = S_IFREG | 0644,
	.getattr = remote_getattr,
	.setattr = remote_setattr,
	.statfs = remote_statfs,
	.open = remote_open,
	.read = remote_read,
	.write = remote_write,
	.copy_range = remote_copy,
	.flush = remote_flush,
	.fsync = remote_fsync,
	.release = remote_release,
	.free = remote_free,
};

static const struct node_ops link_ops = {
	.kind = "remote link",
	.mode = S_IFLNK | 0777,
	.getattr = remote_getattr,
	.setattr = remote_setattr,
	.readlink = remote_readlink,
	.statfs = remote_statfs,
	.free = remote_free,
};

/* Shown as they are; the host's kernel opens none of them (nodev), and pipes are its own. */
#define SPECIAL_OPS(name, type)						\
	static const struct node_ops name = {				\
		.kind = "remote special file",				\
		.mode = type | 0600,					\
		.getattr = remote_getattr,				\
		.setattr = remote_setattr,				\
		.statfs = remote_statfs,				\
		.free = remote_free,					\
	}
SPECIAL_OPS(fifo_ops, S_IFIFO);
SPECIAL_OPS(socket_ops, S_IFSOCK);
SPECIAL_OPS(char_ops, S_IFCHR);
SPECIAL_OPS(block_ops, S_IFBLK);

struct node *remote_root_get(struct node *vm_node)
{
	return node_get(vm_node, "root", &dir_ops, vm_node->vm, NULL);
}
