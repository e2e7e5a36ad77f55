/*
 * Scratch files: what editors put beside the file they save.
 *
 * In the folders of sandboxes, jobs and drafts a program may make small files of its own
 * (a temporary file, a backup, a swap file). They live in memory, with the mount, for an
 * hour after their last change, and longer while they are open. Renamed
 * over a fixed file that can be written, their content is written to it; a
 * fixed file that is renamed to such a name is copied there and stays.
 */
#ifndef SBXFS_TREE_SCRATCH_H
#define SBXFS_TREE_SCRATCH_H

#include "node.h"

struct dirbuf;
struct err;

extern const struct node_ops scratch_ops;

/* Ops of a folder that may hold scratch files; its lookup_now knows the fixed names. */
int scratch_lookup(struct node *dir, const char *name, struct node **child);
void scratch_list(struct node *dir, struct dirbuf *);
int scratch_create(struct req *, struct node *dir, const char *name, mode_t,
		   struct fuse_file_info *);
int scratch_unlink(struct req *, struct node *dir, const char *name);
int scratch_rename(struct req *, struct node *dir, const char *name, struct node *newdir,
		   const char *newname, unsigned flags);
/* The mount is going: free them all. */
void scratch_finish(struct tree *);

#endif
