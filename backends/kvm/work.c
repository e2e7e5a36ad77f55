/*
 * Work in a child: see work.h. What it returns and says comes back by a page that is
 * shared with it. save.c has a machine's memory written by it, template_check.c has
 * templates read.
 */
#include "work.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "loop.h"

#define FDS_MAX 3
#define FIRST_FD 3

struct page {
	int r;
	bool ended;
	char said[WORK_SAID_MAX];
};

struct work {
	struct loop_child child;
	struct page *page;
	work_cb *done;
	void *user;
};

/* --- the child --------------------------------------------------------------- */

/* Nothing of the daemon's is to be held open by us: its connections end with it. */
static int keep_only(const int *fds, size_t n)
{
	int high[FDS_MAX];

	for (size_t i = 0; i < n; i++)
		if ((high[i] = fcntl(fds[i], F_DUPFD, FIRST_FD + FDS_MAX)) < 0)
			return -errno;
	for (size_t i = 0; i < n; i++)
		if (dup2(high[i], FIRST_FD + (int)i) < 0)
			return -errno;
	return close_range(FIRST_FD + (unsigned)n, ~0u, 0) < 0 ? -errno : 0;
}

static _Noreturn void child(struct page *page, work_fn *fn, const void *arg, const int *fds,
			    size_t n, const void *mask)
{
	static const int kept[FDS_MAX] = { FIRST_FD, FIRST_FD + 1, FIRST_FD + 2 };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigprocmask(SIG_SETMASK, mask, NULL);
	page->r = keep_only(fds, n);
	if (page->r == 0)
		page->r = fn(arg, kept, page->said);
	page->ended = true;
	_exit(0);
}

/* --- the daemon --------------------------------------------------------------- */

static void work_free(struct work *w)
{
	munmap(w->page, sizeof(*w->page));
	free(w);
}

static void ended(struct loop_child *c, int status)
{
	struct work *w = container_of(c, struct work, child);

	w->page->said[WORK_SAID_MAX - 1] = '\0';
	if (w->page->ended)
		w->done(w->user, w->page->r, w->page->said);
	else
		w->done(w->user, -EIO, "the process that did it was killed");
	work_free(w);
}

int work_start(struct loop *loop, work_fn *fn, const void *arg, const int *fds, size_t n,
	       work_cb *done, void *user, struct work **work, struct err *err)
{
	struct work *w = xcalloc(1, sizeof(*w));
	pid_t pid;
	int r;

	w->done = done;
	w->user = user;
	w->page = mmap(NULL, sizeof(*w->page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	if (w->page == MAP_FAILED)
		abort();
	pid = fork();
	if (pid == 0)
		child(w->page, fn, arg, fds, n, loop_signal_mask(loop));
	r = pid < 0 ? -errno : loop_child_add(loop, &w->child, pid, ended);
	if (r < 0) {
		if (pid > 0) {
			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);
		}
		work_free(w);
		return err_sys(err, r, "cannot start a process");
	}
	*work = w;
	return 0;
}

void work_cancel(struct work *w)
{
	if (!w)
		return;
	kill(w->child.pid, SIGKILL);
	loop_child_del(&w->child);
	/* SIGKILL has been sent to a child of ours: this does not wait long. */
	waitpid(w->child.pid, NULL, 0);
	work_free(w);
}
