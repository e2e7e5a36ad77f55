/*
 * What must be on disk before somebody is asked for something, without a wait for the
 * disk on the loop: fsync(2) takes tens of milliseconds where others write (and so may a
 * rename, while the file system commits what is synced). The file is
 * written and renamed into place at once, so a daemon that is killed has lost nothing; a
 * helper thread syncs it, and who asks a stranger (a service that would remember what we
 * forgot) waits for that first.
 *
 * A loss of power may leave the last moment's file empty or short: the text before it is
 * still beside it then, as PATH.new.
 */
#ifndef SBXFS_BASE_FLUSH_H
#define SBXFS_BASE_FLUSH_H

#include <stdbool.h>

#include "list.h"

struct err;
struct loop;
struct flush_wait;

/* error: 0, or a negative errno of something that was to be on disk by then. From the loop. */
typedef void flush_cb(struct flush_wait *, int error);

struct flush_wait {
	struct list link;	/* next == NULL when never used */
	unsigned long upto;
	int error;
	flush_cb *cb;
};

/* From now on the helper thread syncs. Without it flush_path does so itself. */
void flush_start(struct loop *);
/* All is on disk, the thread has ended; nobody may wait any more. Harmless when not started. */
void flush_finish(void);
/*
 * Sync the file or folder, soon; one that is gone by then needs no sync. 0, or (only
 * without the thread, which logs) a negative errno.
 */
int flush_path(const char *path);
/* There is nothing to wait for: all of it was tried. */
bool flush_idle(void);
/* Of what was tried last: 0, or a negative errno. */
int flush_error(void);
/* Call cb once all that was given to flush_path before was tried. Only if !flush_idle(). */
void flush_wait(struct flush_wait *, flush_cb *);
/* Harmless when not waiting (all zero). */
void flush_cancel(struct flush_wait *);
bool flush_is_waiting(const struct flush_wait *);
/* Wait for it here, blocking: for what is rare and may not happen twice. */
void flush_now(void);
/*
 * Write a small file whole: those who read see the old text or the new one. sync: flush it
 * and its folder, and keep the old text as PATH.new. 0, or a negative errno and *err.
 */
int write_file(const char *path, const void *data, unsigned len, bool sync, struct err *err);
/*
 * The same, synced, but by the helper thread: for what would be found out again, and is lost
 * when the daemon is killed at once. Its errors are those of a sync. Whatever is done to that
 * file by this header's calls later comes later.
 */
int write_file_soon(const char *path, const void *data, unsigned len, struct err *err);
/* What is not written of it yet will not be: before its folder goes. */
void drop_file_soon(const char *path);
/* Remove it and what write_file keeps of it. 0 or a negative errno; a missing one is fine. */
int remove_file(const char *path);

#endif
