/* What run.c, run_start.c, run_end.c and run_adopt.c share; nobody else includes it. */
#ifndef SBXFS_KVM_RUN_INTERNAL_H
#define SBXFS_KVM_RUN_INTERNAL_H

#include "machine.h"

/* Has it been started from a saved state, and not come up yet? */
bool run_goes_on(const struct machine *);
/* Of what it is waited for now; takes the place of the last. */
void run_set_deadline(struct machine *, int64_t ms, loop_timer_cb *);
/* It was killed, and is still there. */
void run_kill_overdue(struct loop_timer *);
/*
 * A network without a QEMU goes first; what is to be done follows then. False: there is none.
 * run_unplugged is called when it has ended.
 */
bool run_unplug_before(struct machine *, enum todo);
void run_unplugged(struct machine *);

/* run_start.c: there is a QEMU, new or found: connect to it. */
void run_attach(struct machine *);
void run_load_user(struct machine *, const struct image *);
/* run_end.c: of m->child; status as waitpid(2)'s, or -1. */
void run_qemu_ended(struct loop_child *, int status);
/*
 * run_adopt.c: watch the QEMU that holds the lock. 0: there is none; -EAGAIN: cannot be told apart
 * yet, machine_look_again is called.
 */
int run_take_up(struct machine *);

#endif
