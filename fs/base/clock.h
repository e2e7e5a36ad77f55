/* Time: the clock that never jumps, and that of the wall. */
#ifndef SBXFS_BASE_CLOCK_H
#define SBXFS_BASE_CLOCK_H

#include <stdint.h>

/* Milliseconds of CLOCK_MONOTONIC, asked of the kernel now. */
int64_t clock_ms(void);
/* Milliseconds since the epoch of the wall clock. */
int64_t wall_ms(void);

/*
 * For tests, which the fake backend lets move it: wall_ms is that much ahead of the
 * real one from now on. Whoever watches is called at once (one; NULL: nobody).
 */
void wall_shift(int64_t ms);
void wall_watch(void (*cb)(void *user), void *user);

#endif
