/* The top folder: mkdir creates a sandbox, mv renames it, rmdir removes it. */
#include <errno.h>
#include <linux/fs.h>
#include <string.h>

#include "buf.h"
#include "dirbuf.h"
#include "err.h"
#include "fleet.h"
#include "tree_internal.h"
#include "vm.h"

/* --- the top ------------------------------------------------------------------------- */

static int root_lookup(struct node *root, const char *name, struct node **child)
{
	struct vm *vm;

	if (!strcmp(name, ".sbxfs")) {
		*child = node_get(root, name, &meta_ops, NULL, NULL);
		return 0;
	}
	vm = fleet_find(root->tree->fleet, name);
	if (!vm)
		return -ENOENT;
	*child = node_get(root, name, &vm_ops, vm, NULL);
	return 0;
}

static void list_vm(void *user, struct vm *vm)
{
	dirbuf_add(user, vm_name(vm), S_IFDIR);
}

/* .sbxfs is not listed: `ls` and `*` show sandboxes only. */
static int root_list(struct node *root, struct dirbuf *out)
{
	fleet_each(root->tree->fleet, list_vm, out);
	return 0;
}

static int root_stat(struct node *root, struct stat *st)
{
	int64_t ms = fleet_changed(root->tree->fleet);

	st->st_nlink = 2 + fleet_count(root->tree->fleet);
	st->st_mtim.tv_sec = ms / 1000;
	st->st_mtim.tv_nsec = ms % 1000 * 1000000;
	st->st_ctim = st->st_mtim;
	return 0;
}

static int root_mkdir(struct req *req, struct node *root, const char *name, mode_t mode)
{
	struct err err = ERR_NONE;
	struct node *child;
	struct stat st;

	if (fleet_create(root->tree->fleet, name, &err) < 0) {
		fleet_note_error(root->tree->fleet, "mkdir", name, &err);
		return err.code;
	}
	child = node_get(root, name, &vm_ops, fleet_find(root->tree->fleet, name), NULL);
	node_stat_init(child, &st);
	req_reply_entry(req, child, &st, 0);
	node_unref(child);
	return 0;
}

static int root_rmdir(struct req *req, struct node *root, const char *name)
{
	struct vm *vm = fleet_find(root->tree->fleet, name);
	struct node *node = node_find(root, name);
	struct err err = ERR_NONE;

	if (!vm)
		return -ENOENT;
	if (guard_refused_all(req, vm, &err) || fleet_destroy(vm, &err) < 0) {
		vm_set_error(vm, "rmdir", "", &err);
		return err.code;
	}
	/* What is open in it goes on to show it, in the trash. */
	if (node && !fleet_find(root->tree->fleet, name))
		node_detach(node);
	req_reply_err(req, 0);
	return 0;
}

/* The node goes along: what is open in it stays what it is. */
static int root_rename(struct req *req, struct node *root, const char *name,
		       struct node *newdir, const char *newname, unsigned flags)
{
	struct vm *vm = fleet_find(root->tree->fleet, name);
	struct node *node = node_find(root, name);
	struct err err = ERR_NONE;

	if (!vm)
		return -ENOENT;
	if (flags & ~(unsigned)RENAME_NOREPLACE)
		return -EINVAL;
	if (newdir != root)
		err_set(&err, -EPERM, "a sandbox stays in the top folder of the mount");
	else
		fleet_rename(vm, newname, &err);
	if (err.code) {
		vm_set_error(vm, "rename", "", &err);
		return err.code;
	}
	if (node)
		node_move(node, root, newname);
	req_reply_err(req, 0);
	return 0;
}

const struct node_ops root_ops = {
	.kind = "root", .mode = S_IFDIR | 0755,
	.stat = root_stat, .lookup_now = root_lookup, .list = root_list,
	.mkdir = root_mkdir, .rmdir = root_rmdir, .rename = root_rename, .renames_out = true,
};
