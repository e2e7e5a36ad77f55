/*
 * Trees of files of ours that nobody looks for any more. unlink(2) waits for the disk where others
 * write, and a sandbox has thousands of files: a helper thread removes them, one tree after the
 * other, and the loop goes on.
 */
#ifndef SBXFS_BASE_REMOVE_H
#define SBXFS_BASE_REMOVE_H

struct loop;

/* From now on the helper thread removes. Without it remove_soon does so itself. */
void remove_start(struct loop *);
/* All is removed, and the thread has ended. Harmless when not started. */
void remove_finish(void);
/* Remove the tree, now. 0 or the first negative errno; a missing one is fine. */
int remove_tree(const char *path);
/*
 * The same, soon. It has been given a name that nobody uses: whoever takes it before loses what he
 * puts there. What cannot be removed is logged.
 */
void remove_soon(const char *path);

#endif
