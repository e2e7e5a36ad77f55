/*
 * What a mere FAILURE was. OpenSSH's server has no code for EEXIST, ENOTEMPTY,
 * EISDIR, EXDEV, EROFS, ENOSPC and others; programs depend on them. So when a call
 * failed in that way, look at what it was about: one round trip, only then.
 *
 * The four requests: the attributes of path and path2, and the file systems
 * that they are on.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "disk_internal.h"
#include "buf.h"

#define REMOVE_TRIES 8

enum { OLD, NEW, OLD_FS, NEW_FS };

static bool is_dir(const struct slot *s)
{
	return s->error == 0 && (s->attrs.perm & S_IFMT) == S_IFDIR;
}

static bool is_program(const struct slot *s)
{
	return s->error == 0 && (s->attrs.perm & S_IFMT) == S_IFREG && (s->attrs.perm & 0111);
}

static bool read_only(const struct slot *fs)
{
	return fs->error == 0 && (fs->vfs.flag & SFTP_STATVFS_RDONLY);
}

static bool is_full(const struct disk_call *c, const struct slot *fs)
{
	bool root = c->disk->uid_known && c->disk->uid == 0;

	if (fs->error || fs->vfs.blocks == 0)
		return false;
	return (root ? fs->vfs.bfree : fs->vfs.bavail) == 0 ||
	       (fs->vfs.files > 0 && fs->vfs.favail == 0);
}

/* Two paths on two file systems, as far as their figures tell. */
static bool differ(const struct slot *a, const struct slot *b)
{
	const struct sftp_statvfs *x = &a->vfs, *y = &b->vfs;

	if (a->error || b->error)
		return false;
	return x->fsid != y->fsid || x->bsize != y->bsize || x->frsize != y->frsize ||
	       x->blocks != y->blocks || x->files != y->files || x->flag != y->flag;
}

static bool same_parent(const struct disk_call *c)
{
	const char *a = strrchr(c->path, '/'), *b = c->path2 ? strrchr(c->path2, '/') : NULL;

	return a && b && a - c->path == b - c->path2 &&
	       memcmp(c->path, c->path2, (size_t)(a - c->path)) == 0;
}

static int explain_rename(const struct disk_call *c)
{
	const struct slot *s = c->slot;

	if (c->error == -ENOENT)
		return is_dir(&s[OLD]) && s[NEW].error == 0 && !is_dir(&s[NEW]) ? -ENOTDIR :
									     -ENOENT;
	if (s[NEW].error == 0 && c->flags)	/* not to be replaced */
		return -EEXIST;
	if (differ(&s[OLD_FS], &s[NEW_FS]))
		return -EXDEV;
	if (read_only(&s[OLD_FS]))
		return -EROFS;
	if (is_dir(&s[NEW]))
		return is_dir(&s[OLD]) ? -ENOTEMPTY : -EISDIR;
	if (is_full(c, &s[NEW_FS]))
		return -ENOSPC;
	/* Two mounts of one file system look the same; a copy is what helps then. */
	return same_parent(c) ? -EBUSY : -EXDEV;
}

static int explain_link(const struct disk_call *c)
{
	const struct slot *s = c->slot;

	if (s[NEW].error == 0)
		return -EEXIST;
	if (differ(&s[OLD_FS], &s[NEW_FS]))
		return -EXDEV;
	if (read_only(&s[NEW_FS]))
		return -EROFS;
	if (is_full(c, &s[NEW_FS]))
		return -ENOSPC;
	return same_parent(c) ? -EMLINK : -EXDEV;
}

/*
 * What could be removed has that name, where something could not be: that was a folder, and has
 * gone since. (It is another reason, a mount, if it is so all the time.)
 */
static bool came_since(struct disk_call *c)
{
	const struct slot *s = c->slot;

	return c->what == EXPLAIN_REMOVE && s[OLD].error == 0 && !is_dir(&s[OLD]) &&
	       !read_only(&s[OLD_FS]) && c->tries++ < REMOVE_TRIES;
}

/* Nothing speaks against making it: it was there, and has gone since, or it has come since. */
static bool may_be_made(const struct disk_call *c)
{
	const struct slot *s = c->slot;

	return c->what == EXPLAIN_MAKE && (s[OLD].error == 0 || s[OLD].error == -ENOENT) &&
	       !read_only(&s[OLD_FS]) && !is_full(c, &s[OLD_FS]);
}

