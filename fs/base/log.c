/* One line an event, to standard error or to the system log. */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "service.h"

static enum log_level max_level = LOG_LEVEL_INFO;
static bool to_syslog, journal;

void log_init(enum log_level level, bool syslog_wanted)
{
	max_level = level;
	to_syslog = syslog_wanted;
	journal = service_stderr_is_journal();
	if (to_syslog)
		openlog("sbxfs", LOG_PID, LOG_DAEMON);
}

bool log_enabled(enum log_level level)
{
	return level <= max_level;
}

/* The journal has a clock of its own and takes the level from <N>, sd-daemon(3). */
static void to_journal(int priority, const char *line)
{
	char whole[1200];
	int n = snprintf(whole, sizeof(whole), "<%d>%s\n", priority, line);

	if (n > 0 && write(STDERR_FILENO, whole, (size_t)n) < 0)
		return;	/* nowhere to say it */
}

static void to_stderr(enum log_level level, const char *line)
{
	static const char *const names[] = { "error", "warning", "info", "debug" };
	struct timespec now;
	struct tm tm;
	char stamp[32], whole[1200];
	int n;

	clock_gettime(CLOCK_REALTIME, &now);
	localtime_r(&now.tv_sec, &tm);
	strftime(stamp, sizeof(stamp), "%H:%M:%S", &tm);
	n = snprintf(whole, sizeof(whole), "%s.%03ld sbxfs %s: %s\n", stamp,
		     now.tv_nsec / 1000000, names[level], line);
	/* One write a line, so that lines of several processes do not mix. */
	if (n > 0 && write(STDERR_FILENO, whole, (size_t)n) < 0)
		return;	/* nowhere to say it */
}

void log_line(enum log_level level, const char *fmt, ...)
{
	static const int priority[] = { LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG };
	int saved = errno;
	char line[1100];
	va_list ap;

	if (!log_enabled(level))
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	for (unsigned char *p = (unsigned char *)line; *p; p++)
		if (*p < 0x20 || *p == 0x7f)
			*p = ' ';
	if (to_syslog)
		syslog(priority[level], "%s", line);
	else if (journal)
		to_journal(priority[level], line);
	else
		to_stderr(level, line);
	errno = saved;
}
