/*
 * Children: short commands with a deadline, and long-running ones.
 */
#ifndef SBXFS_BASE_PROC_H
#define SBXFS_BASE_PROC_H

#include <stdint.h>
#include <stddef.h>
#include <sys/types.h>

struct loop;
struct proc;
struct err;

/*
 * How a command ended. status as of waitpid(2), or -1 when it was killed at
 * its deadline. out and err_out are what it wrote (at most 64 KiB each, NUL
 * terminated), borrowed for the call.
 */
typedef void proc_cb(void *user, int status, const char *out, const char *err_out);

/*
 * Run argv (looked up in PATH) with no standard input, from the loop: cb runs
 * once, when it has ended; at deadline_ms it is sent SIGKILL. Signal mask and
 * dispositions are the defaults. *proc is valid until cb or proc_cancel.
 * 0, or a negative errno with *err filled (-ENOENT: no such program).
 */
int proc_run(struct loop *, const char *const argv[], int64_t deadline_ms,
	     proc_cb *, void *user, struct proc **, struct err *);
/* Kill it; cb will not run. Takes NULL. */
void proc_cancel(struct proc *);
/* One sentence from a proc_cb's arguments: "mke2fs ended with 1: last line it wrote". */
int proc_explain(struct err *, const char *name, int status, const char *err_out);

/*
 * Start argv in a session of its own, outliving us: standard input /dev/null,
 * standard output and error to out_fd. Extra descriptors: keep_fds[0..n) are
 * passed under their own numbers. Returns the pid (a child; see
 * loop_child_add), or a negative errno with *err filled.
 */
pid_t proc_spawn(struct loop *, const char *const argv[], int out_fd,
		 const int *keep_fds, size_t n, struct err *);

#endif
