/*
 * The log: one line an event, "vm=web job=3 what happened". To standard error
 * with -f, else to the system log. Never a secret; command text at debug only.
 */
#ifndef SBXFS_BASE_LOG_H
#define SBXFS_BASE_LOG_H

#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Where the lines go from now on; the default is standard error at info. */
void log_init(enum log_level level, bool to_syslog);
bool log_enabled(enum log_level level);

/* A line of the log; errno is kept. Control characters become blanks. */
void log_line(enum log_level level, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#define log_error(...)	log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)	log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)	log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)							\
	do {								\
		if (log_enabled(LOG_LEVEL_DEBUG))			\
			log_line(LOG_LEVEL_DEBUG, __VA_ARGS__);		\
	} while (0)

#endif
