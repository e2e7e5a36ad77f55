/*
 * Names on the disk, and what was last seen of them.
 *
 * An entry is (folder, name), in its folder's table while the name leads to it. It
 * lives as long as somebody holds it: a node of the tree, an open file, a call, an entry
 * below it. Attributes are trusted for FRESH_MS, and not at all once a command has
 * ended or the entry was changed through here since they were asked for.
 *
 * The kernel's page cache. Times on the wire are whole seconds, so an unchanged size and
 * time prove nothing when they were first seen less than a second before. Pages
 * may be kept at an open only when the same pair had been seen for SETTLED_MS when the first
 * of them was read: whoever changed the file after that gave it a later time.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk_internal.h"
#include "buf.h"

/* Within that time who was told to look again has done so. */
#define RETOLD_MS 3000

static struct entry *entry_new(struct disk *disk, struct entry *parent, const char *name)
{
	struct entry *e = xcalloc(1, sizeof(*e));

	e->disk = disk;
	e->name = xstrdup(name);
	e->refs = 1;
	e->attached = true;
	list_init(&e->files);
	list_init(&e->twins);
	list_init(&e->held_link);
	if (parent) {
		e->parent = entry_ref(parent);
		e->changed = parent->below_changed;
		HASH_ADD_KEYPTR(hh, parent->children, e->name, strlen(e->name), e);
		parent->edition++;
		/* Its names are all known, or about to be: this is one more. */
		if (parent->folder && (parent->folder->complete || parent->folder->marking))
			folder_keep(e);
	}
	return e;
}

struct entry *entry_create_root(struct disk *disk)
{
	return entry_new(disk, NULL, "");
}

struct entry *entry_ref(struct entry *e)
{
	e->refs++;
	return e;
}

/* e leaves its folder's table. What was asked for before its last change stays worthless. */
static void leave(struct entry *e, struct entry *parent)
{
	HASH_DEL(parent->children, e);
	parent->edition++;
	if (e->changed > parent->below_changed)
		parent->below_changed = e->changed;
	if (e->made > parent->below_changed)
		parent->below_changed = e->made;
}

void entry_unref(struct entry *e)
{
	while (e && --e->refs == 0) {
		struct entry *parent = e->parent ? e->parent : e->was_in;

		assert(list_empty(&e->files) && !e->children);
		if (e->parent)
			leave(e, parent);
		list_del(&e->twins);
		free(e->name);
		free(e->text);
		free(e);
		e = parent;
	}
}

bool entry_attached(const struct entry *e)
{
	return e->attached;
}

struct entry *entry_find(struct entry *dir, const char *name)
{
	struct entry *e;

	HASH_FIND_STR(dir->children, name, e);
	return e;
}

struct entry *entry_get(struct entry *dir, const char *name)
{
	struct entry *e = entry_find(dir, name);

	return e ? entry_ref(e) : entry_new(dir->disk, dir, name);
}

void entry_detach(struct entry *e)
{
	struct entry *parent = e->parent;

	if (!e->attached || !parent)
		return;
	/* It stays one of its twins: while it is open, a change of it is a change of theirs. */
	entry_ref(e);
	e->attached = false;
	leave(e, parent);
	e->parent = NULL;
	if (e->disk)
		e->was_in = entry_ref(parent);
	e->when = e->told_until = 0;
	ahead_drop(e);
	if (e->folder)
		folder_destroy(e->folder);
	folder_lose(e, parent);
	twins_let_go(e);
	entry_unref(e);
	entry_unref(parent);
}

struct entry *entry_successor(const struct entry *e)
{
	return e->was_in ? entry_find(e->was_in, e->name) : NULL;
}

void entry_retold(struct entry *e)
{
	struct entry *next = e->attached ? e : entry_successor(e);

	if (next) {
		next->retold = clock_ms();
		next->told_until = 0;
	}
}

bool entry_was_retold(const struct entry *e)
{
	return e->retold && clock_ms() - e->retold < RETOLD_MS;
}

struct entry *entry_to_ask(struct entry *e)
{
	struct entry *next = entry_successor(e);

	if (e->attached)
		return e;
	entry_retold(e);
	if (!next || !entry_was_retold(e) ||
	    (next->st.st_mode & S_IFMT) != (e->st.st_mode & S_IFMT))
		return e;
	return next;
}

void entry_move(struct entry *e, struct entry *dir, const char *name)
{
	struct entry *there = entry_find(dir, name), *parent = e->parent;

	if (there == e || !e->attached || !parent)
		return;
	entry_ref(e);
	ahead_drop(e);
	if (there) {
		e->retold = there->retold;
		entry_detach(there);
	}
	HASH_DEL(parent->children, e);
	parent->edition++;
	free(e->name);
	e->name = xstrdup(name);
	e->parent = entry_ref(dir);
	HASH_ADD_KEYPTR(hh, dir->children, e->name, strlen(e->name), e);
	dir->edition++;
	folder_lose(e, parent);
	if (dir->folder && dir->folder->complete)
		folder_keep(e);
	entry_unref(e);
	entry_unref(parent);
}

static void forget(struct entry *e)
{
	struct entry *child, *next;

	e->disk = NULL;
	HASH_ITER(hh, e->children, child, next) {
		entry_ref(child);
		forget(child);
		entry_detach(child);
		entry_unref(child);
	}
}

void entry_forget_all(struct entry *root)
{
	forget(root);
	if (root->folder)
		folder_destroy(root->folder);
	root->attached = false;
	entry_unref(root);
}

