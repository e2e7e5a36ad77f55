/* Going into the background, and the mount point before the mount. */
#ifndef SBXFS_DAEMON_H
#define SBXFS_DAEMON_H

#include "err.h"
#include "log.h"

/*
 * Fork. In the child: returns a descriptor for daemon_release_parent. The parent waits
 * and exits by itself: 0 when the child has released it and the mount point
 * answers, else with the child's status (which has said why on standard error).
 */
int daemon_fork(const char *mountpoint);
/* The mount is up: the parent may go; from now on the log goes to the system's. */
void daemon_release_parent(int *parent, enum log_level level);

/*
 * The mount point must be a folder with nothing mounted on it. What an sbxfs that
 * died left there is taken away. -EBUSY, -ENOENT, -ENOTDIR … with a sentence.
 */
int mountpoint_prepare(const char *mountpoint, struct err *);

#endif
