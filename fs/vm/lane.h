/*
 * The SSH connections of a sandbox, as its jobs use them: the first is the one that
 * vm.c makes, which serves the disk as well; further ones are made here while jobs wait.
 */
#ifndef SBXFS_VM_LANE_H
#define SBXFS_VM_LANE_H

#include "vm_internal.h"

struct lane {
	struct list link;		/* vm->lanes, the first one first */
	struct vm *vm;
	struct ssh *ssh;
	bool main;			/* vm.c's */
	unsigned active;		/* channels asked for and not closed yet */
	unsigned limit;			/* of those */
	struct list lingering;		/* jobs that are over whose channel is open, oldest first */
	int64_t reclaimed;		/* when the channel of one of those was closed last */
	struct loop_timer idle;
};

/* The first connection is up; it goes (after its channels have had their closed). */
void lane_main_up(struct vm *);
void lane_main_down(struct vm *);
/* The machine goes: no connection stays. */
void lanes_close(struct vm *);
/* The machine stands still: silence on its connections means nothing (ssh_hold). */
void lanes_hold(struct vm *, bool hold);

/*
 * A lane with room for a channel, borrowed. NULL: there is none; if more connections are
 * allowed one is made before long, and jobs_pump and killer_go called when it is up.
 * waiting_since: when (clock_ms) the one that waits began to.
 */
struct lane *lane_take(struct vm *, int64_t waiting_since);
unsigned lanes_count(const struct vm *);	/* connections there are or are being made */
bool lanes_busy(const struct vm *);	/* is any channel open? */
/* The n-th lane that is up; NULL when there are not so many. */
struct lane *lane_at(struct vm *, unsigned n);
/* Make a further connection now; false when that is not allowed, or one is being made. */
bool lane_open(struct vm *);
void lane_used(struct lane *);		/* a channel was asked for */
void lane_freed(struct lane *);		/* it has closed */
/* The server refused a channel although there should be room. False: try again later. */
bool lane_refused(struct lane *);

#endif
