/* What /proc tells of a process that asks us for something (FUSE's pid is a thread's). */
#ifndef SBXFS_BASE_PROCESS_H
#define SBXFS_BASE_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

struct process {
	pid_t group;			/* thread group: the process */
	unsigned long long start;	/* its start time: pids are used again */
};

/* False when there is no such thread (any more). */
bool process_identify(pid_t thread, struct process *);
/*
 * Is this thread ending because of a signal? Flag PF_SIGNALED (0x400) of field 9
 * of /proc/PID/stat, proc(5); asked at its flush, while it closes its files.
 */
bool process_dies_of_signal(pid_t thread);

/* Has this thread ended, or is it ending? False too where that cannot be known. */
bool process_is_over(pid_t thread);

#endif