/* It has come just now. Who does not mind that has it as it is: the kernel looks again. */
static int is_there(const struct disk_call *c)
{
	if (!(c->flags & O_CREAT) || (c->flags & O_EXCL))
		return -EEXIST;
	return is_dir(&c->slot[OLD]) ? -EISDIR : -ESTALE;
}

static int explain_one(const struct disk_call *c)
{
	const struct slot *s = c->slot;

	if ((c->what == EXPLAIN_REMOVE || c->what == EXPLAIN_RMDIR) && s[OLD].error == -ENOENT)
		return -ENOENT;
	if (c->what == EXPLAIN_RMDIR && s[OLD].error == 0 && !is_dir(&s[OLD]))
		return -ENOTDIR;
	if (c->what == EXPLAIN_MAKE && s[OLD].error == 0)
		return is_there(c);
	if (c->what == EXPLAIN_RMDIR && differ(&s[OLD_FS], &s[NEW_FS]))
		return -EBUSY;		/* something is mounted there */
	if (read_only(&s[OLD_FS]))
		return -EROFS;
	switch (c->what) {
	case EXPLAIN_OPEN:
		if (is_dir(&s[OLD]))
			return -EISDIR;
		return c->flags & SFTP_WRITABLE && is_program(&s[OLD]) ? -ETXTBSY : -EIO;
	case EXPLAIN_REMOVE:
		return is_dir(&s[OLD]) ? -EISDIR : -EBUSY;
	case EXPLAIN_RMDIR:
		return -ENOTEMPTY;
	case EXPLAIN_CHANGE:
		return c->set & DISK_SET_SIZE && is_program(&s[OLD]) ? -ETXTBSY : -EIO;
	case EXPLAIN_MAKE:
	case EXPLAIN_WRITE:
		return is_full(c, &s[OLD_FS]) ? -ENOSPC : -EIO;
	default:
		return -EIO;
	}
}

static void explained(struct disk_call *c)
{
	if (c->what == EXPLAIN_OPEN && call_is_another(c, OLD))
		call_gone(c);
	else if (may_be_made(c) && open_create_again(c))
		return;
	else if (came_since(c))
		names_remove(c);
	else
		call_end(c, c->what == EXPLAIN_RENAME ? explain_rename(c) :
			    c->what == EXPLAIN_LINK ? explain_link(c) : explain_one(c), NULL);
}

static void ask_fs(struct disk_call *c, unsigned i, const char *path, bool parent)
{
	char *dir = xstrdup(path), *slash = strrchr(dir, '/');

	if (parent && slash)
		slash[slash == dir] = 0;
	if (sftp_has(c->disk->sftp, SFTP_EXT_STATVFS))
		call_asked(c, i, sftp_statvfs(c->disk->sftp, dir, CALL_ARGS(c, i)));
	else
		call_asked(c, i, -EOPNOTSUPP);
	free(dir);
}

void call_explain(struct disk_call *c, enum explain what, int error, bool vague)
{
	struct sftp *sftp = c->disk->sftp;
	bool one = !c->path2;

	if (!sftp || (!vague && !(what == EXPLAIN_RENAME && error == -ENOENT))) {
		call_end(c, error, NULL);
		return;
	}
	call_clear(c);
	c->error = error;
	c->what = what;
	call_asked(c, OLD, sftp_lstat(sftp, c->path, CALL_ARGS(c, OLD)));
	/* What exists is asked for itself: it may be mounted on. */
	ask_fs(c, OLD_FS, c->path, what == EXPLAIN_MAKE || what == EXPLAIN_REMOVE || !one);
	if (!one)
		call_asked(c, NEW, sftp_lstat(sftp, c->path2, CALL_ARGS(c, NEW)));
	if (!one || what == EXPLAIN_RMDIR)
		ask_fs(c, NEW_FS, one ? c->path : c->path2, true);
	call_step(c, explained);
}

int disk_explain_write(struct disk *disk, struct entry *e, disk_cb *done, void *user,
		       struct disk_call **out)
{
	int r;
	struct disk_call *c = call_create(disk, e, NULL, done, user, &r);

	if (!c)
		return r;
	call_explain(c, EXPLAIN_WRITE, -EIO, true);
	if (out)
		*out = c;
	return 0;
}
