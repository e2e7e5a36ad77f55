/* What remote_node.c and remote_file.c share; nobody else includes it. */
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

/*
 * The disk that node is on. 0 and *disk; or the op has to return r: "if (remote_disk(…, &r))
 * return r;" (it waits, or there is no disk).
 */
bool remote_disk(struct req *, struct node *, struct disk **, int *r);
/* What is known of the node on that disk, borrowed. */
struct entry *remote_entry(const struct node *, struct disk *);
/* The node of a name that was found or made, with a reference more. */
struct node *remote_child(struct node *dir, const char *name, struct entry *, mode_t);
/* A call is under way (or r < 0: was refused): what the op returns. */
int remote_hold(struct req *, const char *operation, struct disk_call *, int r);
/* A call was answered with an error: reply it, and note it where users look for the sentence. */
void remote_fail(struct req *, int error);
/* Fill a stat for the kernel; returns for how long it holds. */
double remote_stat(const struct node *, struct stat *);
/* For how long the kernel may keep the name of something in dir whose attributes hold so long. */
double remote_lend(const struct node *dir, double held);

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
