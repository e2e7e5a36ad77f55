/*
 * Calls of the disk: each is a row of steps, each step up to four requests that
 * are sent together and cost one round trip. When the last of them is answered,
 * the call's next function looks at all the answers and takes a further step or
 * ends the call.
 *
 * A request that is refused at once (the channel is gone) counts as answered.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk_internal.h"
#include "buf.h"

struct disk_call *call_create(struct disk *disk, struct entry *e, const char *name, disk_cb *done,
			      void *user, int *error)
{
	char path[PATH_MAX];
	struct disk_call *c;

	/* The sftp may have failed while the disk has not been told yet. */
	*error = disk->state == DISK_READY && sftp_is_ready(disk->sftp) ?
		 entry_path(e, name, path) : -EHOSTDOWN;
	/* Removed or replaced since the kernel looked: it looks again. */
	if (*error == -ENOENT && !name)
		*error = -ESTALE;
	if (*error < 0)
		return NULL;
	c = xcalloc(1, sizeof(*c));
	c->disk = disk;
	c->done = done;
	c->user = user;
	c->path = xstrdup(path);
	if (name) {
		c->dir = entry_ref(e);
		c->name = xstrdup(name);
	} else {
		c->entry = entry_ref(e);
	}
	for (unsigned i = 0; i < SLOTS; i++)
		c->slot[i].call = c;
	c->stamp = entry_stamp(disk);
	list_add_tail(&disk->calls, &c->link);
	return c;
}

static void slot_clear(struct slot *s)
{
	struct disk *disk = s->call->disk;

	if (s->sftp)
		sftp_cancel(s->sftp);
	if (s->handle && disk->sftp)
		sftp_close(disk->sftp, s->handle);
	else
		free(s->handle);
	free(s->text);
	*s = (struct slot){ .call = s->call };
}

void call_clear(struct disk_call *c)
{
	for (unsigned i = 0; i < SLOTS; i++)
		slot_clear(&c->slot[i]);
	c->stamp.changes = c->disk->changes;
	c->stamp.jobs = c->disk->jobs;
}

/* The part of freeing that no longer needs the disk. */
static void release(struct disk_call *c)
{
	entry_unref(c->entry);
	entry_unref(c->dir);
	entry_unref(c->dir2);
	entry_unref(c->source);
	free(c->name);
	free(c->name2);
	free(c->text);
	free(c->path);
	free(c->path2);
	free(c);
}

void call_free(struct disk_call *c)
{
	call_clear(c);
	list_del(&c->link);
	release(c);
}

void disk_cancel(struct disk_call *c)
{
	/* What was sent may still happen: nothing is known of these names any more. */
	folder_uncertain(c->dir);
	folder_uncertain(c->dir2);
	entry_changed(c->entry);
	entry_changed(c->dir);
	entry_changed(c->dir2);
	call_free(c);
}

struct disk_call *call_about(struct disk *disk, struct entry *e, disk_cb *done, void *user,
				    int *error)
{
	struct disk_call *c;

	if (e->attached)
		return call_create(disk, e, NULL, done, user, error);
	c = call_create(disk, disk->root, NULL, done, user, error);
	if (!c)
		return NULL;
	entry_unref(c->entry);
	c->entry = entry_ref(e);
	c->path[0] = 0;
	return c;
}

/* --- steps ------------------------------------------------------------------ */

static void take_name(struct slot *s, struct sftp_reply *reply)
{
	struct sftp_name n;

	if (sftp_next_name(reply, &n) == 1 && !memchr(n.name, 0, n.len))
		s->text = xstrndup((const char *)n.name, n.len);
	else
		s->error = -EIO;
}

void call_answered(void *user, int error, const struct sftp_answer *a)
{
	struct slot *s = user;
	struct disk_call *c = s->call;

	s->sftp = NULL;
	s->error = error;
	s->vague = a->vague;
	s->handle = a->handle;
	if (error == 0 && a->reply->type == SFTP_ATTRS)
		s->attrs = a->reply->attrs;
	else if (error == 0 && a->reply->type == SFTP_NAME)
		take_name(s, a->reply);
	else if (error == 0 && a->reply->type == SFTP_EXTENDED_REPLY &&
		 sftp_get_statvfs(&a->reply->extended, &s->vfs))
		s->error = -EIO;
	if (--c->waiting == 0)
		c->next(c);
}

void call_asked(struct disk_call *c, unsigned i, int r)
{
	assert(i < SLOTS);
	if (r == 0) {
		c->waiting++;
		return;
	}
	c->slot[i].sftp = NULL;
	c->slot[i].error = r;
}

