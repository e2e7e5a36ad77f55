/* .sbxfs/trash/NAME@TIME: mv out of it brings a sandbox back, rmdir in it is for good. */
#include <errno.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>

#include "dirbuf.h"
#include "err.h"
#include "fleet.h"
#include "tree_internal.h"
#include "vm.h"

static int trash_lookup(struct node *dir, const char *name, struct node **child)
{
	struct vm *vm = fleet_trash_find(dir->tree->fleet, name);

	if (!vm)
		return -ENOENT;
	*child = node_get(dir, name, &vm_ops, vm, NULL);
	return 0;
}

static void list_vm(void *user, struct vm *vm)
{
	char name[96];

	vm_trash_name(vm, name);
	dirbuf_add(user, name, S_IFDIR);
}

static int trash_list(struct node *dir, struct dirbuf *out)
{
	fleet_trash_each(dir->tree->fleet, list_vm, out);
	return 0;
}

static int trash_rmdir(struct req *req, struct node *dir, const char *name)
{
	struct vm *vm = fleet_trash_find(dir->tree->fleet, name);
	struct err err = ERR_NONE;

	if (!vm)
		return -ENOENT;
	if (guard_refused_all(req, vm, &err) || fleet_destroy(vm, &err) < 0)
		return req_fail(dir, "rmdir", name, &err);
	req_reply_err(req, 0);
	return 0;
}

static int trash_rename(struct req *req, struct node *dir, const char *name,
			struct node *newdir, const char *newname, unsigned flags)
{
	struct vm *vm = fleet_trash_find(dir->tree->fleet, name);
	struct node *node = node_find(dir, name);
	struct err err = ERR_NONE;
	char as[64];

	if (!vm)
		return -ENOENT;
	if (flags & ~(unsigned)RENAME_NOREPLACE)
		return -EINVAL;
	/* `mv .sbxfs/trash/web@... .` brings back web. */
	snprintf(as, sizeof(as), "%s", strcmp(newname, name) ? newname : vm_name(vm));
	if (newdir->ops != &root_ops)
		err_set(&err, -EPERM, "out of the trash a sandbox goes to the top folder only");
	else if (strlen(newname) >= sizeof(as))
		err_set(&err, -ENAMETOOLONG, "a sandbox's name has at most 63 characters");
	else
		fleet_restore(vm, as, &err);
	if (err.code)
		return req_fail(dir, "rename", name, &err);
	if (node)
		node_move(node, newdir, as);
	req_reply_err(req, 0);
	return 0;
}

const struct node_ops trash_ops = {
	.kind = "trash", .mode = S_IFDIR | 0755, .lookup_now = trash_lookup, .list = trash_list,
	.rmdir = trash_rmdir, .rename = trash_rename, .renames_out = true,
};
