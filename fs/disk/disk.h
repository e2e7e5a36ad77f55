/*
 * One VM's disk as programs see it, over the SFTP channel of its SSH connection.
 *
 * Names are entries: (folder, name), counted, one for each name that somebody
 * holds, with the attributes last seen. Calls take entries, not paths: so an
 * entry keeps its identity over a rename, and a call that changes something has
 * updated what is known of it before its answer comes.
 *
 * Contract of every call that takes a disk_cb: < 0 is refused, nothing is kept
 * and done never runs. 0 is accepted: done runs exactly once, later from the loop (or from
 * inside disk_detach and disk_destroy), unless disk_cancel came first. The call's
 * pointer is valid until then. Names and attributes are copied. No error is ever
 * -ENOSYS (the kernel would take that for the whole mount), but disk_ready's.
 */
#ifndef SBXFS_DISK_DISK_H
#define SBXFS_DISK_DISK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "wait.h"

struct disk;
struct disk_cache;
struct disk_call;
struct entry;
struct err;
struct file;
struct listing;
struct loop;
struct ssh;

/* --- the connection -------------------------------------------------------- */

/* What all disks together remember of their guests, in at most budget bytes. */
struct disk_cache *disk_cache_create(struct loop *, size_t budget);
/* Each disk holds a reference, and who made it. Takes NULL. */
void disk_cache_unref(struct disk_cache *);
size_t disk_cache_used(const struct disk_cache *);

/* One a VM; lives as long as the VM does. */
struct disk *disk_create(struct loop *, struct disk_cache *);
/* Calls that are left are answered -ESTALE from inside. Takes NULL. */
void disk_destroy(struct disk *);
/*
 * The VM's connection is up. The SFTP channel is opened when it is first needed; sudo:
 * the server runs as root, by `sudo -n`.
 */
void disk_attach(struct disk *, struct ssh *, bool sudo);
/*
 * The link is lost: all calls are answered -EHOSTDOWN, from inside. Open files go on
 * after the next attach where size and time still match, else they are -ESTALE.
 */
void disk_detach(struct disk *);
/*
 * 0: calls can be made. -EAGAIN: being opened (asking starts it); news on disk_news.
 * -EHOSTDOWN: detached. -ENOSYS: the guest has no sftp-server. Else why it failed,
 * a moment ago: disk_error has the sentence.
 */
int disk_ready(struct disk *);
struct wait_list *disk_news(struct disk *);
/* Why the channel was last given up; code 0: never. Borrowed. */
const struct err *disk_error(const struct disk *);
/* A command ended: whatever is remembered of the disk is to be checked again. */
void disk_job_ended(struct disk *);
/* A command said something: the same; again within a tenth of a second if it goes on. */
void disk_job_spoke(struct disk *);
/*
 * The kernel may keep names for as long as what it was told of them holds: yes, only while no
 * command runs and who says so can call all of them back at once. No at first. Returns whether
 * some may be out: they are to be called back when the answer is no from now on.
 */
bool disk_lend_names(struct disk *, bool yes);
/* For how many seconds: held while names are lent, else 0. */
double disk_lend(struct disk *, double held);
/* For how many seconds a folder's names are all known; 0: they are not. */
double disk_names_hold(const struct entry *dir);
/*
 * Another number whenever names come or go in that folder, and whenever all of them were fetched:
 * with the same number disk_opendir_now gives the same names in the same order.
 */
uint64_t disk_edition(const struct entry *dir);
/* All are known, and should any come or go without us, the folder's time will tell. */
bool disk_names_settled(const struct entry *dir);
/*
 * The server grants no further channel on the connection: is there one that the disk can do
 * without? It is closed before long then, and not opened again. Takes NULL.
 */
bool disk_yields_channel(struct disk *);
/* For tests: writes use a second channel from that round trip and that length on (10, 16 MiB). */
void disk_spread_from(struct disk *, int round_trip_ms, size_t bytes);
/* Open files, listings or calls: the link is not idle. */
bool disk_in_use(const struct disk *);

/* --- names ------------------------------------------------------------------- */

/* "/"; borrowed, as long-lived as the disk. */
struct entry *disk_root(struct disk *);
/* The entry of that name, known or new, with a reference more. */
struct entry *entry_get(struct entry *dir, const char *name);
/* The known one, borrowed, or NULL. */
struct entry *entry_find(struct entry *dir, const char *name);
struct entry *entry_ref(struct entry *);
void entry_unref(struct entry *);		/* takes NULL */
/* Does its name still lead to it? No longer after unlink, rmdir, or being replaced. */
bool entry_attached(const struct entry *);
/*
 * The inode number that it is shown with: its own, which its first user gives it, or
 * that of the file it was linked to.
 */
uint64_t entry_number(struct entry *, uint64_t own);
/* Attributes that may be told without asking the guest: seen less than a second ago. */
bool entry_fresh(const struct entry *, struct stat *);
/* What was last seen of one that has lost its name; false: it has one, or nothing was. */
bool entry_last(const struct entry *, struct stat *);
/*
 * st is about to be told to the kernel. Returns for how long it may be believed, in
 * seconds, and remembers it: an open that finds the file otherwise tells the kernel.
 */
double entry_tell(struct entry *, const struct stat *);
/* Is that another size or time than the kernel was told last? It throws the contents away then. */
bool entry_told_otherwise(const struct entry *, const struct stat *);