int call_start(struct disk_call *c, void (*next)(struct disk_call *), struct disk_call **out)
{
	int error = c->slot[0].error;

	c->next = next;
	if (c->waiting == 0) {
		call_free(c);
		return error ? error : -EHOSTDOWN;
	}
	if (out)
		*out = c;
	return 0;
}

void call_step(struct disk_call *c, void (*next)(struct disk_call *))
{
	c->next = next;
	if (c->waiting == 0)
		next(c);
}

void call_end(struct disk_call *c, int error, const struct disk_answer *answer)
{
	static const struct disk_answer nothing;

	assert(c->waiting == 0);
	/* done may destroy the disk; but the answer may point to what the call holds. */
	call_clear(c);
	list_del(&c->link);
	if (c->done)
		c->done(c->user, error, answer ? answer : &nothing);
	release(c);
}

void call_ask_dir(struct disk_call *c)
{
	char *dir = xstrdup(c->path), *slash = strrchr(dir, '/');

	slash[slash == dir] = 0;
	call_asked(c, DIR_SLOT, sftp_lstat(c->disk->sftp, dir, CALL_ARGS(c, DIR_SLOT)));
	free(dir);
}

void call_dir_came(struct disk_call *c)
{
	struct slot *s = &c->slot[DIR_SLOT];
	struct stamp stamp = c->stamp;
	struct stat st;

	/* It was asked for behind the change, and includes it. */
	stamp.changes = c->disk->changes;
	if ((s->attrs.flags & SFTP_ATTR_PERMISSIONS) && s->error == 0 && S_ISDIR(s->attrs.perm))
		entry_update(c->disk, c->dir, &s->attrs, stamp, &st);
}

/* --- what the answers mean --------------------------------------------------- */

static bool has_long_name(const char *path)
{
	size_t len = 0;

	for (; *path; path++) {
		len = *path == '/' ? 0 : len + 1;
		if (len > NAME_MAX)
			return true;
	}
	return false;
}

/* Was it, or a folder that it is in, renamed since then? It may be back where it was. */
static bool has_moved(const struct entry *e, struct stamp since)
{
	for (; e; e = e->parent)
		if (e->moved > since.changes)
			return true;
	return false;
}

/* It asked by a path that was another one meanwhile: nothing was there any more, or yet. */
static bool path_moved(const struct disk_call *c)
{
	return has_moved(c->entry, c->stamp) || has_moved(c->dir, c->stamp) ||
	       has_moved(c->dir2, c->stamp) || has_moved(c->source, c->stamp);
}

int call_errno(const struct disk_call *c, unsigned i)
{
	int error = c->slot[i].error;

	/* OpenSSH has one code for EINVAL and ENAMETOOLONG. */
	if (error == -EINVAL && (has_long_name(c->path) || (c->path2 && has_long_name(c->path2))))
		return -ENAMETOOLONG;
	if (error == -ENOENT && path_moved(c))
		return -ERESTART;
	return error;
}

void call_gone(struct disk_call *c)
{
	if (c->entry->parent)
		entry_missing(c->entry->parent, c->entry->name, c->stamp);
	/* Not told by whom: who looks again must not be told of it from memory. */
	c->entry->when = 0;
	entry_retold(c->entry);
	call_end(c, -ESTALE, NULL);
}

void call_take_handle(struct disk_call *c, unsigned i, struct sftp_handle **h)
{
	*h = c->slot[i].handle;
	c->slot[i].handle = NULL;
}

bool call_other_type(const struct disk_call *c, const struct sftp_attrs *a)
{
	return c->entry->known && (a->flags & SFTP_ATTR_PERMISSIONS) &&
	       (a->perm & S_IFMT) != (c->entry->st.st_mode & S_IFMT);
}

bool call_is_another(const struct disk_call *c, unsigned i)
{
	const struct slot *s = &c->slot[i];

	return s->error == -ENOENT || (s->error == 0 && call_other_type(c, &s->attrs));
}

mode_t call_missing_bits(const struct disk_call *c, const struct sftp_attrs *a)
{
	return a->flags & SFTP_ATTR_PERMISSIONS ? c->mode & 0777 & ~a->perm : 0;
}

struct sftp_attrs call_with_bits(const struct sftp_attrs *a, mode_t bits)
{
	return (struct sftp_attrs){
		.flags = SFTP_ATTR_PERMISSIONS, .perm = (a->perm | bits) & 07777 };
}
