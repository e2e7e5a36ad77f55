/* For fuse_*.c and mount.c: the ends of a request's life. */
#ifndef SBXFS_TREE_REQ_INTERNAL_H
#define SBXFS_TREE_REQ_INTERNAL_H

#include "req.h"

struct req *req_create(struct tree *, fuse_req_t, struct node *, struct handle *);
void req_reply_poll(struct req *, unsigned revents);
void req_reply_lseek(struct req *, off_t);
/*
 * Held too long: a wait without a bound of its own is answered -EINTR, a bounded one or a call
 * in flight -ETIMEDOUT; a write that was done in part, with that part.
 */
void req_overdue(struct req *);
/* Nobody needs the answer any more: -EINTR. */
void req_abandon(struct req *);
/* Teardown: whatever is outstanding is answered -EINTR. */
void reqs_end(struct tree *);

/* hold.c: read the host's limit; see to the outstanding requests; stop that. */
void hold_init(struct tree *);
void hold_watch(struct tree *);
void hold_finish(struct tree *);

/* The kernel holds one reference more, or n fewer. */
void node_looked_up(struct node *);
void node_forget(struct node *, uint64_t n);
struct handle *handle_create(struct node *, int flags);
void handle_close(struct handle *);	/* runs ops->release; takes NULL */
void handle_abandon(struct handle *);	/* nothing was opened: frees it without that */

#endif
