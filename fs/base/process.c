/* Readings of /proc/PID/stat and status. */
#include "process.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define PF_EXITING 0x4
#define PF_SIGNALED 0x400

static char *proc_file(pid_t pid, const char *name, char *text, size_t size)
{
	char path[64];
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	f = fopen(path, "re");
	if (!f)
		return NULL;
	n = fread(text, 1, size - 1, f);
	fclose(f);
	text[n] = 0;
	return text;
}

/* Behind the command's name, which may hold anything: field 3 is the first. */
static const char *stat_fields(pid_t pid, char *text, size_t size)
{
	char *p = proc_file(pid, "stat", text, size);

	p = p ? strrchr(p, ')') : NULL;
	return p ? p + 1 : NULL;
}

bool process_identify(pid_t thread, struct process *process)
{
	char text[4096];
	const char *p = proc_file(thread, "status", text, sizeof(text));
	int group;

	p = p ? strstr(p, "\nTgid:") : NULL;
	if (!p || sscanf(p, "\nTgid: %d", &group) != 1)
		return false;
	memset(process, 0, sizeof(*process));
	process->group = group;
	p = stat_fields(group, text, sizeof(text));
	return p && sscanf(p, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d "
			   "%*d %*d %*d %llu", &process->start) == 1;
}

/* Flags of the kernel's, field 9: 0 when they are not told. */
static unsigned process_flags(pid_t thread)
{
	char text[4096];
	const char *p = stat_fields(thread, text, sizeof(text));
	unsigned flags;

	return p && sscanf(p, " %*c %*d %*d %*d %*d %*d %u", &flags) == 1 ? flags : 0;
}

bool process_dies_of_signal(pid_t thread)
{
	return process_flags(thread) & PF_SIGNALED;
}

bool process_is_over(pid_t thread)
{
	if (thread <= 0)	/* of another PID namespace */
		return false;
	if (kill(thread, 0) < 0 && errno == ESRCH)
		return true;
	return process_flags(thread) & PF_EXITING;
}
