/*
 * The two clocks. What waits inside this process goes by clock_ms; what must hold over a
 * restart (when a sandbox ends) goes by wall_ms, which tests can move.
 */
#include "clock.h"

#include <stddef.h>
#include <time.h>

static int64_t shift;
static void (*shifted)(void *user);
static void *shifted_user;

static int64_t now_ms(clockid_t which)
{
	struct timespec t;

	clock_gettime(which, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t clock_ms(void)
{
	return now_ms(CLOCK_MONOTONIC);
}

int64_t wall_ms(void)
{
	return now_ms(CLOCK_REALTIME) + shift;
}

void wall_shift(int64_t ms)
{
	shift = ms;
	if (shifted)
		shifted(shifted_user);
}

void wall_watch(void (*cb)(void *user), void *user)
{
	shifted = cb;
	shifted_user = user;
}
