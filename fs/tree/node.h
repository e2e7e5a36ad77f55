/*
 * Nodes: what an inode number stands for; handles: what an open file is.
 *
 * A node is (parent, name, ops, priv) and lives from its first lookup until the
 * kernel has forgotten it and no handle or child needs it. It stores no fact
 * about a VM: ops ask the layers below each time. Inode numbers are counters, never
 * reused, never addresses.
 */
#ifndef SBXFS_TREE_NODE_H
#define SBXFS_TREE_NODE_H

#include <sys/stat.h>
#include <uthash.h>

#include "req.h"

struct buf;
struct err;
struct fleet;
struct job;
struct stream_cursor;
struct vm;

/*
 * What can be done with a kind of node. Absent ops answer: lookup ENOENT, open for
 * reading EACCES, write EACCES, mkdir/rmdir/unlink/rename/create… EPERM, setattr
 * EPERM (but truncation and times of a writable control file, which are accepted and
 * mean nothing), readdir ENOTDIR. Ops follow the contract of req.h.
 */
struct node_ops {
	const char *kind;
	mode_t mode;			/* type and permissions; types never change */
	bool lent;	/* what lookup_now finds is left to the kernel: lend.c of vm */
	/*
	 * getattr from memory: fill st (zeroed but for ino, mode, nlink, uid, gid, times). NULL:
	 * as is.
	 */
	int (*stat)(struct node *, struct stat *st);
	/*
	 * How much the kernel may think there is after a lookup, when that is more than stat
	 * says: see req_fills_cache. A program never sees it: sizes are asked for each time.
	 */
	off_t (*reach)(struct node *);
	bool apart;			/* each lookup gets a node of its own: node_apart */
	/* getattr that needs the network (root/): replies itself. Used instead of stat. */
	int (*getattr)(struct req *, struct node *, struct handle *);
	int (*setattr)(struct req *, struct node *, struct handle *, const struct stat *,
		       int to_set);
	/*
	 * Directories. lookup_now answers from memory: 0 and *child with a new
	 * reference, or < 0. lookup replies itself (root/).
	 */
	int (*lookup_now)(struct node *dir, const char *name, struct node **child);
	int (*lookup)(struct req *, struct node *dir, const char *name);
	/* Fill the listing from memory ("." and ".." are there already): dirbuf_add. */
	int (*list)(struct node *dir, struct dirbuf *);
	int (*mkdir)(struct req *, struct node *dir, const char *name, mode_t);
	int (*rmdir)(struct req *, struct node *dir, const char *name);
	int (*unlink)(struct req *, struct node *dir, const char *name);
	int (*rename)(struct req *, struct node *dir, const char *name,
		      struct node *newdir, const char *newname, unsigned flags);
	bool renames_out;		/* rename is also asked when newdir is of another kind */
	int (*create)(struct req *, struct node *dir, const char *name, mode_t,
		      struct fuse_file_info *);
	int (*mknod)(struct req *, struct node *dir, const char *name, mode_t);
	int (*symlink)(struct req *, struct node *dir, const char *name, const char *text);
	int (*link)(struct req *, struct node *src, struct node *dir, const char *name);
	int (*readlink)(struct req *, struct node *);
	int (*statfs)(struct req *, struct node *);
	/* Files. open may set h->priv and fi flags; it replies with req_reply_open. */
	int (*open)(struct req *, struct node *, struct handle *, struct fuse_file_info *);
	int (*read)(struct req *, struct handle *, size_t size, off_t);
	int (*write)(struct req *, struct handle *, const void *data, size_t size, off_t);
	int (*flush)(struct req *, struct handle *);		/* absent: 0 */
	int (*fsync)(struct req *, struct handle *, bool data_only);	/* absent: 0 */
	/* The last close. Cannot fail and cannot wait; frees h->priv. */
	void (*release)(struct handle *);
	/* POLL* bits that are true now, and where to wait for news (NULL: always ready). */
	unsigned (*poll)(struct handle *, struct wait_list **news);
	int (*opendir)(struct req *, struct node *, struct handle *, struct fuse_file_info *);
	int (*readdir)(struct req *, struct handle *, size_t size, off_t, bool plus);
	int (*fallocate)(struct req *, struct handle *, int mode, off_t, off_t);
	int (*copy_range)(struct req *, struct handle *in, off_t, struct handle *out, off_t,
			  size_t);
	off_t (*lseek)(struct handle *, off_t, int whence);
	/*
	 * Take these bytes as one whole write (a scratch file is renamed over it), and append
	 * the content of now (it is renamed to one). 0, or < 0 with a sentence.
	 */
	int (*store)(struct node *, const void *data, size_t len, struct err *);
	int (*content)(struct node *, struct buf *out, struct err *);
	/* The node is being freed: free node->priv. */
	void (*free)(struct node *);
};

