/*
 * Copying from file to file within the guest, by the server's copy-data: what cp does with
 * copy_file_range(2) costs no traffic.
 *
 * A request copies a bounded part, in pieces that are sent together: the server does
 * nothing else for this connection while it copies one. The extension does not tell how much
 * there was to be copied, so the size of the source is asked for ahead of the pieces, and
 * that of the target behind them. Whatever fails is left to read and write, which find the
 * same error and its meaning.
 */
#include <errno.h>
#include <stdlib.h>

#include "file_internal.h"
#include "buf.h"

#define PIECE (8u * 1024 * 1024)
#define PIECES 8

static void end_copy(struct file_call *c)
{
	struct file *to = c->file;
	off_t end = -1;
	int error = c->error;

	if (error && error != -EHOSTDOWN && error != -ESTALE)
		error = -EOPNOTSUPP;
	if (error == 0 && file_size(to, &end) && end < c->off + (off_t)c->size)
		end = c->off + (off_t)c->size;
	files_changed(to->entry, error ? -1 : end);
	to->written = true;
	file_call_end(c, error, NULL, c->size);
	file_wrote(to);
}

/* The first request is that for the size. */
static size_t offset_of(const struct piece *p)
{
	return (size_t)(p - p->call->pieces - 1) * PIECE;
}

static void copy_answered(void *user, int error, const struct sftp_answer *a)
{
	struct piece *p = user;
	struct file_call *c = p->call;

	p->sftp = NULL;
	/* A piece that begins at the end or behind it is an error to the server, not to us. */
	if (error && !c->error && (p == c->pieces || offset_of(p) < c->size))
		c->error = error;
	if (--c->waiting == 0)
		end_copy(c);
}

/* How much there was to be copied when it began. */
static void size_came(void *user, int error, const struct sftp_answer *a)
{
	struct piece *p = user;
	struct file_call *c = p->call;
	uint64_t size = error ? 0 : a->reply->attrs.size;

	if (error == 0 && (a->reply->attrs.flags & SFTP_ATTR_SIZE)) {
		if (size <= (uint64_t)c->from)
			c->size = 0;
		else if (size - (uint64_t)c->from < c->size)
			c->size = (size_t)(size - (uint64_t)c->from);
	} else if (error == 0) {
		error = -EOPNOTSUPP;
	}
	copy_answered(user, error, a);
}

/* Not every server tells when there was no room for it. */
static void target_came(void *user, int error, const struct sftp_answer *a)
{
	struct piece *p = user;
	struct file_call *c = p->call;

	if (error == 0 && c->size > 0 && a->reply->attrs.size < (uint64_t)c->off + c->size)
		error = -EOPNOTSUPP;
	if (error && !c->error)
		c->error = error;
	copy_answered(user, 0, a);
}

static int note(struct file_call *c, int r)
{
	if (r < 0)
		c->pieces[c->count].sftp = NULL;
	else
		c->waiting++;
	c->count++;
	return r;
}

static int ask(struct file_call *c, struct file *from)
{
	struct sftp *sftp = from->disk->sftp;
	struct piece *p = c->pieces;
	int r = note(c, sftp_fstat(sftp, from->handle, size_came, p, &p->sftp));

	for (size_t at = 0; at < c->size && r == 0; at += PIECE) {
		p = &c->pieces[c->count];
		r = note(c, sftp_copy(sftp, from->handle, (uint64_t)c->from + at,
				      c->size - at > PIECE ? PIECE : c->size - at, c->file->handle,
				      (uint64_t)c->off + at, copy_answered, p, &p->sftp));
	}
	if (r == 0) {
		p = &c->pieces[c->count];
		r = note(c, sftp_fstat(sftp, c->file->handle, target_came, p, &p->sftp));
	}
	return r;
}

int file_copy(struct file *from, off_t off, struct file *to, off_t to_off, size_t len,
	      file_cb *done, void *user, struct file_call **out)
{
	struct file_call *c;
	int r = file_usable(from);

	if (r == 0)
		r = file_usable(to);
	if (r == 0)
		r = to->error;
	if (r < 0)
		return r;
	if (from->disk != to->disk || !sftp_has(from->disk->sftp, SFTP_EXT_COPY_DATA) ||
	    from->entry == to->entry || len == 0)
		return -EOPNOTSUPP;
	c = file_call_new(to, CALL_COPY, done, user);
	c->off = to_off;
	c->from = off;
	c->size = len > (size_t)PIECE * PIECES ? (size_t)PIECE * PIECES : len;
	c->pieces = xcalloc(PIECES + 2, sizeof(*c->pieces));
	for (unsigned i = 0; i < PIECES + 2; i++)
		c->pieces[i].call = c;
	r = ask(c, from);
	files_changed(to->entry, -1);
	if (r < 0) {
		file_call_drop(c);
		return r;
	}
	*out = c;
	return 0;
}
