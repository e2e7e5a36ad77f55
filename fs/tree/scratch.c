/* Scratch files; see scratch.h. */
#include "scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "dirbuf.h"
#include "draft.h"
#include "err.h"
#include "job.h"
#include "req_internal.h"
#include "text.h"
#include "tree_internal.h"
#include "vm.h"

#define FILES_MAX 64			/* of one folder */
#define SIZE_MAX_BYTES (JOB_TEXT_MAX + 1)
#define BUDGET (64u * 1024 * 1024)	/* of all of them together */
#define LIFE_MS (60 * 60 * 1000)	/* since the last change, unless somebody has it open */

struct scratch {
	struct list link;		/* tree->scratch; nothing in it once unlinked */
	unsigned refs;			/* the list's and the node's */
	unsigned open;			/* handles */
	struct vm *vm;			/* NULL: of a draft */
	struct job *job;
	char *draft;
	char *name;
	mode_t mode;
	struct buf data;
	int64_t changed;
};

static void unref(struct scratch *s)
{
	if (--s->refs > 0)
		return;
	vm_unref(s->vm);
	job_unref(s->job);
	free(s->draft);
	free(s->name);
	buf_finish(&s->data);
	free(s);
}

static void drop(struct scratch *s)
{
	list_del(&s->link);
	unref(s);
}

static bool belongs(const struct scratch *s, const struct node *dir)
{
	return s->vm == dir->vm && s->job == dir->job && (s->vm || !strcmp(s->draft, dir->name));
}

static void forget_name(struct node *dir, const char *name)
{
	struct node *node = node_find(dir, name);

	if (node && node->ops == &scratch_ops)
		node_detach(node);
}

static bool expired(const struct scratch *s)
{
	return s->open == 0 && wall_ms() - s->changed >= LIFE_MS;
}

static void expire(struct tree *tree)
{
	list_for_each_safe(s, &tree->scratch, struct scratch, link)
		if (expired(s))
			drop(s);
}

static void look_for_old(struct loop_timer *t)
{
	struct tree *tree = container_of(t, struct tree, scratch_timer);

	expire(tree);
	if (!list_empty(&tree->scratch))
		loop_timer_set(tree->loop, t, LIFE_MS / 4, look_for_old);
}

static struct scratch *find(struct node *dir, const char *name)
{
	list_for_each(s, &dir->tree->scratch, struct scratch, link)
		if (belongs(s, dir) && !strcmp(s->name, name) && !expired(s))
			return s;
	return NULL;
}

/* What belongs to sandboxes and jobs that are gone is of no use to anybody. */
static unsigned sweep(struct node *dir)
{
	unsigned here = 0;

	expire(dir->tree);
	list_for_each_safe(s, &dir->tree->scratch, struct scratch, link) {
		if (s->vm ? vm_gone(s->vm) || (s->job && job_removed(s->job)) :
		    !draft_find(dir->tree->fleet, s->draft))
			drop(s);
		else
			here += belongs(s, dir);
	}
	return here;
}

/* Not what would be a fixed file here under other circumstances. */
static int check_name(struct node *dir, const char *name, struct err *err)
{
	struct draft *d = dir->vm ? NULL : draft_find(dir->tree->fleet, dir->name);

	return d ? draft_name_free(d, name, err) : 0;
}

static int make(struct node *dir, const char *name, mode_t mode, struct scratch **result,
		struct err *err)
{
	struct scratch *s;
	int r = check_name(dir, name, err);

	if (r < 0)
		return r;
	if (strlen(name) > 255)
		return err_set(err, -ENAMETOOLONG, "a file's name has at most 255 bytes");
	if (sweep(dir) >= FILES_MAX)
		return err_set(err, -ENOSPC, "there are %d temporary files here already",
			       FILES_MAX);
	s = xcalloc(1, sizeof(*s));
	s->refs = 1;
	s->vm = dir->vm ? vm_ref(dir->vm) : NULL;
	s->draft = dir->vm ? NULL : xstrdup(dir->name);
	s->job = dir->job ? job_ref(dir->job) : NULL;
	s->name = xstrdup(name);
	s->mode = mode & 0777;
	s->changed = wall_ms();
	list_add_tail(&dir->tree->scratch, &s->link);
	if (!loop_timer_is_set(&dir->tree->scratch_timer))
		loop_timer_set(dir->tree->loop, &dir->tree->scratch_timer, LIFE_MS / 4,
			       look_for_old);
	*result = s;
	return 0;
}

