/* What the files of a job share. */
#ifndef SBXFS_TREE_JOB_NODE_H
#define SBXFS_TREE_JOB_NODE_H

#include "node.h"
#include "stream.h"

/* The files that a job's folder and, for the latest job, the sandbox's have alike. */
struct job_entry {
	const char *name;
	const struct node_ops *ops;
	unsigned which;			/* enum stream_which, of streams */
};
extern const struct job_entry job_entries[];	/* ends with a NULL name */
/* The node of that name below a sandbox's or job's folder, with a new reference, or NULL. */
struct node *job_entry_get(struct node *dir, const char *name);

/* The job that a file is about: its folder's, or the sandbox's latest; borrowed, may be NULL. */
struct job *node_job(const struct node *);
/* h->priv becomes that job as of now, counted. */
int job_view_open(struct req *, struct node *, struct handle *, struct fuse_file_info *);
void job_view_release(struct handle *);
/* Reply with what is at off; when there is nothing yet: wait, if may_wait. */
int stream_reply(struct req *, struct stream *, enum stream_which, struct stream_cursor **,
		 size_t size, uint64_t off, bool may_wait, bool nonblock);

#endif
