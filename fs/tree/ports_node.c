/* NAME/ports/: mkdir 8080 makes that port of the guest reachable, 8080/url says where. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "dirbuf.h"
#include "err.h"
#include "text.h"
#include "tree_internal.h"
#include "vm.h"

/* --- a port ------------------------------------------------------------------------ */

static unsigned port_of(const struct node *dir)
{
	return (unsigned)strtoul(dir->name, NULL, 10);
}

static void url_print(struct node *node, struct buf *out)
{
	vm_port_url(node->vm, port_of(node->parent), out);
}

static void key_print(struct node *node, struct buf *out)
{
	vm_port_get(node->vm, port_of(node->parent), node->name, out);
}

static int key_store(struct node *node, const char *value, struct err *err)
{
	return vm_port_set(node->vm, port_of(node->parent), node->name, value, err);
}

static const struct text_file url = { "url", &text_ro_ops, url_print, NULL, TEXT_VALUE };
static const struct text_file key = { "", &text_rw_ops, key_print, key_store, TEXT_VALUE };

static int port_lookup(struct node *dir, const char *name, struct node **child)
{
	if (!strcmp(name, url.name)) {
		*child = text_node_get(dir, &url);
		return 0;
	}
	for (const char *const *k = vm_port_keys(dir->vm); *k; k++)
		if (!strcmp(*k, name)) {
			*child = text_node_named(dir, name, &key);
			return 0;
		}
	return -ENOENT;
}

static int port_list(struct node *dir, struct dirbuf *out)
{
	dirbuf_add(out, url.name, S_IFREG);
	for (const char *const *k = vm_port_keys(dir->vm); *k; k++)
		dirbuf_add(out, *k, S_IFREG);
	return 0;
}

static const struct node_ops port_ops = {
	.kind = "port", .mode = S_IFDIR | 0755, .lookup_now = port_lookup, .list = port_list,
};

/* --- ports/ --------------------------------------------------------------------------- */

/* Only as it is written in the listing: no leading zeros. */
static bool is_open(const struct node *dir, const char *name)
{
	unsigned long port = strtoul(name, NULL, 10);
	char text[16];

	snprintf(text, sizeof(text), "%lu", port % 100000);
	return !strcmp(text, name) && vm_has_port(dir->vm, (unsigned)port);
}

static int ports_lookup(struct node *dir, const char *name, struct node **child)
{
	if (!is_open(dir, name))
		return -ENOENT;
	*child = node_get(dir, name, &port_ops, dir->vm, NULL);
	return 0;
}

static void list_port(void *user, unsigned port)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", port);
	dirbuf_add(user, text, S_IFDIR);
}

static int ports_list(struct node *dir, struct dirbuf *out)
{
	vm_ports_each(dir->vm, list_port, out);
	return 0;
}

static int ports_mkdir(struct req *req, struct node *dir, const char *name, mode_t mode)
{
	struct err err = ERR_NONE;
	struct node *child;
	struct stat st;

	if (vm_port_open(dir->vm, name, &err) < 0)
		return req_fail(dir, "mkdir", name, &err);
	child = node_get(dir, name, &port_ops, dir->vm, NULL);
	node_stat_init(child, &st);
	req_reply_entry(req, child, &st, 0);
	node_unref(child);
	return 0;
}

static int ports_rmdir(struct req *req, struct node *dir, const char *name)
{
	struct node *node = node_find(dir, name);
	struct err err = ERR_NONE;

	if (!is_open(dir, name))
		return -ENOENT;
	if (vm_port_close(dir->vm, (unsigned)strtoul(name, NULL, 10), &err) < 0)
		return req_fail(dir, "rmdir", name, &err);
	if (node)
		node_detach(node);
	req_reply_err(req, 0);
	return 0;
}

const struct node_ops ports_ops = {
	.kind = "ports", .mode = S_IFDIR | 0755, .lookup_now = ports_lookup, .list = ports_list,
	.mkdir = ports_mkdir, .rmdir = ports_rmdir,
};
