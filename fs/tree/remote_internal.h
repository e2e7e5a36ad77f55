/* What the files of root/ (remote_*.c) share; nobody else includes it. */
#ifndef SBXFS_TREE_REMOTE_INTERNAL_H
#define SBXFS_TREE_REMOTE_INTERNAL_H

#include "disk.h"
#include "file.h"
#include "node.h"
#include "req_internal.h"
#include "tree_internal.h"
#include "vm.h"

/* How long a request waits for a sandbox that is being made or boots. */
#define REMOTE_WAIT_MS 120000

/* remote_call.c */

/*
 * The disk that node is on. 0 and *disk; or the op has to return r: "if (remote_disk(…, &r))
 * return r;" (it waits, or there is no disk).
 */
bool remote_disk(struct req *, struct node *, struct disk **, int *r);
/* A call is under way (or r < 0: was refused): what the op returns. */
int remote_hold(struct req *, const char *operation, struct disk_call *, int r);
/* A call was answered with an error: reply it, and note it where users look for the sentence. */
void remote_fail(struct req *, int error);
/* The first line of a done: the call is over. Returns the error that was replied, or 0. */
int remote_answered(struct req *, int error);

/* pages.c */

/* A read came: it is looked at whether its asker is still there, until it is answered. */
void pages_watch(struct tree *);
/* Reads that fill the kernel's pages of node are on their way, since before req first waited. */
bool pages_locked(const struct req *, const struct node *);
/*
 * Would the kernel, told that of node (NULL: it knows none; or one of another entry), throw away
 * what somebody reads?
 */
bool pages_busy(const struct req *, const struct node *, const struct entry *,
		const struct stat *);
/* Then the req waits, and its op runs again; return 0. */
bool pages_wait(struct req *, const struct node *, const struct entry *, const struct stat *);

/* remote_node.c */

/* Is it `root` itself? Is it anything below a root/ at all? */
bool remote_is_root(const struct node *);
bool remote_is(const struct node *);
/* What is known of the node on that disk, borrowed. */
struct entry *remote_entry(const struct node *, struct disk *);
/* The node of a name that was found or made, with a reference more. */
struct node *remote_child(struct node *dir, const char *name, struct entry *, mode_t);
/* Fill a stat for the kernel; returns for how long it holds. */
double remote_stat(const struct node *, struct stat *);
/* For how long the kernel may keep the name of something in dir whose attributes hold so long. */
double remote_lend(const struct node *dir, double held);

/* remote_look.c */

/* req->name in the folder dir was found or made. */
void remote_reply_entry(struct req *, struct node *dir, struct entry *, struct stat);
int remote_lookup(struct req *, struct node *dir, const char *name);
int remote_getattr(struct req *, struct node *, struct handle *);
int remote_setattr(struct req *, struct node *, struct handle *, const struct stat *, int to_set);
int remote_readlink(struct req *, struct node *);
int remote_statfs(struct req *, struct node *);

/* remote_change.c */

int remote_mkdir(struct req *, struct node *dir, const char *name, mode_t);
int remote_mknod(struct req *, struct node *dir, const char *name, mode_t);
int remote_symlink(struct req *, struct node *dir, const char *name, const char *text);
int remote_link(struct req *, struct node *, struct node *dir, const char *name);
int remote_unlink(struct req *, struct node *dir, const char *name);
int remote_rmdir(struct req *, struct node *dir, const char *name);
int remote_rename(struct req *, struct node *dir, const char *name, struct node *newdir,
		  const char *newname, unsigned flags);

/* remote_file.c */

int remote_open(struct req *, struct node *, struct handle *, struct fuse_file_info *);
int remote_create(struct req *, struct node *, const char *name, mode_t, struct fuse_file_info *);
int remote_read(struct req *, struct handle *, size_t, off_t);
int remote_write(struct req *, struct handle *, const void *, size_t, off_t);
int remote_copy(struct req *, struct handle *in, off_t, struct handle *out, off_t, size_t);
int remote_flush(struct req *, struct handle *);
int remote_fsync(struct req *, struct handle *, bool data_only);
void remote_release(struct handle *);
int remote_opendir(struct req *, struct node *, struct handle *, struct fuse_file_info *);
int remote_readdir(struct req *, struct handle *, size_t, off_t, bool plus);
void remote_releasedir(struct handle *);

#endif
