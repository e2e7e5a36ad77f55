/*
 * The node table: by inode number, and by (parent, name).
 *
 * A node has one reference for all lookups the kernel holds together, and one
 * each for handles, children and requests. A node that the name no longer leads
 * to (detached) is out of by_name only. fh of a FUSE handle is the struct's
 * address, which the kernel hands back unread; inode numbers are counters.
 */
#include "node.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "dirbuf.h"
#include "job.h"
#include "req_internal.h"
#include "scratch.h"
#include "tree_internal.h"
#include "vm.h"

/* by_name is keyed by the parent's number and the name, in one string of bytes. */
static char *name_key(const struct node *parent, const char *name, unsigned *len)
{
	size_t n = strlen(name);
	char *key = xmalloc(sizeof(parent->ino) + n);

	memcpy(key, &parent->ino, sizeof(parent->ino));
	memcpy(key + sizeof(parent->ino), name, n);
	*len = (unsigned)(sizeof(parent->ino) + n);
	return key;
}

static void name_add(struct node *node)
{
	unsigned len;

	node->key = name_key(node->parent, node->name, &len);
	HASH_ADD_KEYPTR(by_name, node->tree->by_name, node->key, len, node);
}

static void name_del(struct node *node)
{
	if (!node->key)
		return;
	HASH_DELETE(by_name, node->tree->by_name, node);
	free(node->key);
	node->key = NULL;
}

struct node *node_find(struct node *parent, const char *name)
{
	unsigned len;
	char *key = name_key(parent, name, &len);
	struct node *node;

	HASH_FIND(by_name, parent->tree->by_name, key, len, node);
	free(key);
	return node;
}

struct node *node_by_ino(struct tree *tree, uint64_t ino)
{
	struct node *node;

	HASH_FIND(by_ino, tree->by_ino, &ino, sizeof(ino), node);
	return node;
}

static struct node *node_new(struct tree *tree, const struct node_ops *ops)
{
	struct node *node = xcalloc(1, sizeof(*node));

	node->tree = tree;
	node->ops = ops;
	node->refs = 1;
	node->ino = ++tree->next_ino;
	list_init(&node->kept);
	list_init(&node->link);
	HASH_ADD(by_ino, tree->by_ino, ino, sizeof(node->ino), node);
	return node;
}

struct node *node_get(struct node *parent, const char *name, const struct node_ops *ops,
		      struct vm *vm, struct job *job)
{
	struct node *node = node_find(parent, name);

	if (node && node->ops == ops && node->vm == vm && node->job == job) {
		node_ref(node);
		return node;
	}
	if (node)
		node_detach(node);
	node = node_new(parent->tree, ops);
	node->parent = parent;
	node_ref(parent);
	node->name = xstrdup(name);
	node->vm = vm ? vm_ref(vm) : NULL;
	node->job = job ? job_ref(job) : NULL;
	name_add(node);
	if (ops->apart && parent->nlookup > 0) {
		list_add_tail(&parent->kept, &node->link);
		node_ref(node);
	}
	return node;
}

struct node *node_apart(struct node *original)
{
	struct node *node = node_new(original->tree, original->ops);

	assert(!original->priv);
	node->original = original;
	node_ref(original);
	node->parent = original->parent;
	node_ref(node->parent);
	node->name = xstrdup(original->name);
	node->vm = original->vm ? vm_ref(original->vm) : NULL;
	node->job = original->job ? job_ref(original->job) : NULL;
	node->arg = original->arg;
	return node;
}

void node_ref(struct node *node)
{
	node->refs++;
}

void node_unref(struct node *node)
{
	struct node *parent, *original;

	if (!node || --node->refs > 0)
		return;
	assert(node->nlookup == 0);
	if (node->ops->free)
		node->ops->free(node);
	name_del(node);
	HASH_DELETE(by_ino, node->tree->by_ino, node);
	vm_unref(node->vm);
	job_unref(node->job);
	parent = node->parent;
	original = node->original;
	free(node->name);
	free(node);
	node_unref(original);
	node_unref(parent);
}

