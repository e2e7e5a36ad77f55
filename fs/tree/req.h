/*
 * A FUSE request on its way through the tree.
 *
 * An op returns < 0: fuse_ops.c replies that errno. An op returns 0: the reply
 * has been sent, or will be, by exactly one of the req_reply_* calls, or the
 * req waits (req_wait) and the same op runs again when there is news.
 *
 * While a req is outstanding an interrupt may end it: with -EINTR at once when it
 * waits on a wait_list; when it is held by a call in flight (req_hold), its
 * cancel function runs first. So may a limit of the host (hold.c).
 */
#ifndef SBXFS_TREE_REQ_H
#define SBXFS_TREE_REQ_H

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

#include <stdbool.h>
#include <stdint.h>

#include "list.h"
#include "loop.h"
#include "wait.h"

struct tree;
struct node;
struct handle;
struct dirbuf;
struct buf;

/* What is asked; each has a function beside fuse_ops.c and a row in metrics_node.c. */
enum req_op {
	OP_LOOKUP, OP_GETATTR, OP_SETATTR, OP_READLINK, OP_STATFS, OP_MKDIR, OP_RMDIR, OP_UNLINK,
	OP_RENAME, OP_CREATE, OP_MKNOD, OP_SYMLINK, OP_LINK, OP_OPEN, OP_READ, OP_WRITE, OP_FLUSH,
	OP_FSYNC, OP_FALLOCATE, OP_COPY, OP_POLL, OP_OPENDIR, OP_READDIR,
	OP_COUNT
};

struct req {
	struct tree *tree;
	enum req_op op;
	fuse_req_t fuse;
	struct waiter waiter;	/* on what it waits */
	struct list all;	/* all outstanding requests of the tree */
	void (*perform)(struct req *);	/* what op does */
	/*
	 * The op's arguments, kept so that it can run again. Which are set depends
	 * on the op; names and data are copied when the req starts to wait.
	 */
	struct node *node, *node2;
	struct handle *handle, *handle2;
	struct fuse_file_info fi;
	char *name, *name2;
	uint8_t *data;
	size_t size;
	off_t off, off2;
	struct stat attr;
	int to_set;
	unsigned flags;
	mode_t mode;
	/* credentials of who asks */
	uid_t uid;
	gid_t gid;
	pid_t pid;
	/* for the op's own use between runs: zero at first */
	void *priv;
	const char *operation;	/* its name, for the sentence when it fails */
	size_t progress;	/* bytes of a write that are done: told even when interrupted */
	int64_t arrived, started;	/* loop_now(), and at its first wait with a bound */
	double began;		/* metrics_node.c: seconds; … */
	int error;		/* what it is answered with */
	unsigned asked_again;	/* remote_call.c: so often, since the answer was none */
	bool waited;		/* … and whether it ever waited for news */
	/* a call in flight, see req_hold */
	void (*cancel)(struct req *);
	struct loop_timer timer;
	struct loop_later later, rerun;
	bool interrupted, listening, data_owned;
	double name_timeout;	/* of an entry that is replied: 0 unless set */
	bool opening;		/* handle is ours until req_reply_open gives it away */
	bool opened;		/* … and has to be released if it does not */
	bool asker_gone;	/* pages.c */
};

/*
 * A read that is not read(2) but fills the page cache, for splice(2), sendfile(2) or mmap(2).
 * Such a program is told of the end of the file by the kernel, from the size, and never waits.
 * So where more may come it is refused, -EINVAL, and the program (cat of busybox and uutils)
 * falls back on read(2). That it comes to ask at all needs a size beyond what it has read:
 * node_ops.reach.
 */
bool req_fills_cache(const struct req *);

/* Exactly one of these ends a req; req is freed inside. error: negative errno or 0. */
void req_reply_err(struct req *, int error);
/* timeout: of the attributes. Names are looked up anew each time, unless name_timeout is set. */
void req_reply_entry(struct req *, struct node *, const struct stat *, double timeout);
/* There is no such name, for name_timeout at least. */
void req_reply_missing(struct req *);
void req_reply_attr(struct req *, const struct stat *, double timeout);
void req_reply_create(struct req *, struct node *, const struct stat *, double timeout,
		      struct handle *);
void req_reply_open(struct req *, struct handle *);
void req_reply_buf(struct req *, const void *data, size_t len);
void req_reply_write(struct req *, size_t len);
void req_reply_readlink(struct req *, const char *text);
void req_reply_statfs(struct req *, const struct statvfs *);

/*
 * Wait for news on list; the op runs again then. Returns 0, so that an op can
 * "return req_wait(req, &x->waiters);". deadline_ms > 0: -ETIMEDOUT is the
 * reply that long after the req first started (bounded waits).
 */
int req_wait(struct req *, struct wait_list *list);
int req_wait_until(struct req *, struct wait_list *list, int64_t deadline_ms);

/* Run the op, in the name of who asks. */
void req_run(struct req *);
/* Run the op again in the next turn of the loop. */
void req_run_later(struct req *req);

/*
 * The req is now held by a call in flight whose done will reply. On an
 * interrupt that is not answered within REQ_GRACE_MS (a signal that a program
 * handles must not make its file calls fail), or at teardown, cancel(req) is
 * called: it must make sure that done never touches the req again; the -EINTR is
 * sent by req.c. Returns 0. Call req_release(req) first thing in done.
 */
#define REQ_GRACE_MS 500
int req_hold(struct req *, void (*cancel)(struct req *));
void req_release(struct req *);

#endif