int entry_path(const struct entry *e, const char *name, char *path)
{
	char *end = path + PATH_MAX - 1, *at = end;
	size_t len;

	*at = 0;
	for (;; name = e->name, e = e->parent) {
		if (!e || !e->attached)
			return -ENOENT;
		if (name) {
			len = strlen(name);
			if ((size_t)(at - path) < len + 1)
				return -ENAMETOOLONG;
			at -= len;
			memcpy(at, name, len);
			*--at = '/';
		}
		if (!e->parent)
			break;
	}
	if (at == end)
		*--at = '/';
	memmove(path, at, (size_t)(end - at) + 1);
	return 0;
}

/* --- attributes ----------------------------------------------------------- */

#define BLOCK_SIZE_SHOWN (128 * 1024)	/* what buffered writers fill before they write */

void disk_stat(const struct disk *disk, const struct sftp_attrs *a, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_mode = a->flags & SFTP_ATTR_PERMISSIONS ? a->perm & (S_IFMT | 07777) : 0644;
	if (!(st->st_mode & S_IFMT))
		st->st_mode |= S_IFREG;
	st->st_nlink = 1;
	st->st_uid = a->uid;
	st->st_gid = a->gid;
	if (disk->uid_known && a->uid == disk->uid)
		st->st_uid = disk->own_uid;
	if (disk->uid_known && a->gid == disk->gid)
		st->st_gid = disk->own_gid;
	st->st_size = a->size > INT64_MAX ? INT64_MAX : (off_t)a->size;
	st->st_blksize = BLOCK_SIZE_SHOWN;
	st->st_blocks = st->st_size / 512 + (st->st_size % 512 != 0);
	st->st_atime = a->atime;
	st->st_mtime = st->st_ctime = a->mtime;
}

struct stamp entry_stamp(const struct disk *disk)
{
	return (struct stamp){ disk->changes, disk->jobs, disk->moves };
}

bool stamp_moved(const struct disk *disk, struct stamp stamp)
{
	return stamp.moves != disk->moves;
}

void entry_perm_changed(struct entry *e)
{
	e->perm_when = 0;
	list_for_each(twin, &e->twins, struct entry, twins)
		twin->perm_when = 0;
}

bool entry_perm_known(const struct entry *e)
{
	return e->disk && e->known && e->perm_when && e->jobs == e->disk->jobs &&
	       clock_ms() - e->perm_when < FRESH_MS;
}

static void mark_changed(struct entry *e, uint64_t changes)
{
	e->changed = changes;
	e->when = e->told_until = e->text_when = 0;
	ahead_drop(e);
}

void entry_changed(struct entry *e)
{
	if (!e || !e->disk)
		return;
	mark_changed(e, ++e->disk->changes);
	list_for_each(twin, &e->twins, struct entry, twins)
		mark_changed(twin, e->changed);
}

void entry_names_changed(struct entry *dir)
{
	entry_changed(dir);
	dir->below_changed = dir->changed;
}

uint64_t entry_number(struct entry *e, uint64_t own)
{
	if (!e->number)
		e->number = own;
	return e->number;
}

void entry_update(struct disk *disk, struct entry *e, const struct sftp_attrs *a,
		  struct stamp stamp, struct stat *st)
{
	int64_t now = clock_ms();

	disk_stat(disk, a, st);
	if (e->changed > stamp.changes || stamp_moved(disk, stamp))
		return;
	if (!e->pair_since || st->st_size != e->st.st_size || st->st_mtime != e->st.st_mtime) {
		e->pair_since = now;
		e->cached_since = 0;
	}
	e->known = true;
	e->st = *st;
	e->raw_uid = a->uid;
	e->raw_gid = a->gid;
	e->when = e->perm_when = now;
	e->jobs = stamp.jobs;
	twins_check(e);
}

struct entry *entry_seen(struct disk *disk, struct entry *dir, const char *name,
			 const struct sftp_attrs *a, struct stamp stamp, struct stat *st)
{
	struct entry *e = entry_find(dir, name);

	disk_stat(disk, a, st);
	if (e && e->known && (e->st.st_mode & S_IFMT) != (st->st_mode & S_IFMT) &&
	    e->changed <= stamp.changes && !stamp_moved(disk, stamp)) {
		entry_detach(e);
		e = NULL;
	}
	e = e ? entry_ref(e) : entry_new(disk, dir, name);
	entry_update(disk, e, a, stamp, st);
	return e;
}

void entry_missing(struct entry *dir, const char *name, struct stamp stamp)
{
	struct entry *e = entry_find(dir, name);

	if (e && e->changed <= stamp.changes && !stamp_moved(dir->disk, stamp))
		entry_detach(e);
}

bool entry_last(const struct entry *e, struct stat *st)
{
	*st = e->st;
	st->st_nlink = 0;
	return e->known && !e->attached;
}

bool entry_fresh(const struct entry *e, struct stat *st)
{
	if (!e->disk || !e->known || !e->when || e->jobs != e->disk->jobs ||
	    clock_ms() - e->when >= FRESH_MS)
		return false;
	*st = e->st;
	return true;
}

bool entry_told_otherwise(const struct entry *e, const struct stat *st)
{
	return e->told_size != st->st_size || e->told_mtime != st->st_mtime;
}

double entry_tell(struct entry *e, const struct stat *st)
{
	struct stat fresh;
	int64_t left;

	/*
	 * The kernel has an inode for each name: what changes by another one it would not notice.
	 * And what is replaced all the time may be another file than what it was told of.
	 */
	e->told_size = st->st_size;
	e->told_mtime = st->st_mtime;
	if (!list_empty(&e->twins) || entry_was_retold(e) || !entry_fresh(e, &fresh) ||
	    fresh.st_size != st->st_size || fresh.st_mtime != st->st_mtime ||
	    fresh.st_mode != st->st_mode) {
		e->told_until = 0;
		return 0;
	}
	left = FRESH_MS - (clock_ms() - e->when);
	e->told_until = clock_ms() + left;
	return (double)left / 1000;
}
