/* The top folder: mkdir creates a sandbox, rmdir destroys it. And .sbxfs/. */
#include <errno.h>
#include <linux/fs.h>
#include <string.h>

#include "buf.h"
#include "dirbuf.h"
#include "err.h"
#include "fleet.h"
#include "metrics_node.h"
#include "readme.h"
#include "text.h"
#include "tree_internal.h"
#include "vm.h"

/* --- .sbxfs/ ---------------------------------------------------------------------- */

static void readme_print(struct node *node, struct buf *out)
{
	buf_printf(out, "%s", readme_mount);
}

static void version_print(struct node *node, struct buf *out)
{
	buf_printf(out, "%s\n", SBXFS_VERSION);
}

static void backends_print(struct node *node, struct buf *out)
{
	fleet_backends_print(node->tree->fleet, out);
}

static void errors_print(struct node *node, struct buf *out)
{
	fleet_errors_print(node->tree->fleet, out);
}

static void metrics_print_all(struct node *node, struct buf *out)
{
	metrics_node_print(node->tree, out);
}

static const struct text_file texts[] = {
	{ "README", &text_ro_ops, readme_print, NULL, TEXT_VALUE },
	{ "version", &text_ro_ops, version_print, NULL, TEXT_VALUE },
	{ "backends", &text_ro_ops, backends_print, NULL, TEXT_VALUE },
	{ "errors", &text_ro_ops, errors_print, NULL, TEXT_VALUE },
	{ "metrics", &text_ro_ops, metrics_print_all, NULL, TEXT_VALUE },
};

static int meta_lookup(struct node *dir, const char *name, struct node **child)
{
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (!strcmp(texts[i].name, name)) {
			*child = text_node_get(dir, &texts[i]);
			return 0;
		}
	if (!strcmp(name, "events")) {
		*child = node_get(dir, name, &events_ops, NULL, NULL);
		return 0;
	}
	return -ENOENT;
}

static int meta_list(struct node *dir, struct dirbuf *out)
{
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		dirbuf_add(out, texts[i].name, S_IFREG);
	dirbuf_add(out, "events", S_IFREG);
	return 0;
}

const struct node_ops meta_ops = {
	.kind = "meta", .mode = S_IFDIR | 0555, .lookup_now = meta_lookup, .list = meta_list,
};

/* --- the top ------------------------------------------------------------------------- */

static struct node *vm_node_get(struct node *root, struct vm *vm)
{
	return node_get(root, vm_name(vm), &vm_ops, vm, NULL);
}

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
	*child = vm_node_get(root, vm);
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
	child = vm_node_get(root, fleet_find(root->tree->fleet, name));
	node_stat_init(child, &st);
	req_reply_entry(req, child, &st, 0);
	node_unref(child);
	return 0;
}

static int root_rmdir(struct req *req, struct node *root, const char *name)
{
	struct err err = ERR_NONE;

	if (fleet_destroy(root->tree->fleet, name, &err) < 0) {
		fleet_note_error(root->tree->fleet, "rmdir", name, &err);
		return err.code;
	}
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
		fleet_note_error(root->tree->fleet, "rename", name, &err);
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
