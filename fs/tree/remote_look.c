/*
 * root/: names and attributes on a VM's disk. What was seen less than a second ago is answered from
 * there at once.
 *
 * Timeouts. Attributes are left to the kernel for at most a second. Names are lent to it for
 * as long, where it can be told in one word that it shall ask for all of them again
 * (mount.c), and only while no job runs: before one starts, all are called back (lend.c
 * of fs/vm). Elsewhere names are never left to it; the answers come from memory for as long as
 * they hold. So the end of a command, which makes everything be checked again, needs no
 * further word.
 */
#include "remote_internal.h"

#include <errno.h>
#include <time.h>

#include "buf.h"

void remote_reply_entry(struct req *req, struct node *dir, struct entry *e, struct stat st)
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

static void found(struct req *req, struct node *dir, struct entry *e, const struct stat *st)
{
	if (!pages_wait(req, node_find(dir, req->name), e, st))
		remote_reply_entry(req, dir, e, *st);
}

static void lookup_done(void *user, int error, const struct disk_answer *a)
{
	struct req *req = user;

	if (error)
		forget_missing(req->node, req->name);
	if (remote_answered(req, error) == 0)
		found(req, req->node, a->entry, &a->st);
}

int remote_lookup(struct req *req, struct node *dir, const char *name)
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
		found(req, dir, e, &st);
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

static void reply_attr(struct req *req, struct node *node, struct stat st)
{
	double timeout = remote_stat(node, &st);

	req_reply_attr(req, &st, timeout);
}

static void tell(struct req *req, struct node *node, const struct stat *st)
{
	if (!pages_wait(req, node, node->priv, st))
		reply_attr(req, node, *st);
}

static void attr_done(void *user, int error, const struct disk_answer *a)
{
	struct req *req = user;

	if (remote_answered(req, error) == 0)
		tell(req, req->node, &a->st);
}

static struct file *file_of_handle(const struct node *node, const struct handle *h)
{
	return h && S_ISREG(node->ops->mode) ? h->priv : NULL;
}

int remote_getattr(struct req *req, struct node *node, struct handle *h)
{
	struct disk_call *call;
	struct disk *disk;
	struct stat st;
	int r;

	if (remote_is_root(node)) {
		node_stat_init(node, &st);
		req_reply_attr(req, &st, 0);
		return 0;
	}
	if (remote_disk(req, node, &disk, &r))
		return r;
	if (entry_fresh(node->priv, &st)) {
		tell(req, node, &st);
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

static void set_done(void *user, int error, const struct disk_answer *a)
{
	struct req *req = user;

	if (remote_answered(req, error) == 0)
		reply_attr(req, req->node, a->st);
}

int remote_setattr(struct req *req, struct node *node, struct handle *h,
			  const struct stat *attr, int to_set)
{
	struct disk_call *call;
	struct stat st = *attr, known;
	unsigned set = set_of(to_set, &st);
	struct disk *disk;
	int r;

	if (remote_is_root(node))
		return -EPERM;
	if (!set)
		return remote_getattr(req, node, h);
	if (remote_disk(req, node, &disk, &r))
		return r;
	vm_used(node->vm);
	if (disk_setattr_now(node->priv, &st, set, &known)) {
		reply_attr(req, node, known);
		return 0;
	}
	r = disk_setattr(disk, node->priv, file_of_handle(node, h), &st, set, set_done, req,
			 &call);
	return remote_hold(req, "setattr", call, r);
}

static void readlink_done(void *user, int error, const struct disk_answer *a)
{
	struct req *req = user;

	if (remote_answered(req, error) == 0)
		req_reply_readlink(req, a->text);
}

int remote_readlink(struct req *req, struct node *node)
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

	if (remote_answered(req, error) == 0)
		req_reply_statfs(req, &a->vfs);
}

/* df must not wait for a sandbox: what cannot be asked now has no figures. */
int remote_statfs(struct req *req, struct node *node)
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