void scratch_finish(struct tree *tree)
{
	loop_timer_cancel(&tree->scratch_timer);
	while (!list_empty(&tree->scratch))
		drop(list_entry(tree->scratch.next, struct scratch, link));
}

/* --- the files --------------------------------------------------------------- */

static struct node *node_of(struct node *dir, struct scratch *s)
{
	struct node *node = node_find(dir, s->name);

	/* the same name may have stood for another file before */
	if (node && node->ops == &scratch_ops && node->priv != s)
		node_detach(node);
	node = node_get(dir, s->name, &scratch_ops, dir->vm, dir->job);
	if (!node->priv) {
		node->priv = s;
		s->refs++;
	}
	return node;
}

static void scratch_free(struct node *node)
{
	if (node->priv)
		unref(node->priv);
}

static int scratch_stat(struct node *node, struct stat *st)
{
	struct scratch *s = node->priv;

	st->st_mode = S_IFREG | s->mode;
	st->st_size = (off_t)buf_size(&s->data);
	st->st_mtim.tv_sec = s->changed / 1000;
	st->st_mtim.tv_nsec = s->changed % 1000 * 1000000;
	st->st_nlink = node_attached(node);
	return 0;
}

static int resize(struct tree *tree, struct scratch *s, off_t size)
{
	size_t have = buf_size(&s->data), all = 0;

	if (size < 0 || (size_t)size > SIZE_MAX_BYTES)
		return -EFBIG;
	list_for_each(other, &tree->scratch, struct scratch, link)
		all += buf_size(&other->data);
	if ((size_t)size > have && all - have + (size_t)size > BUDGET)
		return -ENOSPC;
	if ((size_t)size > have) {
		memset(buf_reserve(&s->data, (size_t)size - have), 0, (size_t)size - have);
		buf_commit(&s->data, (size_t)size - have);
	}
	s->data.len = s->data.off + (size_t)size;
	s->changed = wall_ms();
	return 0;
}

static int scratch_setattr(struct req *req, struct node *node, struct handle *h,
			   const struct stat *attr, int to_set)
{
	struct scratch *s = node->priv;
	struct stat st;
	int r = 0;

	if (to_set & FUSE_SET_ATTR_MODE)
		s->mode = attr->st_mode & 0777;
	if (to_set & FUSE_SET_ATTR_SIZE)
		r = resize(node->tree, s, attr->st_size);
	if (r < 0)
		return r;
	node_stat_init(node, &st);
	scratch_stat(node, &st);
	req_reply_attr(req, &st, 0);
	return 0;
}

static int scratch_open(struct req *req, struct node *node, struct handle *h,
			struct fuse_file_info *fi)
{
	struct scratch *s = node->priv;

	if (fi->flags & O_TRUNC)
		resize(node->tree, s, 0);
	s->open++;
	fi->direct_io = 1;
	req_reply_open(req, h);
	return 0;
}

static int scratch_read(struct req *req, struct handle *h, size_t size, off_t off)
{
	struct scratch *s = h->node->priv;
	size_t have = buf_size(&s->data), at = (size_t)off < have ? (size_t)off : have;

	req_reply_buf(req, s->data.data ? buf_peek(&s->data) + at : NULL,
		      have - at < size ? have - at : size);
	return 0;
}

static int scratch_write(struct req *req, struct handle *h, const void *data, size_t size,
			 off_t off)
{
	struct scratch *s = h->node->priv;
	int r = 0;

	if (h->flags & O_APPEND)
		off = (off_t)buf_size(&s->data);
	if ((size_t)off + size > buf_size(&s->data))
		r = resize(h->node->tree, s, off + (off_t)size);
	if (r < 0)
		return r;
	memcpy(buf_peek(&s->data) + off, data, size);
	s->changed = wall_ms();
	req_reply_write(req, size);
	return 0;
}

static void scratch_release(struct handle *h)
{
	struct scratch *s = h->node->priv;

	s->open--;
}

const struct node_ops scratch_ops = {
	.kind = "scratch", .mode = S_IFREG | 0600, .stat = scratch_stat,
	.setattr = scratch_setattr, .open = scratch_open, .read = scratch_read,
	.write = scratch_write, .release = scratch_release, .free = scratch_free,
};

/* --- their folder ------------------------------------------------------------------ */

int scratch_lookup(struct node *dir, const char *name, struct node **child)
{
	struct scratch *s = find(dir, name);

	if (!s)
		return -ENOENT;
	*child = node_of(dir, s);
	return 0;
}

