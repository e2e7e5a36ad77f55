/* What the files of disk/ share; nobody else includes it. */
#ifndef SBXFS_DISK_INTERNAL_H
#define SBXFS_DISK_INTERNAL_H

#include <limits.h>
#include <uthash.h>

#include "disk.h"
#include "err.h"
#include "file.h"
#include "list.h"
#include "loop.h"
#include "sftp.h"

struct ssh_channel;
struct ssh_channel_ops;
struct stripe;

/* How long what was seen of a name may be told without asking again. */
#define FRESH_MS 1000
/* Readahead that one disk holds or has asked for, at most. */
#define AHEAD_MAX (8u * 1024 * 1024)

enum link_state {
	DISK_DETACHED,	/* no SSH connection: -> CLOSED */
	DISK_CLOSED,	/* no channel: -> OPENING when somebody wants it, DETACHED */
	DISK_OPENING,	/* greeting, then who we are: -> READY, CLOSED (failed), DETACHED */
	DISK_READY,	/* -> CLOSED (the server ended it, or broke the protocol), DETACHED */
};

struct disk {
	struct loop *loop;
	struct ssh *ssh;
	bool sudo;
	char said[200];			/* the last that the server wrote to standard error */
	enum link_state state;
	struct ssh_channel *channel;
	struct sftp *sftp;
	struct wait_list news;
	struct err err;
	int64_t retry_at;		/* CLOSED: until then err.code is the answer */
	struct loop_timer retry;
	unsigned asking;		/* OPENING: calls that tell who we are */
	bool uid_known;
	uint32_t uid, gid;		/* of the login user, in the guest */
	uid_t own_uid;			/* the daemon's: what those are shown as */
	gid_t own_gid;
	struct entry *root;
	bool lend;			/* names, to the kernel */
	int64_t lent_at;		/* the latest of them; 0: none since the last call back */
	struct disk_cache *cache;
	struct scan *scan;
	struct stripe *stripe;
	unsigned rounds;		/* counts listings */
	struct list calls, files, listings;
	struct list held;		/* entries: see twins.c */
	unsigned held_count;
	uint64_t changes;		/* counts changes made through here */
	uint64_t moves;			/* counts folders renamed through here */
	uint64_t jobs;			/* counts commands that ended, or said something */
	struct loop_timer spoke;	/* a command did, a moment ago */
	bool spoke_again;
	size_t ahead;			/* bytes of readahead held or asked for */
	struct loop_timer expire;	/* drops readahead that nobody came for */
};

/*
 * When something was asked of the guest. What comes back is as of then or later:
 * worthless when the name was changed through here since, and to be asked again when a
 * command has ended since. What was asked by a path while a folder was being renamed may be told
 * of nothing, or of something else.
 */
struct stamp {
	uint64_t changes, jobs, moves;
};

/* What is remembered of a folder: see cache.c and, for the second half, scan.c. */
struct folder {
	struct list lru;		/* cache->folders */
	struct disk_cache *cache;
	struct entry *dir;		/* counted */
	size_t cost;
	int64_t used;
	struct listing *marking;	/* the one that may make it complete */
	bool complete;			/* its entries are all its names, as of: */
	int64_t when;
	uint64_t jobs;
	int64_t visited, child_visited;	/* somebody looked into it, into a folder of it */
	int64_t opened;			/* somebody listed it */
	int64_t missed, read_at;
	unsigned misses, reads;		/* in a row */
	char missed_name[32];		/* the beginning of the latest */
};

