/* Changing attributes: by name, or by handle where there is one. */
#include <errno.h>

#include "disk_internal.h"

/* It was asked for by its name, perhaps, which has another file now: that one was changed. */
static void successor_changed(const struct disk_call *c)
{
	struct entry *next = entry_successor(c->entry);

	if (!next)
		return;
	files_changed(next, -1);
	entry_perm_changed(next);
}

static void setattr_answered(struct disk_call *c)
{
	struct disk_answer a = { 0 };
	int error = call_errno(c, 0);

	entry_changed(c->entry);
	entry_perm_changed(c->entry);
	if (c->set & DISK_SET_SIZE)
		files_changed(c->entry, error ? -1 : (off_t)c->attrs.size);
	if (!c->entry->attached)
		successor_changed(c);
	/* Who is not the owner: "not permitted", which programs that keep owners know. */
	if (error == -EACCES && !(c->set & DISK_SET_SIZE))
		error = -EPERM;
	if (error) {
		call_explain(c, EXPLAIN_CHANGE, error, c->slot[0].vague);
		return;
	}
	/* Asked for behind the change: it includes it. */
	c->stamp.changes = c->disk->changes;
	error = call_errno(c, 1);
	if (error == 0 && call_other_type(c, &c->slot[1].attrs)) {
		call_gone(c);
		return;
	}
	if (error == 0)
		entry_update(c->disk, c->entry, &c->slot[1].attrs, c->stamp, &a.st);
	call_end(c, error, &a);
}

static const struct sftp_handle *handle_for(const struct disk_call *c)
{
	struct file *f = c->file ? c->file : c->entry->attached ? NULL : file_of(c->entry);

	return f ? file_handle(f) : NULL;
}

static void setattr_ask(struct disk_call *c)
{
	const struct sftp_handle *h = handle_for(c);

	if (h) {
		ASK(0, sftp_fsetstat(SFTP, h, &c->attrs, CALL_ARGS(c, 0)));
		ASK(1, sftp_fstat(SFTP, h, CALL_ARGS(c, 1)));
	} else {
		if (c->entry->known && S_ISLNK(c->entry->st.st_mode))
			ASK(0, sftp_lsetstat(SFTP, c->path, &c->attrs, CALL_ARGS(c, 0)));
		else
			ASK(0, sftp_setstat(SFTP, c->path, &c->attrs, CALL_ARGS(c, 0)));
		ASK(1, sftp_lstat(SFTP, c->path, CALL_ARGS(c, 1)));
	}
}

/* The protocol sets owner and group, and both times, together: add what is not to change. */
static void fill_in(struct disk_call *c, uint32_t uid, uint32_t gid, time_t atime, time_t mtime)
{
	if (!(c->set & DISK_SET_UID))
		c->attrs.uid = uid;
	if (!(c->set & DISK_SET_GID))
		c->attrs.gid = gid;
	if (!(c->set & DISK_SET_ATIME))
		c->attrs.atime = (uint32_t)atime;
	if (!(c->set & DISK_SET_MTIME))
		c->attrs.mtime = (uint32_t)mtime;
}

static void setattr_looked(struct disk_call *c)
{
	struct sftp_attrs now = c->slot[0].attrs;
	int error = call_errno(c, 0);

	if (error) {
		call_end(c, error, NULL);
		return;
	}
	fill_in(c, now.uid, now.gid, now.atime, now.mtime);
	call_clear(c);
	setattr_ask(c);
	call_step(c, setattr_answered);
}

/* Times before 1970 and after 2106 do not fit the protocol. */
static uint32_t wire_time(time_t t)
{
	return t < 0 ? 0 : t > UINT32_MAX ? UINT32_MAX : (uint32_t)t;
}

static void setattr_wanted(struct disk_call *c, const struct stat *st, unsigned set)
{
	const struct disk *disk = c->disk;
	struct sftp_attrs *a = &c->attrs;

	c->set = set;
	*a = (struct sftp_attrs){
		.size = (uint64_t)st->st_size, .perm = st->st_mode & 07777,
		.uid = st->st_uid, .gid = st->st_gid,
		.atime = wire_time(st->st_atime), .mtime = wire_time(st->st_mtime),
	};
	if (disk->uid_known && st->st_uid == disk->own_uid)
		a->uid = disk->uid;
	if (disk->uid_known && st->st_gid == disk->own_gid)
		a->gid = disk->gid;
	if (set & DISK_SET_SIZE)
		a->flags |= SFTP_ATTR_SIZE;
	if (set & DISK_SET_MODE)
		a->flags |= SFTP_ATTR_PERMISSIONS;
	if (set & (DISK_SET_UID | DISK_SET_GID))
		a->flags |= SFTP_ATTR_OWNER;
	if (set & (DISK_SET_ATIME | DISK_SET_MTIME))
		a->flags |= SFTP_ATTR_TIMES;
}

