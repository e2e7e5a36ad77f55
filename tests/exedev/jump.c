/*
 * Preloaded into the daemon: its clocks that count from some beginning, and the one on the
 * wall, are ahead by the seconds that stand in the file $SBX_JUMP, a double.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static volatile double *ahead;

static double offset(void)
{
	const char *path = getenv("SBX_JUMP");
	int fd;

	if (!ahead && path && (fd = open(path, O_RDONLY | O_CLOEXEC)) >= 0)
		ahead = mmap(NULL, sizeof(*ahead), PROT_READ, MAP_SHARED, fd, 0);
	return ahead ? *ahead : 0;
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
	static int (*real)(clockid_t, struct timespec *);
	int r;

	if (!real)
		real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	r = real(clock, t);
	if (clock == CLOCK_MONOTONIC || clock == CLOCK_REALTIME)
		t->tv_sec += (time_t)offset();
	return r;
}

time_t time(time_t *to)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	if (to)
		*to = t.tv_sec;
	return t.tv_sec;
}
