/* Words for the service manager; see service.h. */
#include "service.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loop.h"

#ifdef HAVE_LIBSYSTEMD
#include <systemd/sd-daemon.h>

static struct {
	struct loop *loop;
	struct loop_timer timer;
	int64_t period;		/* ms */
} watchdog;

static void alive(struct loop_timer *t)
{
	sd_notify(0, "WATCHDOG=1");
	loop_timer_set(watchdog.loop, &watchdog.timer, watchdog.period, alive);
}

void service_ready(struct loop *loop, const char *status)
{
	uint64_t us;

	sd_notifyf(0, "READY=1\nSTATUS=%s\nMAINPID=%lu", status, (unsigned long)getpid());
	if (sd_watchdog_enabled(0, &us) > 0) {
		watchdog.loop = loop;
		watchdog.period = (int64_t)(us / 2000);
		alive(&watchdog.timer);
	}
}

void service_status(const char *status)
{
	sd_notifyf(0, "STATUS=%s", status);
}

void service_stopping(void)
{
	if (watchdog.loop)
		loop_timer_cancel(&watchdog.timer);
	sd_notify(0, "STOPPING=1");
}

#else

void service_ready(struct loop *loop, const char *status)
{
}

void service_status(const char *status)
{
}

void service_stopping(void)
{
}

#endif

bool service_stderr_is_journal(void)
{
	const char *text = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	return text && sscanf(text, "%llu:%llu", &device, &inode) == 2 &&
	       fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}
