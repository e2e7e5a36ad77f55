/* root/: making, removing and renaming names on a VM's disk. Each costs one round trip. */
#include "remote_internal.h"

#include <errno.h>
#include <linux/fs.h>

/* --- making ------------------------------------------------------------------------------ */

/* What was made has req->name in the folder dir. */
static void made(struct req *req, struct node *dir, int error, const struct disk_answer *a)
{
	if (remote_answered(req, error) == 0)
		remote_reply_entry(req, dir, a->entry, a->st);
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

int remote_mkdir(struct req *req, struct node *dir, const char *name, mode_t mode)
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

int remote_mknod(struct req *req, struct node *dir, const char *name, mode_t mode)
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

int remote_symlink(struct req *req, struct node *dir, const char *name, const char *text)
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

int remote_link(struct req *req, struct node *src, struct node *dir, const char *name)
{
	struct disk_call *call;
	struct disk *disk;
	int r;

	if (!remote_is(src) || remote_is_root(src) || src->vm != dir->vm)
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
	if (remote_answered(req, error) == 0)
		req_reply_err(req, 0);
}

int remote_unlink(struct req *req, struct node *dir, const char *name)
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

int remote_rmdir(struct req *req, struct node *dir, const char *name)
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
	if (remote_answered(req, error) == 0)
		req_reply_err(req, 0);
}

int remote_rename(struct req *req, struct node *dir, const char *name, struct node *newdir,
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