void scratch_list(struct node *dir, struct dirbuf *out)
{
	list_for_each(s, &dir->tree->scratch, struct scratch, link)
		if (belongs(s, dir) && !expired(s))
			dirbuf_add(out, s->name, S_IFREG);
}

int scratch_create(struct req *req, struct node *dir, const char *name, mode_t mode,
		   struct fuse_file_info *fi)
{
	struct handle *h;
	struct scratch *s;
	struct node *node;
	struct err err = ERR_NONE;
	struct stat st;

	if (make(dir, name, mode, &s, &err) < 0)
		return req_fail(dir, "create", name, &err);
	node = node_of(dir, s);
	s->open++;
	h = handle_create(node, fi->flags);
	fi->direct_io = 1;
	node_stat_init(node, &st);
	scratch_stat(node, &st);
	req_reply_create(req, node, &st, 0, h);
	node_unref(node);
	return 0;
}

int scratch_unlink(struct req *req, struct node *dir, const char *name)
{
	struct scratch *s = find(dir, name);
	struct err err;

	if (!s) {
		guard_note(req, dir);
		err_set(&err, -EPERM, "this file is fixed: rmdir the sandbox to destroy it");
		return req_fail(dir, "unlink", name, &err);
	}
	forget_name(dir, name);
	drop(s);
	req_reply_err(req, 0);
	return 0;
}

/* --- renames ------------------------------------------------------------------------- */

/* The fixed file takes the whole content as if it had been written. */
static int write_fixed(struct node *fixed, const struct scratch *s, struct err *err)
{
	const void *data = s->data.data ? buf_peek(&s->data) : (void *)"";

	if (!fixed->ops->store)
		return err_set(err, -EPERM, "this file cannot be replaced");
	return fixed->ops->store(fixed, data, buf_size(&s->data), err);
}

static int copy_fixed(struct node *fixed, struct buf *out, struct err *err)
{
	if (!fixed->ops->content)
		return err_set(err, -EPERM, "the names of this folder are fixed");
	return fixed->ops->content(fixed, out, err);
}

static int rename_over_fixed(struct node *dir, struct scratch *s, struct node *fixed,
			     struct err *err)
{
	int r = write_fixed(fixed, s, err);

	if (r == 0) {
		forget_name(dir, s->name);
		drop(s);
	}
	return r;
}

static int rename_scratch(struct node *dir, struct scratch *s, const char *newname,
			  struct err *err)
{
	struct scratch *there = find(dir, newname);
	struct node *node = node_find(dir, s->name);
	int r = check_name(dir, newname, err);

	if (there == s || r < 0)
		return r;
	forget_name(dir, newname);
	if (there)
		drop(there);
	if (node)
		node_move(node, dir, newname);
	free(s->name);
	s->name = xstrdup(newname);
	return 0;
}

static int copy_to_scratch(struct node *dir, struct node *fixed, const char *newname,
			   struct err *err)
{
	struct scratch *s = find(dir, newname);
	struct buf content = BUF_INIT;
	int r = copy_fixed(fixed, &content, err);

	if (r == 0 && !s)
		r = make(dir, newname, 0644, &s, err);
	if (r < 0) {
		buf_finish(&content);
		return r;
	}
	buf_finish(&s->data);
	s->data = content;
	return 0;
}

int scratch_rename(struct req *req, struct node *dir, const char *name, struct node *newdir,
		   const char *newname, unsigned flags)
{
	struct scratch *s = find(dir, name);
	struct node *from = NULL, *to = NULL;
	struct err err = ERR_NONE;
	bool to_fixed;
	int r;

	if (dir != newdir)
		return -EXDEV;
	if (flags & ~(unsigned)RENAME_NOREPLACE)
		return -EINVAL;
	to_fixed = !find(dir, newname) && dir->ops->lookup_now(dir, newname, &to) == 0;
	if ((flags & RENAME_NOREPLACE) && (to_fixed || find(dir, newname)))
		r = err_set(&err, -EEXIST, "there is a file %s already", newname);
	else if (s && to_fixed)
		r = rename_over_fixed(dir, s, to, &err);
	else if (s)
		r = rename_scratch(dir, s, newname, &err);
	else if ((r = dir->ops->lookup_now(dir, name, &from)) == 0)
		r = to_fixed ? err_set(&err, -EPERM, "the names of this folder are fixed") :
			       copy_to_scratch(dir, from, newname, &err);
	node_unref(from);
	node_unref(to);
	if (err.code)
		return req_fail(dir, "rename", name, &err);
	if (r == 0)
		req_reply_err(req, 0);
	return r;
}