void node_looked_up(struct node *node)
{
	if (node->nlookup++ == 0)
		node_ref(node);
}

void node_forget(struct node *node, uint64_t n)
{
	if (n > node->nlookup)
		n = node->nlookup;
	node->nlookup -= n;
	if (n == 0 || node->nlookup > 0)
		return;
	while (!list_empty(&node->kept)) {
		struct node *kept = list_entry(node->kept.next, struct node, link);

		list_del(&kept->link);
		node_unref(kept);
	}
	node_unref(node);
}

void node_detach(struct node *node)
{
	name_del(node);
}

bool node_attached(const struct node *node)
{
	if (node->original)
		node = node->original;
	for (; node->parent; node = node->parent)
		if (!node->key)
			return false;
	return true;
}

void node_move(struct node *node, struct node *parent, const char *name)
{
	struct node *there = node_find(parent, name), *before = node->parent;

	if (there == node)
		return;
	if (there)
		node_detach(there);
	name_del(node);
	node_ref(parent);
	node->parent = parent;
	free(node->name);
	node->name = xstrdup(name);
	name_add(node);
	node_unref(before);
}

static struct timespec timespec_of(int64_t ms)
{
	return (struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };
}

void node_stat_init(const struct node *node, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_ino = node->original ? node->original->ino : node->ino;
	st->st_mode = node->ops->mode;
	st->st_nlink = S_ISDIR(st->st_mode) ? 2 : 1;
	st->st_uid = node->tree->uid;
	st->st_gid = node->tree->gid;
	st->st_blksize = 4096;
	st->st_mtim = timespec_of(node->job ? job_mtime(node->job) :
				  node->vm ? vm_changed(node->vm) : node->tree->started);
	st->st_atim = st->st_ctim = st->st_mtim;
}

void node_path(const struct node *node, const char *name, struct buf *out)
{
	if (node->parent) {
		node_path(node->parent, node->name, out);
		if (name)
			buf_printf(out, "/");
	}
	if (name)
		buf_printf(out, "%s", name);
}

/* --- handles ----------------------------------------------------------------- */

struct handle *handle_create(struct node *node, int flags)
{
	struct handle *h = xcalloc(1, sizeof(*h));

	h->node = node;
	h->ops = node->ops;
	h->flags = flags;
	list_init(&h->poll_waiter.link);
	list_add_tail(&node->tree->handles, &h->link);
	node_ref(node);
	return h;
}

void handle_close(struct handle *h)
{
	if (!h)
		return;
	wait_cancel(&h->poll_waiter);
	if (h->ph)
		fuse_pollhandle_destroy(h->ph);
	if (h->ops->release)
		h->ops->release(h);
	dirbuf_destroy(h->dir);
	list_del(&h->link);
	node_unref(h->node);
	free(h);
}

void handle_abandon(struct handle *h)
{
	static const struct node_ops nothing;

	h->ops = &nothing;
	handle_close(h);
}

/* --- life ---------------------------------------------------------------------- */

void node_tables_init(struct tree *tree)
{
	list_init(&tree->reqs);
	wait_init(&tree->pages_news);
	list_init(&tree->handles);
	list_init(&tree->scratch);
	tree->root = node_new(tree, &root_ops);
	assert(tree->root->ino == FUSE_ROOT_ID);
}

void node_tables_finish(struct tree *tree)
{
	struct node *node, *next;

	while (!list_empty(&tree->handles))
		handle_close(list_entry(tree->handles.next, struct handle, link));
	scratch_finish(tree);
	/*
	 * What the kernel still holds goes with the mount. With a reference of ours
	 * on each, none is freed before it has been visited.
	 */
	HASH_ITER(by_ino, tree->by_ino, node, next)
		node_ref(node);
	HASH_ITER(by_ino, tree->by_ino, node, next)
		node_forget(node, UINT64_MAX);
	HASH_ITER(by_ino, tree->by_ino, node, next)
		node_unref(node);
	node_unref(tree->root);
}