struct entry {
	struct disk *disk;		/* NULL once the disk is gone */
	struct entry *parent;		/* counted; NULL for the root and when detached */
	struct entry *was_in;		/* counted: where it had its name before it was detached */
	char *name;
	UT_hash_handle hh;		/* parent->children, while attached */
	struct entry *children;
	unsigned refs;
	bool attached;
	uint32_t clear_at;		/* scan.c: a walk had far to go from here, then, in ms */
	struct folder *folder;		/* what is remembered of its names, or NULL */
	uint64_t edition;		/* of its names: disk_edition */
	uint64_t moved;			/* disk->changes when it was renamed; 0: never */
	bool kept;			/* by its folder's record, with a reference */
	unsigned round;			/* of the listing that told of it last */
	int64_t read_at;		/* when somebody opened it to read it */
	int64_t scanned;		/* when it was last listed or fetched ahead */
	struct file *parked;		/* opened ahead: see ahead.c */
	char *text;			/* of a link, as shown; believed like attributes */
	int64_t text_when;
	uint64_t text_jobs;
	struct list files;		/* open files of it */
	struct list twins;	/* a ring: other names of the same file, linked through here */
	bool held;			/* for that, with a reference, in disk->held */
	struct list held_link;
	uint64_t number;		/* the inode number it is shown with; 0: none yet */
	/* the attributes last seen, as the guest tells them but for the owner */
	bool known;
	struct stat st;
	uint32_t raw_uid, raw_gid;
	int64_t when;			/* they came; 0: to be asked again */
	int64_t perm_when;	/* the same of mode and owner, which a write does not change */
	uint64_t jobs;			/* disk->jobs when they were asked for */
	uint64_t changed;		/* disk->changes at the last change through here */
	uint64_t made;			/* disk->changes when it was made through here; 0: it was not */
	uint64_t below_changed;		/* the latest of names in it that nobody holds any more */
	/* the kernel: what it was told, and what it may have in its page cache */
	int64_t told_until;		/* what it was told holds until then; 0: for that call */
	off_t told_size;
	time_t told_mtime;
	int64_t retold;			/* -ESTALE was the answer to an open of its name, then */
	int64_t pair_since;		/* this size and time were seen first then; 0: never */
	int64_t cached_since;		/* pages it has were read after that; 0: none may be kept */
};

/* --- entry.c --- */
struct entry *entry_create_root(struct disk *);
/* Forget all names (the disk is going away). */
void entry_forget_all(struct entry *root);
/*
 * The path of e, or of name in e. 0, -ENAMETOOLONG, or -ENOENT: it has none any more.
 * path has PATH_MAX bytes.
 */
int entry_path(const struct entry *e, const char *name, char *path);
struct stamp entry_stamp(const struct disk *);
/* The paths of then may not be those of now. */
bool stamp_moved(const struct disk *, struct stamp);
/*
 * Attributes came for (dir, name), asked for at the stamp: its entry, with a reference more,
 * brought up to date. A known one of another type is detached first: it is another file.
 */
struct entry *entry_seen(struct disk *, struct entry *dir, const char *name,
			 const struct sftp_attrs *, struct stamp, struct stat *st);
/* The same for an entry itself; its type must be the same. */
void entry_update(struct disk *, struct entry *, const struct sftp_attrs *, struct stamp,
		  struct stat *st);
/* There is no such name, as of the stamp. */
void entry_missing(struct entry *dir, const char *name, struct stamp);
/* Changed through here: nothing asked for before now tells anything about it. */
void entry_changed(struct entry *);		/* takes NULL */
/* Mode or owner are being changed. */
void entry_perm_changed(struct entry *);
/* Mode and owner as they are now, if that is known as well as anything: in e->st. */
bool entry_perm_known(const struct entry *);
/* The same for a folder that has lost a name: what an older listing says is history. */
void entry_names_changed(struct entry *dir);
/* The name does not lead to it any more. */
void entry_detach(struct entry *);
/* What has its name now, borrowed, as far as that is known; or NULL. */
struct entry *entry_successor(const struct entry *);
/* The kernel is being told to look again, and again it may come too late. */
void entry_retold(struct entry *);
bool entry_was_retold(const struct entry *);
/*
 * e is to be asked for by its name: it itself, or what has its name now, if the kernel comes late
 * for the second time (it looks only twice); else it is told to look again: e.
 */
