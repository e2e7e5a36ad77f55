/* All sandboxes of a mount, and the backends that make them. */
#ifndef SBXFS_VM_FLEET_H
#define SBXFS_VM_FLEET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "backend.h"
#include "fleet_limits.h"
#include "job.h"

struct buf;
struct err;
struct events;
struct fleet;
struct loop;
struct vm;
struct wait_list;

struct fleet_conf {
	const char *state_dir;			/* exists, 0700 */
	const char *run_dir;
	const char *data_dir;
	const char *const *backends;	/* names, NULL terminated; the first is the default */
	uint64_t cache;				/* what root/ may remember, in bytes; 0: 64 MiB */
	struct job_conf jobs;
	struct vm_spec defaults;	/* zero fields: the backend's own defaults are filled in */
	struct fleet_limits limits;
	int64_t ttl, idle;			/* of new sandboxes: ms, 0: none */
	const char *overflow;	/* the backend that takes what the limits refuse; or NULL */
	/* The value of a key of a backend's section, or NULL. */
	const char *(*get)(void *user, const char *section, const char *key);
	void *user;
};

/*
 * Take over what is recorded: sandboxes known to the store are there at once,
 * with what their backends report. < 0 with a sentence: another daemon holds the
 * state folder (-EBUSY), a backend refused its configuration, the disk.
 */
int fleet_open(struct fleet **, struct loop *, const struct fleet_conf *, struct err *);
/* VMs stay as they are. Takes NULL. */
void fleet_close(struct fleet *);

/*
 * A new sandbox of the default backend. < 0: -EINVAL a bad name or no such image,
 * -EEXIST, -ENAMETOOLONG, -EDQUOT a limit, -ENODEV the backend is not ready, -ENOSPC …:
 * nothing was made. 0: it is there (status creating).
 */
int fleet_create(struct fleet *, const char *name, struct err *err);
/*
 * Remove it: 0 accepted. It goes into the trash, or shows as destroying until it is
 * verified gone; one that lies in the trash is destroyed. -EBUSY it is protected.
 */
int fleet_destroy(struct vm *, struct err *err);
/* The trash: NAME@TIME, oldest first; and out of it, under that name. */
struct vm *fleet_trash_find(struct fleet *, const char *name);
void fleet_trash_each(struct fleet *, void (*each)(void *user, struct vm *), void *user);
int fleet_restore(struct vm *, const char *name, struct err *err);
/*
 * It is called so from now on. -EEXIST, -EINVAL, -EBUSY while it is destroyed, or what its
 * backend says.
 */
int fleet_rename(struct vm *, const char *name, struct err *err);
/* Borrowed, or NULL. */
struct vm *fleet_find(struct fleet *, const char *name);
unsigned fleet_count(const struct fleet *);
/* In the order of their names. */
void fleet_each(struct fleet *, void (*each)(void *user, struct vm *), void *user);
/* 0, or the errno and sentence of a bad name. */
int fleet_name_check(const char *name, struct err *);
/* When the set of sandboxes last changed: ms since the epoch. */
int64_t fleet_changed(const struct fleet *);

/*
 * recall(user) makes the kernel ask for all names again, at once and without waiting; false when
 * it cannot. Asked before any name below root/ is lent to it.
 */
void fleet_on_recall(struct fleet *, bool (*recall)(void *user), void *user);
/* Who asks for what is done until the next call; uid -1: nobody. thread: as FUSE tells it. */
void fleet_caller(struct fleet *, uid_t uid, pid_t thread);
struct events *fleet_events(struct fleet *);

/* The gauges of .sbxfs/metrics: sandboxes by state, jobs, connections. */
void fleet_metrics_print(struct fleet *, struct buf *out);
/* .sbxfs/backends and .sbxfs/errors. */
void fleet_backends_print(struct fleet *, struct buf *out);
void fleet_errors_print(struct fleet *, struct buf *out);
/* A failure that belongs to no sandbox (mkdir of a bad name, …) or to one of that name. */
void fleet_note_error(struct fleet *, const char *operation, const char *path, const struct err *);

#endif