static bool one_of(unsigned set, unsigned a, unsigned b)
{
	return !(set & a) != !(set & b);
}

static int can_set(const struct disk_call *c, unsigned set)
{
	const struct entry *e = c->entry;

	if (e->known && S_ISLNK(e->st.st_mode) &&
	    ((set & DISK_SET_MODE) || !sftp_has(SFTP, SFTP_EXT_LSETSTAT)))
		return -EOPNOTSUPP;
	return handle_for(c) || e->attached ? 0 : -ESTALE;
}

/*
 * What would not change anything, of a file that is still open where it was made: of any other,
 * what is remembered may have been changed in the guest since. Bits that a change of owner takes
 * away are no case for this.
 */
static unsigned already_so(const struct entry *e, const struct sftp_attrs *a, unsigned set)
{
	unsigned same = 0;

	if (!entry_perm_known(e) || (e->st.st_mode & 06000))
		return 0;
	if (a->perm == (e->st.st_mode & 07777))
		same |= DISK_SET_MODE;
	if (a->uid == e->raw_uid)
		same |= DISK_SET_UID;
	if (a->gid == e->raw_gid)
		same |= DISK_SET_GID;
	return set & same;
}

bool disk_setattr_now(struct entry *e, const struct stat *attr, unsigned set, struct stat *st)
{
	const unsigned times = DISK_SET_ATIME | DISK_SET_MTIME, behind = times | DISK_SET_MODE;
	struct disk_call c = { .disk = e->disk };
	struct file *f = file_made_here(e);
	bool fresh = entry_fresh(e, st);

	if (!e->disk || !e->known || S_ISLNK(e->st.st_mode))
		return false;
	setattr_wanted(&c, attr, set);
	if (f)
		set &= ~already_so(e, &c.attrs, set);
	if (!fresh) {
		*st = e->st;
		if (!f || !file_size(f, &st->st_size))
			return false;
	}
	if (!set)
		return true;
	c.attrs.flags = (set & times ? SFTP_ATTR_TIMES : 0) |
			(set & DISK_SET_MODE ? SFTP_ATTR_PERMISSIONS : 0);
	/* Both times are sent: the other one is as it was made, or as it was set since. */
	fill_in(&c, e->raw_uid, e->raw_gid, e->st.st_atime, e->st.st_mtime);
	if ((set & ~behind) || (set & times) == DISK_SET_ATIME || !f ||
	    file_set_behind(f, &c.attrs) < 0)
		return false;
	if (set & times) {
		st->st_atime = c.attrs.atime;
		st->st_mtime = st->st_ctime = c.attrs.mtime;
	}
	if (set & DISK_SET_MODE)
		st->st_mode = (st->st_mode & S_IFMT) | c.attrs.perm;
	e->st = *st;
	return true;
}

int disk_setattr(struct disk *disk, struct entry *e, struct file *file, const struct stat *attr,
		 unsigned set, disk_cb *done, void *user, struct disk_call **out)
{
	struct disk_call *c;
	int r;

	if (!e->attached && !file && !file_of(e))
		e = entry_to_ask(e);
	c = call_about(disk, e, done, user, &r);
	if (!c)
		return r;
	c->file = file;
	r = can_set(c, set);
	if (r < 0) {
		call_free(c);
		return r;
	}
	if (set & (DISK_SET_MODE | DISK_SET_UID | DISK_SET_GID))
		entry_perm_changed(e);
	setattr_wanted(c, attr, set);
	if (one_of(set, DISK_SET_UID, DISK_SET_GID) ||
	    one_of(set, DISK_SET_ATIME, DISK_SET_MTIME)) {
		const struct sftp_handle *h = handle_for(c);

		/* What is remembered would undo what the guest has just done. */
		ASK(0, h ? sftp_fstat(SFTP, h, CALL_ARGS(c, 0)) :
			   sftp_lstat(SFTP, c->path, CALL_ARGS(c, 0)));
		return call_start(c, setattr_looked, out);
	}
	setattr_ask(c);
	return call_start(c, setattr_answered, out);
}
