/*
 * The event loop: epoll, one thread, no locks. Everything here must be called
 * from the loop's thread, but loop_post.
 *
 * The structs are embedded in their users' objects; the fields are the loop's.
 * Callbacks run from loop_run only, never from inside a call of this header.
 * Any callback may delete or free any other fd, timer or later.
 */
#ifndef SBXFS_BASE_LOOP_H
#define SBXFS_BASE_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "clock.h"
#include "list.h"
#include "metrics.h"

struct loop;

/* NULL and errno when the kernel has no descriptors left. */
struct loop *loop_create(void);
/* Every fd, timer and child must have been taken off before. Takes NULL. */
void loop_destroy(struct loop *);

/* Serve events until loop_stop. 0, or a negative errno of epoll itself. */
int loop_run(struct loop *);
void loop_stop(struct loop *);

/* Milliseconds of CLOCK_MONOTONIC as of this turn of the loop. */
int64_t loop_now(const struct loop *);

/*
 * Turns since loop_create, without the sleep: by the clock, and of the thread's processor
 * time. What the first has more than the second was spent waiting: for a disk, a page, a processor.
 */
struct loop_turns {
	struct histogram took, cpu;
	double longest, longest_cpu;	/* seconds */
};
const struct loop_turns *loop_turns(const struct loop *);

/* --- descriptors ------------------------------------------------------- */

struct loop_fd;
/* events: the EPOLL* bits seen; EPOLLERR and EPOLLHUP come unasked. */
typedef void loop_fd_cb(struct loop_fd *, uint32_t events);

struct loop_fd {
	struct loop *loop;	/* NULL when not added */
	int fd;
	uint32_t events;
	loop_fd_cb *cb;
};

/* Watch fd (level triggered). 0 or a negative errno. The fd stays the caller's. */
int loop_fd_add(struct loop *, struct loop_fd *, int fd, uint32_t events, loop_fd_cb *);
/* Change what is watched; nothing is asked of the kernel when it is the same. */
void loop_fd_set(struct loop_fd *, uint32_t events);
/* Stop watching; before close(fd). Harmless when not added (all zero). */
void loop_fd_del(struct loop_fd *);

/* --- timers ------------------------------------------------------------ */

struct loop_timer;
typedef void loop_timer_cb(struct loop_timer *);

struct loop_timer {
	struct loop *loop;	/* NULL when not set */
	int64_t when;
	size_t index;
	loop_timer_cb *cb;
};

/* Call cb once, in ms milliseconds (0: at the next turn). Setting it again moves it. */
void loop_timer_set(struct loop *, struct loop_timer *, int64_t ms, loop_timer_cb *);
/* Harmless when not set (all zero). */
void loop_timer_cancel(struct loop_timer *);
static inline bool loop_timer_is_set(const struct loop_timer *t)
{
	return t->loop != NULL;
}

/* --- later: "not from inside this call" -------------------------------- */

struct loop_later;
typedef void loop_later_cb(struct loop_later *);

struct loop_later {
	struct list link;	/* next == NULL when never used */
	loop_later_cb *cb;
};

/* Call cb once, before the loop sleeps again. No effect when already waiting. */
void loop_later(struct loop *, struct loop_later *, loop_later_cb *);
void loop_later_cancel(struct loop_later *);

/* --- signals, children, other threads ---------------------------------- */

typedef void loop_signal_cb(void *user, int signo);
/* Block signo in this thread and call cb from the loop instead; one cb a signal. */
int loop_signal(struct loop *, int signo, loop_signal_cb *, void *user);
/* The signal mask as it was before any loop_signal: for children. */
const void *loop_signal_mask(const struct loop *);

struct loop_child;
/* status as of waitpid(2) for an own child; -1 for somebody else's, whose is not known. */
typedef void loop_child_cb(struct loop_child *, int status);

struct loop_child {
	struct loop_fd fd;	/* a pidfd */
	pid_t pid;
	loop_child_cb *cb;
};

/*
 * Watch the process pid, an own child or any other (an adopted VM's): cb runs
 * once when it has ended, and an own child has then been reaped. 0 or a
 * negative errno: -ESRCH when there is no such process.
 */
int loop_child_add(struct loop *, struct loop_child *, pid_t pid, loop_child_cb *);
/* Watch no longer; an own child that ends later is left a zombie to the caller. */
void loop_child_del(struct loop_child *);

/* Run fn(user) on the loop's thread, soon. May be called from any thread. */
void loop_post(struct loop *, void (*fn)(void *user), void *user);

#endif
