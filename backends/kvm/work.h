/*
 * A piece of work that takes longer than the loop may wait, and is not a program:
 * done in a child of the daemon.
 */
#ifndef SBXFS_KVM_WORK_H
#define SBXFS_KVM_WORK_H

#include <stddef.h>

struct err;
struct loop;
struct work;

#define WORK_SAID_MAX 512

/*
 * Runs in the child, which has no descriptors but those it was given, as fds. arg is as it
 * was in the daemon when the child began. 0 with what was found out in said, or a negative
 * errno with one sentence there.
 */
typedef int work_fn(const void *arg, const int *fds, char said[WORK_SAID_MAX]);
/* From the loop, once: what the work has returned and said; -EIO when its child was killed. */
typedef void work_cb(void *user, int r, const char *said);

/*
 * Begin it; fds[0..n) (at most 3) stay the caller's. The child ends with the daemon. *work is
 * valid until done or work_cancel. 0, or a negative errno and no done.
 */
int work_start(struct loop *, work_fn *fn, const void *arg, const int *fds, size_t n,
	       work_cb *done, void *user, struct work **, struct err *err);
/* End it; done does not run. Takes NULL. */
void work_cancel(struct work *);

#endif
