/* .sbxfs/by-tag/T/NAME: links to the sandboxes that have a tag. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "dirbuf.h"
#include "fleet.h"
#include "tree_internal.h"
#include "vm.h"

/* --- the links ---------------------------------------------------------------- */

/* From .sbxfs/by-tag/T/ to the top. */
static char *link_text(const struct node *node)
{
	return xasprintf("../../../%s", node->name);
}

static int link_stat(struct node *node, struct stat *st)
{
	char *text = link_text(node);

	st->st_size = (off_t)strlen(text);
	free(text);
	return 0;
}

static int link_readlink(struct req *req, struct node *node)
{
	char *text = link_text(node);

	req_reply_readlink(req, text);
	free(text);
	return 0;
}

static const struct node_ops tag_link_ops = {
	.kind = "link", .mode = S_IFLNK | 0777, .stat = link_stat, .readlink = link_readlink,
};

/* --- a tag ---------------------------------------------------------------------- */

static int tag_lookup(struct node *dir, const char *name, struct node **child)
{
	struct vm *vm = fleet_find(dir->tree->fleet, name);

	if (!vm || !vm_has_tag(vm, dir->name))
		return -ENOENT;
	*child = node_get(dir, name, &tag_link_ops, NULL, NULL);
	return 0;
}

struct listing {
	const char *tag;
	struct dirbuf *out;
};

static void list_tagged(void *user, struct vm *vm)
{
	struct listing *l = user;

	if (vm_has_tag(vm, l->tag))
		dirbuf_add(l->out, vm_name(vm), S_IFLNK);
}

static int tag_list(struct node *dir, struct dirbuf *out)
{
	struct listing l = { dir->name, out };

	fleet_each(dir->tree->fleet, list_tagged, &l);
	return 0;
}

static const struct node_ops tag_ops = {
	.kind = "tag", .mode = S_IFDIR | 0555, .lookup_now = tag_lookup, .list = tag_list,
};

/* --- all tags -------------------------------------------------------------------- */

static void add_tag(void *user, const char *tag)
{
	struct buf *seen = user;
	char *word = xasprintf("\n%s\n", tag);
	bool known;

	buf_put_u8(seen, 0);
	known = strstr((char *)buf_peek(seen), word);
	seen->len--;
	if (!known)
		buf_put(seen, word + 1, strlen(word) - 1);
	free(word);
}

static void add_tags(void *user, struct vm *vm)
{
	vm_tags_each(vm, add_tag, user);
}

/* Each tag once, a line each, behind an empty line. */
static char *all_tags(struct tree *tree)
{
	struct buf seen = BUF_INIT;

	buf_put_u8(&seen, '\n');
	fleet_each(tree->fleet, add_tags, &seen);
	return buf_take_string(&seen);
}

static int by_tag_lookup(struct node *dir, const char *name, struct node **child)
{
	char *tags = all_tags(dir->tree), *word = xasprintf("\n%s\n", name);
	bool there = strstr(tags, word);

	free(tags);
	free(word);
	if (!there || strchr(name, '\n'))
		return -ENOENT;
	*child = node_get(dir, name, &tag_ops, NULL, NULL);
	return 0;
}

static int by_tag_list(struct node *dir, struct dirbuf *out)
{
	char *tags = all_tags(dir->tree), *save = NULL;

	for (char *t = strtok_r(tags, "\n", &save); t; t = strtok_r(NULL, "\n", &save))
		dirbuf_add(out, t, S_IFDIR);
	free(tags);
	return 0;
}

const struct node_ops by_tag_ops = {
	.kind = "by-tag", .mode = S_IFDIR | 0555, .lookup_now = by_tag_lookup, .list = by_tag_list,
};
