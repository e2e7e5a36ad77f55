/* .sbxfs/new/: mkdir makes a draft, its files are its values, mv to the top makes the sandbox. */
#include <errno.h>
#include <linux/fs.h>
#include <string.h>

#include "buf.h"
#include "dirbuf.h"
#include "draft.h"
#include "err.h"
#include "fleet.h"
#include "scratch.h"
#include "text.h"
#include "tree_internal.h"

/* --- a draft ----------------------------------------------------------------------- */

/* The draft that a file, or the folder itself, is of; NULL when it has gone. */
static struct draft *draft_of(const struct node *folder)
{
	return node_attached(folder) ? draft_find(folder->tree->fleet, folder->name) : NULL;
}

static void value_print_key(struct node *node, struct buf *out)
{
	struct draft *d = draft_of(node->parent);

	if (d)
		draft_print(d, node->name, out);
}

static int value_store_key(struct node *node, const char *value, struct err *err)
{
	struct draft *d = draft_of(node->parent);

	return d ? draft_set(d, node->name, value, err) :
		   err_set(err, -ESTALE, "the draft is gone");
}

static const struct text_file one_line = { "", &text_rw_ops, value_print_key, value_store_key,
					   TEXT_VALUE };
static const struct text_file lines = { "", &text_rw_ops, value_print_key, value_store_key,
					TEXT_LINES };

struct search {
	const char *key;
	const struct text_file *file;
};

static void look_at_key(void *user, const char *key, bool has_lines)
{
	struct search *s = user;

	if (!strcmp(s->key, key))
		s->file = has_lines ? &lines : &one_line;
}

static int draft_lookup(struct node *dir, const char *name, struct node **child)
{
	struct draft *d = draft_of(dir);
	struct search s = { name, NULL };

	if (!d)
		return -ESTALE;
	draft_keys(d, look_at_key, &s);
	if (!s.file)
		return scratch_lookup(dir, name, child);
	*child = text_node_named(dir, name, s.file);
	return 0;
}

static void list_key(void *user, const char *key, bool has_lines)
{
	dirbuf_add(user, key, S_IFREG);
}

static int draft_list(struct node *dir, struct dirbuf *out)
{
	struct draft *d = draft_of(dir);

	if (!d)
		return -ESTALE;
	draft_keys(d, list_key, out);
	scratch_list(dir, out);
	return 0;
}

static int draft_stat(struct node *dir, struct stat *st)
{
	struct draft *d = draft_of(dir);

	if (d)
		st->st_mtim.tv_sec = draft_changed(d) / 1000;
	return 0;
}

static const struct node_ops draft_ops = {
	.kind = "draft", .mode = S_IFDIR | 0755, .stat = draft_stat,
	.lookup_now = draft_lookup, .list = draft_list,
	.create = scratch_create, .unlink = scratch_unlink, .rename = scratch_rename,
};

/* --- new/ ------------------------------------------------------------------------------ */

static int new_lookup(struct node *dir, const char *name, struct node **child)
{
	if (!draft_find(dir->tree->fleet, name))
		return -ENOENT;
	*child = node_get(dir, name, &draft_ops, NULL, NULL);
	return 0;
}

static void list_draft(void *user, struct draft *d)
{
	dirbuf_add(user, draft_name(d), S_IFDIR);
}

static int new_list(struct node *dir, struct dirbuf *out)
{
	draft_each(dir->tree->fleet, list_draft, out);
	return 0;
}

static int new_mkdir(struct req *req, struct node *dir, const char *name, mode_t mode)
{
	struct err err = ERR_NONE;
	struct node *child;
	struct stat st;

	if (draft_create(dir->tree->fleet, name, &err) < 0)
		return req_fail(dir, "mkdir", name, &err);
	child = node_get(dir, name, &draft_ops, NULL, NULL);
	node_stat_init(child, &st);
	req_reply_entry(req, child, &st, 0);
	node_unref(child);
	return 0;
}

static void detach(struct node *dir, const char *name)
{
	struct node *node = node_find(dir, name);

	if (node)
		node_detach(node);
}

static int new_rmdir(struct req *req, struct node *dir, const char *name)
{
	struct draft *d = draft_find(dir->tree->fleet, name);

	if (!d)
		return -ENOENT;
	draft_remove(d);
	detach(dir, name);
	req_reply_err(req, 0);
	return 0;
}

static int new_rename(struct req *req, struct node *dir, const char *name,
		      struct node *newdir, const char *newname, unsigned flags)
{
	struct draft *d = draft_find(dir->tree->fleet, name);
	struct node *node = node_find(dir, name);
	struct err err = ERR_NONE;

	if (!d)
		return -ENOENT;
	if (flags & ~(unsigned)RENAME_NOREPLACE)
		return -EINVAL;
	if (newdir->ops == &root_ops)
		draft_make(d, newname, &err);
	else if (newdir == dir)
		draft_rename(d, newname, &err);
	else
		err_set(&err, -EPERM, "a draft goes to the top folder, where it becomes a sandbox");
	if (err.code)
		return req_fail(dir, "rename", name, &err);
	if (newdir == dir && node)
		node_move(node, dir, newname);
	else
		detach(dir, name);
	req_reply_err(req, 0);
	return 0;
}

const struct node_ops new_ops = {
	.kind = "new", .mode = S_IFDIR | 0755, .lookup_now = new_lookup, .list = new_list,
	.mkdir = new_mkdir, .rmdir = new_rmdir, .rename = new_rename, .renames_out = true,
};