/* --- calls ------------------------------------------------------------------- */

/*
 * Which of the fields hold is said at the calls. st_ino is always 0. Two errors say that it is
 * not known: -ESHUTDOWN, the server ended by itself, perhaps before it saw the call; -ERESTART, a
 * folder was renamed meanwhile and nothing was found by the old path.
 */
struct disk_answer {
	struct stat st;
	struct entry *entry;	/* borrowed */
	struct file *file;	/* yours: file_close */
	struct listing *listing;/* yours: listing_close */
	const char *text;	/* borrowed */
	struct statvfs vfs;
};
typedef void disk_cb(void *user, int error, const struct disk_answer *);

void disk_cancel(struct disk_call *);

/*
 * From memory, and now: what is believed of a name, a link, a file that is to be read, or a
 * folder. lookup: 1 (*e borrowed and *st), -ENOENT, or 0: ask. The others: false or NULL: ask.
 */
int disk_lookup_now(struct entry *dir, const char *name, struct entry **e, struct stat *st);
bool disk_readlink_now(struct entry *, const char **text);	/* borrowed */
bool disk_open_now(struct entry *, int flags, struct disk_answer *);
struct listing *disk_opendir_now(struct entry *);
/* Not yet, but it is on its way: there is news here when it is, or will not be. Else NULL. */
struct wait_list *disk_opendir_coming(struct entry *);
/* st, entry. -ENOENT also detaches what was known by that name. */
int disk_lookup(struct disk *, struct entry *dir, const char *name, disk_cb *, void *user,
		struct disk_call **);
/* st. file (may be NULL): ask by its handle. */
int disk_getattr(struct disk *, struct entry *, struct file *, disk_cb *, void *user,
		 struct disk_call **);
enum {
	DISK_SET_MODE = 1 << 0, DISK_SET_UID = 1 << 1, DISK_SET_GID = 1 << 2,
	DISK_SET_SIZE = 1 << 3, DISK_SET_ATIME = 1 << 4, DISK_SET_MTIME = 1 << 5,
};
/* st. Only the fields of *attr that set names are used; times are whole seconds. */
int disk_setattr(struct disk *, struct entry *, struct file *, const struct stat *attr,
		 unsigned set, disk_cb *, void *user, struct disk_call **);
/*
 * The same where nobody has to wait for it: what is set is so already, or it can only
 * fail where the next flush of that file fails too (write.c). False: call disk_setattr.
 */
bool disk_setattr_now(struct entry *, const struct stat *attr, unsigned set, struct stat *st);
/* text: as link.h says, it never leads outside. */
int disk_readlink(struct disk *, struct entry *, disk_cb *, void *user, struct disk_call **);
/* st, entry */
int disk_mkdir(struct disk *, struct entry *dir, const char *name, mode_t, disk_cb *, void *user,
	       struct disk_call **);
/* st, entry: an empty regular file */
int disk_mknod(struct disk *, struct entry *dir, const char *name, mode_t, disk_cb *, void *user,
	       struct disk_call **);
/* st, entry */
int disk_symlink(struct disk *, struct entry *dir, const char *name, const char *text, disk_cb *,
		 void *user, struct disk_call **);
/* st, entry (of the new name) */
int disk_link(struct disk *, struct entry *, struct entry *dir, const char *name, disk_cb *,
	      void *user, struct disk_call **);
int disk_unlink(struct disk *, struct entry *dir, const char *name, disk_cb *, void *user,
		struct disk_call **);
int disk_rmdir(struct disk *, struct entry *dir, const char *name, disk_cb *, void *user,
	       struct disk_call **);
/* Replaces atomically; keep: -EEXIST instead. */
int disk_rename(struct disk *, struct entry *dir, const char *name, struct entry *newdir,
		const char *newname, bool keep, disk_cb *, void *user, struct disk_call **);
/* vfs */
int disk_statfs(struct disk *, struct entry *, disk_cb *, void *user, struct disk_call **);
/*
 * st, file. flags as of open(2). -ESTALE, once: it is not what the kernel was told
 * of it; entry has been brought up to date, and the kernel will look it up and try again.
 */
int disk_open(struct disk *, struct entry *, int flags, disk_cb *, void *user,
	      struct disk_call **);
/* st, entry, file */
int disk_create_file(struct disk *, struct entry *dir, const char *name, int flags, mode_t,
		     disk_cb *, void *user, struct disk_call **);

/* --- listings ----------------------------------------------------------------- */

/* listing: it is being fetched. */
int disk_opendir(struct disk *, struct entry *, disk_cb *, void *user, struct disk_call **);
/* 0: all of it is there. -EAGAIN: not yet; news on listing_news. Else why it failed. */
int listing_ready(struct listing *);
/* 0: the item i is there, or there are no more. Else as above. Items never change their place. */
int listing_reaches(struct listing *, size_t i);
struct wait_list *listing_news(struct listing *);
size_t listing_count(const struct listing *);
/* The name, borrowed, and the type bits (0: not known) of an item. */
const char *listing_name(const struct listing *, size_t i, mode_t *type);
/*
 * The entry of an item, with a reference more, and its attributes; NULL when the server
 * did not tell enough.
 */
struct entry *listing_entry(struct listing *, size_t i, struct stat *);
void listing_close(struct listing *);		/* takes NULL */

#endif
