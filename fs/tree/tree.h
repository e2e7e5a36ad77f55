/* The mounted tree: FUSE on the loop, over a fleet. */
#ifndef SBXFS_TREE_TREE_H
#define SBXFS_TREE_TREE_H

struct err;
struct fleet;
struct loop;
struct tree;

struct tree_conf {
	const char *mountpoint;		/* absolute; exists */
	const char *options;		/* for -o, comma separated; "" for none */
	unsigned debug;			/* trace FUSE requests to standard error */
	/* The kernel has answered the mount: it is usable. From the loop, once. May be NULL. */
	void (*mounted)(void *user);
	/* It was unmounted, or the kernel gave it up. From the loop, once. */
	void (*unmounted)(void *user);
	void *user;
};

/* Mount. < 0: nothing is mounted, with a sentence. */
int tree_mount(struct tree **, struct loop *, struct fleet *, const struct tree_conf *,
	       struct err *);
/* Answer what waits with -EINTR, unmount if that has not happened, free. Takes NULL. */
void tree_unmount(struct tree *);

#endif