struct entry *entry_to_ask(struct entry *);
void entry_move(struct entry *, struct entry *dir, const char *name);
/* Attributes as a struct stat, the login user shown as the owner of the mount. */
void disk_stat(const struct disk *, const struct sftp_attrs *, struct stat *);

/* --- twins.c --- */
/* e is a new name of the file source. */
void twins_join(struct entry *e, struct entry *source);
/* e was brought up to date: is it still one file with its twins? */
void twins_check(struct entry *e);
/*
 * e has lost its name: it is not held any more, but a twin for as long as it is open. May free
 * it.
 */
void twins_let_go(struct entry *e);

/* --- cache.c --- */
struct disk_cache *disk_cache_ref(struct disk_cache *);
/* The record of a folder, made if need be. Any other call here may drop any record. */
struct folder *folder_get(struct entry *dir);
void folder_destroy(struct folder *);
/* Keep an entry for its folder's record, if there is one. */
void folder_keep(struct entry *);
/* It has left dir: do not keep it. May free it. */
void folder_lose(struct entry *, struct entry *dir);
/* Something happened, or did not, in the folder: nobody knows. Takes NULL. */
void folder_uncertain(struct entry *dir);
bool folder_is_complete(const struct entry *dir);
/* It was made through here just now: it is empty. */
void folder_is_new(struct entry *dir, struct stamp);
/* A listing begins: the round its entries are marked with, or 0: another one does that. */
unsigned folder_mark(struct entry *dir, struct listing *);
void folder_unmark(struct entry *dir, struct listing *);
/* It has told all names, begun at the stamp. */
void folder_listed(struct entry *dir, struct listing *, unsigned round, struct stamp, int64_t when);

/* --- scan.c: what is going to be asked for next --- */
struct scan *scan_create(struct disk *);
void scan_destroy(struct scan *);		/* takes NULL */
/* The channel goes: nothing is ahead any more. */
void scan_stop(struct scan *);
struct ahead *scan_ahead(struct scan *);
/* A user opened the folder to list it, or looked names up in it. */
void scan_list(struct entry *dir);
void scan_hit(struct entry *dir);
void scan_miss(struct entry *dir, const char *name);
/* A user opened the file to read it. */
void scan_read(struct entry *, bool was_ahead);

/* --- ahead.c: asking for it --- */
struct ahead;
struct ahead *ahead_create(struct disk *, void (*came)(struct disk *));
void ahead_destroy(struct ahead *);
void ahead_stop(struct ahead *);
/* Fetch the listing of a folder, the contents of a small file, the text of a link. False: no. */
bool ahead_fetch(struct ahead *, struct entry *);
/* Is it there, or on its way? */
bool ahead_has(const struct entry *);
/* How many can be asked for: folders, files. */
unsigned ahead_room_lists(const struct ahead *);
unsigned ahead_room_files(const struct ahead *);
/* The parked file, for its user; or NULL. */
struct file *ahead_take(struct entry *);
/* What is parked is history. */
void ahead_drop(struct entry *);
/* Files that were fetched and never taken, and those that were, lately. */
bool ahead_is_wasted(const struct ahead *);

/* --- call.c: a call is up to SLOTS requests at a time, then the next step --- */

struct slot {
	struct disk_call *call;
	struct sftp_call *sftp;		/* while under way */
	int error;
	bool vague;
	struct sftp_attrs attrs;
	struct sftp_statvfs vfs;
	struct sftp_handle *handle;
	char *text;
};
#define SLOTS 5
/* The attributes of the folder in which something was changed, asked for behind that. */
#define DIR_SLOT 4

/* What failed, for explain.c. */
enum explain { EXPLAIN_OPEN, EXPLAIN_MAKE, EXPLAIN_REMOVE, EXPLAIN_RMDIR, EXPLAIN_RENAME,
	       EXPLAIN_LINK, EXPLAIN_CHANGE, EXPLAIN_WRITE };

