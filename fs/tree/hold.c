/*
 * How long a request may be held.
 *
 * Where the host sets fs.fuse.max_request_timeout, or default_request_timeout (Linux 6.14
 * and later), the kernel takes the whole mount away when one request of it is not answered
 * in that many seconds: also for a read that waits for the output of a command that has
 * none. So all are answered in time. To a wait that has no bound of its own (the output and
 * the end of a job, a full input) that is EINTR, which says what is so: nothing was read and
 * nothing was lost; most programs simply call again. To any other it is ETIMEDOUT, as
 * at its own bound. The kernel counts from when it made the request and looks every 15 seconds:
 * two thirds of the limit leave room.
 *
 * The limit is read at the mount, since the kernel takes it then, in its answer to INIT.
 */
#include <errno.h>
#include <stdlib.h>

#include "log.h"
#include "req_internal.h"
#include "store.h"
#include "tree_internal.h"

static long sysctl(const char *path)
{
	char *text = read_file(path, 32);
	long seconds = text ? strtol(text, NULL, 10) : 0;

	free(text);
	return seconds > 0 ? seconds : 0;
}

void hold_init(struct tree *tree)
{
	long max = sysctl("/proc/sys/fs/fuse/max_request_timeout");
	long usual = sysctl("/proc/sys/fs/fuse/default_request_timeout");
	long limit = max && usual ? (max < usual ? max : usual) : max + usual;

	tree->hold_ms = limit * 1000 * 2 / 3;
	if (limit)
		log_info("fuse: the host has a limit of %ld s for a request: what waits longer "
			 "than %ld s is interrupted", limit, limit * 2 / 3);
}

static void check(struct loop_timer *t)
{
	struct tree *tree = container_of(t, struct tree, hold_timer);
	int64_t late = loop_now(tree->loop) - tree->hold_ms;

	while (!list_empty(&tree->reqs)) {
		struct req *oldest = list_entry(tree->reqs.next, struct req, all);

		if (oldest->arrived > late)
			break;
		req_overdue(oldest);
	}
	hold_watch(tree);
}

void hold_watch(struct tree *tree)
{
	struct req *oldest;

	if (!tree->hold_ms || list_empty(&tree->reqs) || loop_timer_is_set(&tree->hold_timer))
		return;
	oldest = list_entry(tree->reqs.next, struct req, all);
	loop_timer_set(tree->loop, &tree->hold_timer,
		       oldest->arrived + tree->hold_ms - loop_now(tree->loop), check);
}

void hold_finish(struct tree *tree)
{
	loop_timer_cancel(&tree->hold_timer);
}
