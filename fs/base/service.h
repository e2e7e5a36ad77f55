/*
 * What a service manager that started us wants to hear: sd_notify(3), where
 * sbxfs was built with libsystemd. Without it, or without a manager, these do nothing.
 */
#ifndef SBXFS_BASE_SERVICE_H
#define SBXFS_BASE_SERVICE_H

#include <stdbool.h>

struct loop;

/*
 * The mount answers. From now on, where the manager asked for it (WatchdogSec=), the
 * loop tells it twice a period that it goes round.
 */
void service_ready(struct loop *, const char *status);
/* One line for `systemctl status`. */
void service_status(const char *status);
/* The end has begun. The loop need not go round any more. */
void service_stopping(void);

/* Is standard error the journal (systemd.exec(5), $JOURNAL_STREAM)? */
bool service_stderr_is_journal(void);

#endif