struct disk_call {
	struct disk *disk;
	struct list link;
	struct slot slot[SLOTS];
	unsigned waiting;			/* slots under way */
	void (*next)(struct disk_call *);	/* when none is any more */
	struct stamp stamp;			/* of the requests under way */
	struct entry *entry, *dir, *dir2, *source;	/* counted */
	struct file *file;			/* borrowed; NULL when it was closed */
	char *name, *name2, *text;
	char *path, *path2;
	int flags;
	mode_t mode;
	size_t limit;
	struct sftp_attrs attrs;
	unsigned set;
	struct sftp_handle *ahead;		/* for disk_call_handle */
	enum explain what;
	bool made;				/* by this call, and not found there */
	int error;				/* to be explained */
	unsigned tries;				/* of names_remove, open_create_again */
	disk_cb *done;				/* may be NULL: nobody waits */
	void *user;
};

/*
 * A new call about e, or about name in it (path is then set). NULL and *error when it cannot be
 * made. done may be NULL.
 */
struct disk_call *call_create(struct disk *, struct entry *e, const char *name, disk_cb *done,
			      void *user, int *error);
/* Drop it: refused, or cancelled. */
void call_free(struct disk_call *);
/*
 * The requests of a step are noted one by one, and the step ends with call_start
 * or call_step:
 *	call_asked(c, i, sftp_x(…, CALL_ARGS(c, i)));
 */
sftp_cb call_answered;
#define CALL_ARGS(c, i)	call_answered, &(c)->slot[i], &(c)->slot[i].sftp
void call_asked(struct disk_call *, unsigned i, int r);
/* Before the requests of a further step: the answers of the last one are dropped. */
void call_clear(struct disk_call *);
/* 0, or (all requests were refused) < 0 and the call is gone. */
int call_start(struct disk_call *, void (*next)(struct disk_call *), struct disk_call **out);
/* The same for a further step: it never fails, next may run at once. */
void call_step(struct disk_call *, void (*next)(struct disk_call *));
/* The end: answer and free. answer may be NULL. */
void call_end(struct disk_call *, int error, const struct disk_answer *answer);
/* Ask for those of c->dir; they came, if they did: what is known of it is up to date. */
void call_ask_dir(struct disk_call *);
void call_dir_came(struct disk_call *);
/* The errno of a slot's answer, for a path; -ERESTART: the path was another one meanwhile. */
int call_errno(const struct disk_call *, unsigned i);
void call_take_handle(struct disk_call *, unsigned i, struct sftp_handle **);
/* The end: what was to be opened has gone, or is another. The kernel looks again: -ESTALE. */
void call_gone(struct disk_call *);

/* For a call about an entry that may have lost its name: its path is then that of nothing. */
struct disk_call *call_about(struct disk *, struct entry *, disk_cb *done, void *user, int *error);
/* What has the entry's name now is of another type: the kernel must look it up anew. */
bool call_other_type(const struct disk_call *, const struct sftp_attrs *);
/* By slot i, the attributes of its path: has that gone, or become something else? */
bool call_is_another(const struct disk_call *, unsigned i);
/*
 * Permissions that were asked for (c->mode) and that the server's umask took away. The caller's
 * own umask has been applied by the kernel, so they are to be given back.
 */
mode_t call_missing_bits(const struct disk_call *, const struct sftp_attrs *);
struct sftp_attrs call_with_bits(const struct sftp_attrs *, mode_t bits);

/* A call about (dir, name) or about an entry; returns from its caller when there is none. */
#define CALL_CREATE(e, name)						\
	int r;								\
	struct disk_call *c = call_create(disk, e, name, done, user, &r);	\
									\
	if (!c)								\
		return r
/* A channel that ends in the middle of a call answers its requests one by one: it is gone then. */
#define ASK(i, request) call_asked(c, i, disk_lost(c->disk) ? disk_lost(c->disk) : (request))
#define SFTP (c->disk->sftp)