struct node {
	uint64_t ino;
	const struct node_ops *ops;
	struct tree *tree;
	struct node *parent;		/* counted; NULL for the root */
	struct node *original;		/* counted; of node_apart, else NULL */
	char *name;
	uint64_t nlookup;		/* what the kernel holds */
	unsigned refs;			/* handles, children, requests, and 1 for nlookup > 0 */
	UT_hash_handle by_ino, by_name;
	char *key;			/* of by_name; NULL when detached */
	struct list kept, link;		/* originals in it, counted while nlookup > 0; in that list */
	/* What it is about; counted where the layer below counts. */
	struct vm *vm;			/* NULL outside a sandbox */
	struct job *job;		/* NULL outside a job */
	/* A folder whose listing the kernel keeps: which one, and how many it is giving it to. */
	uint64_t edition;
	unsigned keeping;
	const void *arg;		/* a const table entry, for kinds made from tables */
	void *priv;			/* the kind's own, freed by ops->free */
};

struct handle {
	struct node *node;		/* counted */
	const struct node_ops *ops;
	int flags;			/* O_* of the open */
	bool nonblock;			/* as of the latest read or write */
	bool growing;			/* opened while more was to come: see req_fills_cache */
	uint64_t read_end;	/* where the latest read that was answered ended: for poll */
	struct list link;		/* all handles of the tree */
	void *priv;			/* the kind's own, freed by ops->release */
	struct stream_cursor *cursor;	/* of a reader of a job's output; freed by ops->release */
	struct dirbuf *dir;		/* the snapshot of an opendir */
	struct fuse_pollhandle *ph;	/* who polls, to be notified */
	struct waiter poll_waiter;
};

/*
 * The node (parent, name) if the kernel or anybody else knows it, with a
 * reference more; else a new one of this kind. A known one of another kind or
 * about another vm or job is forgotten by name first (it answers -ESTALE).
 */
struct node *node_get(struct node *parent, const char *name, const struct node_ops *,
		      struct vm *, struct job *);
/*
 * A node of its own that is the same file to programs (name, number in stat, job) as this one,
 * which has no priv. The kernel keeps one size an inode: whoever asks for the size by name, as
 * ls does, sets it for all who have that inode open, and who copies by splice(2) is told from it
 * that the file has ended. So it is with its one page cache, where the name stands for another
 * job by now. With an inode for each lookup nobody is told by what another asks. The original
 * stays, and its number, while the kernel knows its folder: cp and tail compare numbers.
 */
struct node *node_apart(struct node *original);
/* The known child of that name, borrowed, or NULL. */
struct node *node_find(struct node *parent, const char *name);
struct node *node_by_ino(struct tree *, uint64_t ino);
void node_ref(struct node *);
void node_unref(struct node *);		/* takes NULL */
/* The name no longer leads to it (rmdir, unlink): open handles keep it alive. */
void node_detach(struct node *);
/* It is now (parent, name); what stood there is detached. */
void node_move(struct node *, struct node *parent, const char *name);
/* Is it still reachable by name? */
bool node_attached(const struct node *);
/* Fill what every stat starts with. */
void node_stat_init(const struct node *, struct stat *);

#endif
