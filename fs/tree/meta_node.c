/* .sbxfs/: about the mount itself. */
#include <errno.h>
#include <string.h>

#include "buf.h"
#include "dirbuf.h"
#include "fleet.h"
#include "metrics_node.h"
#include "readme.h"
#include "text.h"
#include "tree_internal.h"

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

static const struct entry {
	const char *name;
	const struct node_ops *ops;
} entries[] = {
	{ "events", &events_ops },
	{ "new", &new_ops },
	{ "by-tag", &by_tag_ops },
	{ "trash", &trash_ops },
};

static int meta_lookup(struct node *dir, const char *name, struct node **child)
{
	for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++)
		if (!strcmp(entries[i].name, name)) {
			*child = node_get(dir, name, entries[i].ops, NULL, NULL);
			return 0;
		}
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (!strcmp(texts[i].name, name)) {
			*child = text_node_get(dir, &texts[i]);
			return 0;
		}
	return -ENOENT;
}

static int meta_list(struct node *dir, struct dirbuf *out)
{
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		dirbuf_add(out, texts[i].name, S_IFREG);
	for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++)
		dirbuf_add(out, entries[i].name, entries[i].ops->mode & S_IFMT);
	return 0;
}

const struct node_ops meta_ops = {
	.kind = "meta", .mode = S_IFDIR | 0555, .lookup_now = meta_lookup, .list = meta_list,
};
