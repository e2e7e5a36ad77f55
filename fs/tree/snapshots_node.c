/*
 * NAME/snapshots/: mkdir takes one, rmdir drops it. A snapshot shows as an empty
 * folder: its time is when it was taken, its size what it takes on the host.
 */
#include <errno.h>
#include <string.h>

#include "dirbuf.h"
#include "err.h"
#include "tree_internal.h"
#include "vm.h"

static int snapshot_stat(struct node *node, struct stat *st)
{
	struct vm_snapshot s;

	if (!vm_snapshot_find(node->vm, node->name, &s))
		return -ESTALE;
	st->st_size = (off_t)s.size;
	st->st_blocks = (blkcnt_t)((s.size + 511) / 512);
	st->st_mtim.tv_sec = s.taken / 1000;
	st->st_mtim.tv_nsec = s.taken % 1000 * 1000000;
	st->st_atim = st->st_ctim = st->st_mtim;
	return 0;
}

static int snapshot_list(struct node *dir, struct dirbuf *out)
{
	return 0;
}

static const struct node_ops snapshot_ops = {
	.kind = "snapshot", .mode = S_IFDIR | 0555, .stat = snapshot_stat, .list = snapshot_list,
};

static int snapshots_lookup(struct node *dir, const char *name, struct node **child)
{
	struct vm_snapshot s;

	if (!vm_snapshot_find(dir->vm, name, &s))
		return -ENOENT;
	*child = node_get(dir, name, &snapshot_ops, dir->vm, NULL);
	return 0;
}

static void list_one(void *user, const struct vm_snapshot *s)
{
	dirbuf_add(user, s->name, S_IFDIR);
}

static int snapshots_list(struct node *dir, struct dirbuf *out)
{
	vm_snapshots_each(dir->vm, list_one, out);
	return 0;
}

static int snapshots_mkdir(struct req *req, struct node *dir, const char *name, mode_t mode)
{
	struct err err = ERR_NONE;
	struct node *child;
	struct stat st;

	if (vm_snapshot_take(dir->vm, name, &err) < 0)
		return req_fail(dir, "mkdir", name, &err);
	child = node_get(dir, name, &snapshot_ops, dir->vm, NULL);
	node_stat_init(child, &st);
	snapshot_stat(child, &st);
	req_reply_entry(req, child, &st, 0);
	node_unref(child);
	return 0;
}

static int snapshots_rmdir(struct req *req, struct node *dir, const char *name)
{
	struct node *node = node_find(dir, name);
	struct err err = ERR_NONE;

	if (vm_snapshot_drop(dir->vm, name, &err) < 0)
		return req_fail(dir, "rmdir", name, &err);
	if (node)
		node_detach(node);
	req_reply_err(req, 0);
	return 0;
}

const struct node_ops snapshots_ops = {
	.kind = "snapshots", .mode = S_IFDIR | 0755, .lookup_now = snapshots_lookup,
	.list = snapshots_list, .mkdir = snapshots_mkdir, .rmdir = snapshots_rmdir,
};