/* --- disk.c --- */
/*
 * 0: requests can be sent now. < 0: the channel is gone, or going (its calls are being answered):
 * what those are answered. -ESHUTDOWN: the server has ended, another one can be had.
 */
int disk_lost(const struct disk *);
/* Ask for a channel with a server on it; as ssh_exec. */
int disk_server(struct disk *, const struct ssh_channel_ops *, void *user, struct ssh_channel **);

/* --- stripe.c: a second channel for the bulk of a file that is written --- */
struct stripe *stripe_create(struct disk *);
void stripe_destroy(struct stripe *);
/* There is a new connection. */
void stripe_attached(struct stripe *);
/* The first channel, or the second one, is lost: what is under way is answered with error. */
void stripe_drop(struct stripe *, int error);

/* --- names.c --- */
/* disk_unlink's call once more, from its start. */
void names_remove(struct disk_call *);

/* --- open.c --- */
/* disk_create_file's call once more, from its start. False: it is none, or has had its tries. */
bool open_create_again(struct disk_call *);

/* --- explain.c: what a mere FAILURE was --- */
/*
 * End the call with error, after finding out what it means when it is vague. The call's
 * path (and path2) are what it was about.
 */
void call_explain(struct disk_call *, enum explain, int error, bool vague);
/* The same for a write to e that failed; the callback's error is what it means. < 0: cannot ask. */
int disk_explain_write(struct disk *, struct entry *e, disk_cb *, void *user,
		       struct disk_call **);

/* --- file.c --- */
/* An open file; the handle is taken. */
struct file *file_create(struct disk *, struct entry *, struct sftp_handle *, int flags,
			 const struct sftp_attrs *);
void file_set_made(struct file *);
void file_set_cache(struct file *, bool keep, bool bypass);
/* The handle to ask by, or NULL when there is none now. */
const struct sftp_handle *file_handle(const struct file *);
/* A file with a handle that is open on e, or NULL. */
struct file *file_of(const struct entry *e);
/* A file that is open on e by which the same handle wrote that has made it; or NULL. */
struct file *file_made_here(const struct entry *e);
/* Set attributes of an open file behind what was written; the verdict is the next flush's. */
int file_set_behind(struct file *, const struct sftp_attrs *);
/* How long it is as far as is known here. */
bool file_size(const struct file *, off_t *);
/* What was read ahead of any file of e is stale; size < 0: not known any more. */
void files_changed(struct entry *e, off_t size);
/* A command ended: what was read ahead may be stale. */
void files_new_epoch(struct disk *);
/* The connection is gone (and all requests were answered): the handles mean nothing now. */
void files_lost(struct disk *);
/* The disk is gone: calls are answered -ESTALE. */
void files_orphan(struct disk *);
void file_expire(struct loop_timer *);
uint32_t file_sftp_flags(int flags);

/* --- open.c, for ahead.c --- */
/* listing: at most so many names. */
int disk_list_ahead(struct disk *, struct entry *, size_t limit, disk_cb *, void *user,
		    struct disk_call **);
/* Open it to read: disk_call_handle is to be asked from inside done. */
int disk_open_ahead(struct disk *, struct entry *, disk_cb *, void *user, struct disk_call **);
struct sftp_handle *disk_call_handle(struct disk_call *);

/* --- listing.c --- */
/*
 * Fetch it; -EFBIG beyond limit names (0: many), and then -ESTALE when its path changes meanwhile.
 * The handle, asked for at the stamp, is taken.
 */
struct listing *listing_create(struct disk *, struct entry *, struct sftp_handle *, struct stamp,
			       size_t limit);
/* top has been renamed (NULL: nobody knows what). */
void listings_moved(struct disk *, const struct entry *top);
void listings_lost(struct disk *);
void listings_orphan(struct disk *);

#endif
