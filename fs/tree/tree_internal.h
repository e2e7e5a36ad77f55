/* What the files of fs/tree share about the tree as a whole. */
#ifndef SBXFS_TREE_INTERNAL_H
#define SBXFS_TREE_INTERNAL_H

#include "node.h"
#include "req.h"
#include "tree.h"

struct tree {
	struct loop *loop;
	struct fleet *fleet;
	struct tree_conf conf;
	struct fuse_session *session;
	struct loop_fd fd;
	struct fuse_buf buf;		/* one request, reused */
	struct loop_fd table;		/* /proc/self/mountinfo: is the mount still there? */
	int table_fd, mount_id;
	bool mounted;
	bool parallel_dirops, handle_killpriv, init_sent;	/* see mount.c */
	uid_t uid;
	gid_t gid;
	int64_t started;		/* ms since the epoch */
	/* nodes */
	struct node *by_ino, *by_name;
	struct node *root;
	uint64_t next_ino, next_fh;
	struct list reqs;		/* outstanding, oldest first */
	int64_t hold_ms;		/* hold.c; 0: as long as need be */
	struct loop_timer hold_timer;
	struct loop_timer pages_timer;	/* pages.c; */
	struct wait_list pages_news;	/* a read was answered */
	struct list handles;
	struct list scratch;		/* scratch.c */
	struct loop_timer scratch_timer;
};

/* fuse_ops.c: the one table. */
extern const struct fuse_lowlevel_ops tree_fuse_ops;
void node_tables_init(struct tree *);
void node_tables_finish(struct tree *);

/* Kinds that others hang into their folders. */
extern const struct node_ops meta_ops, new_ops, by_tag_ops, trash_ops, snapshots_ops, ports_ops;
extern const struct node_ops root_ops, vm_ops, jobs_ops, job_dir_ops, jobs_latest_ops;
extern const struct node_ops cmd_ops, stdin_ops, stream_ops, exit_ops, console_ops,
	events_ops;

/* The path of a node below the mount, "web/jobs/3/cmd"; with name below it when not NULL. */
void node_path(const struct node *, const char *name, struct buf *out);
/*
 * A call failed: put the sentence where users look for it (error of the sandbox,
 * .sbxfs/errors) and return err->code. name may be NULL.
 */
int req_fail(struct node *, const char *operation, const char *name, const struct err *);

/* --- guard.c: rm -rf must not wipe a disk ----------------------------------- */

/* The process of req was refused on a fixed file of node->vm: remember it. */
void guard_note(struct req *, struct node *);
/* Is it one of those? */
bool guard_refused(struct req *, struct node *);
/* The same for rmdir of the sandbox itself, once; err is set then. */
bool guard_refused_all(struct req *, const struct vm *, struct err *);

#endif
