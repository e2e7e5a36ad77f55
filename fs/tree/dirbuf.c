/* Listings as they were at opendir. */
#include "dirbuf.h"

#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "node.h"
#include "req_internal.h"
#include "tree_internal.h"

struct dirbuf {
	struct buf entries;	/* mode_t, name, NUL; one behind the other */
	size_t *offsets, count, cap;
};

struct dirbuf *dirbuf_create(void)
{
	return xcalloc(1, sizeof(struct dirbuf));
}

void dirbuf_destroy(struct dirbuf *d)
{
	if (!d)
		return;
	buf_finish(&d->entries);
	free(d->offsets);
	free(d);
}

void dirbuf_add(struct dirbuf *d, const char *name, mode_t mode)
{
	if (d->count == d->cap) {
		d->cap = d->cap ? 2 * d->cap : 32;
		d->offsets = xrealloc(d->offsets, d->cap * sizeof(*d->offsets));
	}
	d->offsets[d->count++] = d->entries.len;
	buf_put(&d->entries, &mode, sizeof(mode));
	buf_put(&d->entries, name, strlen(name) + 1);
}

size_t dirbuf_count(const struct dirbuf *d)
{
	return d->count;
}

static const char *entry_at(const struct dirbuf *d, size_t i, mode_t *mode)
{
	const uint8_t *p = d->entries.data + d->offsets[i];

	memcpy(mode, p, sizeof(*mode));
	return (const char *)p + sizeof(*mode);
}

static size_t put_plain(struct req *req, char *out, size_t room, const char *name, mode_t mode,
			off_t next)
{
	/* "." and the like have no number of their own here; FUSE wants one that is not 0 */
	struct stat st = { .st_ino = UINT32_MAX, .st_mode = mode };

	return fuse_add_direntry(req->fuse, out, room, name, &st, next);
}

/*
 * With attributes: this counts as a lookup, unless it does not fit. Of what may be more than stat
 * says the kernel is told by a lookup only: node_ops.reach.
 */
static size_t put_plus(struct req *req, char *out, size_t room, struct node *dir,
		       const char *name, mode_t mode, off_t next)
{
	struct fuse_entry_param e = { 0 };
	struct node *child = NULL;
	size_t used;

	e.attr.st_mode = mode;
	e.attr.st_ino = UINT32_MAX;
	if (strcmp(name, ".") && strcmp(name, "..") &&
	    dir->ops->lookup_now(dir, name, &child) == 0) {
		node_stat_init(child, &e.attr);
		if (!child->ops->reach &&
		    (!child->ops->stat || child->ops->stat(child, &e.attr) == 0))
			e.ino = child->ino;
	}
	used = fuse_add_direntry_plus(req->fuse, out, room, name, &e, next);
	if (e.ino && used <= room)
		node_looked_up(child);
	node_unref(child);
	return used;
}

void dirbuf_reply(struct dirbuf *d, struct req *req, struct node *dir, size_t size, off_t off,
		  bool plus)
{
	char *out = xmalloc(size);
	size_t len = 0;

	for (size_t i = (size_t)off; i < d->count; i++) {
		mode_t mode;
		const char *name = entry_at(d, i, &mode);
		size_t used = plus && dir->ops->lookup_now ?
			put_plus(req, out + len, size - len, dir, name, mode, (off_t)i + 1) :
			put_plain(req, out + len, size - len, name, mode, (off_t)i + 1);

		if (used > size - len)
			break;
		len += used;
	}
	req_reply_buf(req, out, len);
	free(out);
}
