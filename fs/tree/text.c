/*
 * Small text files.
 *
 * A handle reads from a snapshot taken at its first read, so that a value cannot
 * change between two halves. A write is a whole value; a second one right behind
 * it carries on (a program may split a long value); any other offset begins anew.
 * When a value is refused, the sentence can be read back from the same handle.
 */
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "err.h"
#include "tree_internal.h"

/* Half of what one request of a write carries: a longer one is refused as a whole. */
#define VALUE_MAX (512 * 1024)

struct text_handle {
	struct buf content;
	bool loaded;
	struct buf value;	/* written so far through this handle */
	off_t value_off;
	char *sentence;		/* of the latest refusal … */
	off_t sentence_off;	/* … to be read where the refused write began */
};

static const struct text_file *file_of(const struct node *node)
{
	return node->arg;
}

struct node *text_node_get(struct node *dir, const struct text_file *file)
{
	return text_node_named(dir, file->name, file);
}

struct node *text_node_named(struct node *dir, const char *name, const struct text_file *file)
{
	struct node *node = node_get(dir, name, file->ops, dir->vm, dir->job);

	node->arg = file;
	return node;
}

static int text_stat(struct node *node, struct stat *st)
{
	struct buf content = BUF_INIT;

	file_of(node)->print(node, &content);
	st->st_size = (off_t)buf_size(&content);
	buf_finish(&content);
	return 0;
}

static int text_open(struct req *req, struct node *node, struct handle *h,
		     struct fuse_file_info *fi)
{
	h->priv = xcalloc(1, sizeof(struct text_handle));
	fi->direct_io = 1;
	req_reply_open(req, h);
	return 0;
}

static void text_release(struct handle *h)
{
	struct text_handle *t = h->priv;

	buf_finish(&t->content);
	buf_finish(&t->value);
	free(t->sentence);
	free(t);
}

static void reply_part(struct req *req, const void *data, size_t len, off_t off, size_t size)
{
	size_t start = off < 0 || (size_t)off > len ? len : (size_t)off;

	req_reply_buf(req, (const char *)data + start, len - start < size ? len - start : size);
}

static int text_read(struct req *req, struct handle *h, size_t size, off_t off)
{
	struct text_handle *t = h->priv;

	if (t->sentence && off >= t->sentence_off) {
		reply_part(req, t->sentence, strlen(t->sentence), off - t->sentence_off, size);
		return 0;
	}
	if (!t->loaded || off == 0) {
		buf_clear(&t->content);
		file_of(h->node)->print(h->node, &t->content);
		t->loaded = true;
	}
	reply_part(req, buf_peek(&t->content), buf_size(&t->content), off, size);
	return 0;
}

/* What the value is if this write is part of it. */
static void value_extend(struct handle *h, const void *data, size_t size, off_t off)
{
	struct text_handle *t = h->priv;
	const struct text_file *file = file_of(h->node);

	if (buf_size(&t->value) == 0 || off != t->value_off || file->style == TEXT_VERBS) {
		buf_clear(&t->value);
		if (file->style == TEXT_LINES && (h->flags & O_APPEND))
			file->print(h->node, &t->value);
	}
	buf_put(&t->value, data, size);
	t->value_off = off + (off_t)size;
}

static int text_store(struct node *node, const void *data, size_t len, struct err *err)
{
	char *value;
	int r;

	if (len > VALUE_MAX)
		return err_set(err, -EFBIG, "a value has at most %d bytes", VALUE_MAX);
	if (memchr(data, 0, len))
		return err_set(err, -EINVAL, "a value is text: it has no NUL bytes");
	value = xstrndup(data, len);
	if (len > 0 && value[len - 1] == '\n')
		value[len - 1] = 0;
	r = file_of(node)->store(node, value, err);
	free(value);
	return r;
}

static int text_content(struct node *node, struct buf *out, struct err *err)
{
	file_of(node)->print(node, out);
	return 0;
}

static int text_write(struct req *req, struct handle *h, const void *data, size_t size, off_t off)
{
	struct text_handle *t = h->priv;
	struct err err = ERR_NONE;
	int r;

	value_extend(h, data, size, off);
	r = text_store(h->node, buf_peek(&t->value), buf_size(&t->value), &err);
	free(t->sentence);
	t->sentence = NULL;
	t->loaded = false;
	if (r < 0) {
		buf_clear(&t->value);
		t->sentence = xasprintf("%s\n", err.text);
		t->sentence_off = off;
		return req_fail(h->node, "write", NULL, &err);
	}
	req_reply_write(req, size);
	return 0;
}

const struct node_ops text_ro_ops = {
	.kind = "text", .mode = S_IFREG | 0444,
	.stat = text_stat, .open = text_open, .read = text_read, .release = text_release,
};

const struct node_ops text_rw_ops = {
	.kind = "value", .mode = S_IFREG | 0644,
	.stat = text_stat, .open = text_open, .read = text_read, .write = text_write,
	.release = text_release, .store = text_store, .content = text_content,
};
