/*
 * A job: one command in a sandbox, from the first byte of its text to its
 * result, and what it wrote.
 */
#ifndef SBXFS_VM_JOB_H
#define SBXFS_VM_JOB_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "stream.h"
#include "wait.h"

struct err;
struct buf;
struct job;
struct vm;

/* Texts up to here; EFBIG beyond. */
#define JOB_TEXT_MAX (16u * 1024 * 1024)

/* What the config file says of jobs. */
struct job_conf {
	unsigned history;	/* finished jobs kept of a sandbox */
	uint64_t spool;		/* bytes kept of each stream of a job */
	unsigned connections;	/* of a sandbox, at most; what the backend allows may be less */
	uint64_t timeout_ms;	/* of a job in a sandbox whose `timeout` was not written; 0: none */
	bool start_on_use;	/* a job starts or resumes a sandbox that does not run */
};

#define JOB_CONF_DEFAULT ((struct job_conf){ \
	.history = 1000, .spool = 4ull << 30, .connections = 16 })

enum job_state {
	JOB_COLLECTING,	/* its text is being written: -> QUEUED, DONE (cancelled) */
	JOB_QUEUED,	/* waits for the VM or for a channel: -> STARTING, DONE (cancelled) */
	JOB_STARTING,	/* a channel was asked for: -> RUNNING, QUEUED (none free), DONE */
	JOB_RUNNING,	/* -> DONE (exited, signaled, timeout, lost) */
	JOB_DONE,	/* with its result, in the same step; for good */
};

/*
 * A new job in state collecting; it becomes the latest one. id NULL: the next number
 * (numbers are never used again). Else a name: letters, digits and . _ -, not beginning with
 * a dot or dash, not all digits, not "latest": -EINVAL; -EEXIST. The caller gets
 * a reference. Also -ENOSPC etc. of the spool, -EHOSTDOWN (unreachable, failed).
 */
int job_create(struct vm *, const char *id, struct job **, struct err *);
struct job *job_ref(struct job *);
void job_unref(struct job *);			/* takes NULL */
/* Somebody reads it: it is not pruned until job_unuse. */
void job_use(struct job *);
void job_unuse(struct job *);
/* A reader has gone: close the files of a job that is over. They are opened again when needed. */
void job_rest(struct job *);

/* The sandbox's job of that name, or the latest one: borrowed, or NULL. */
struct job *job_find(struct vm *, const char *id);
struct job *job_latest(struct vm *);
/* Call each(user, job) oldest first. */
void job_each(struct vm *, void (*each)(void *user, struct job *), void *user);

const char *job_id(const struct job *);
struct vm *job_vm(const struct job *);		/* NULL when the sandbox is gone */
enum job_state job_state(const struct job *);
bool job_removed(const struct job *);		/* rmdir has been answered */
/* Named by mkdir jobs/ID: its text comes through jobs/ID/cmd. */
bool job_is_named(const struct job *);
/* Woken at each change of state. */
struct wait_list *job_news(struct job *);
struct stream *job_stream(struct job *);

/* --- the text ------------------------------------------------------------- */

/*
 * Begin to write the text, which is empty then: it has one writer, until job_text_end.
 * -EBUSY: submitted already, or somebody else writes it.
 */
int job_text_begin(struct job *, struct err *);
void job_text_end(struct job *);
/*
 * Bytes of the text at off. Returns len, or -EBUSY (submitted already), -EFBIG, -EINVAL (a gap),
 * -ENOSPC.
 */
ssize_t job_text_write(struct job *, const void *data, size_t len, off_t off, struct err *);
uint64_t job_text_size(const struct job *);
ssize_t job_text_read(struct job *, void *buf, size_t len, off_t off);
/*
 * The text is whole: run it as soon as that can be. An empty (or blank) text is no
 * job: a numbered one vanishes, a named one goes on collecting. No effect in later states.
 */
void job_submit(struct job *);
/* Its text is not whole and never will be: never run it; why is kept. */
void job_discard(struct job *, const char *why);

/* --- while it is there -------------------------------------------------------- */

/* cwd and env: the sandbox's unless set, settled by submit. Set only while collecting (-EBUSY). */
const char *job_cwd(const struct job *);
const char *job_env(const struct job *);
int job_set_cwd(struct job *, const char *);
int job_set_env(struct job *, const char *);

/*
 * Its terminal: "COLSxROWS", and the terminal's type behind a blank when it is not the usual
 * one; "" when there is none. The first setting, while collecting, asks for one, "" for none;
 * later ones resize it. -EINVAL, -EBUSY (started without one), -ESRCH (it is over).
 */
const char *job_tty(const struct job *);
int job_set_tty(struct job *, const char *, struct err *);

/*
 * Standard input. A writer counts itself in and out; the last one out ends the
 * input once the job has started (a terminal's has no end). write: the bytes taken; -EAGAIN
 * none now, news on job_stdin_news; -EPIPE the job is over or its input has ended; -ENOSPC.
 */
void job_stdin_hold(struct job *);
void job_stdin_release(struct job *);
ssize_t job_stdin_write(struct job *, const void *data, size_t len);
/*
 * All of it at once, kept on disk when it must be, then the end unless others hold it. -EPIPE,
 * -ENOSPC …
 */
int job_stdin_put(struct job *, const void *data, size_t len);
struct wait_list *job_stdin_news(struct job *);
bool job_stdin_would_wait(const struct job *);	/* a write now would be -EAGAIN */
uint64_t job_stdin_size(const struct job *);	/* bytes taken so far */
/*
 * End of file now, whoever holds it open. With a terminal: ^D is typed, which is what a
 * program makes of it. -EPIPE when it has ended; -EAGAIN more input waits than that fits behind.
 */
int job_stdin_eof(struct job *);

/*
 * End all its processes, TERM then KILL; it is over when they are gone. -ESRCH when it is
 * over, unless processes of it hold its output: those are ended.
 */
int job_kill(struct job *, struct err *);
/* Send all its processes a signal: "USR1". -EINVAL no such; -EAGAIN it has not started; -ESRCH. */
int job_signal(struct job *, const char *name, struct err *);
/* End all jobs of a sandbox; what waits is cancelled. */
int jobs_kill_all(struct vm *, struct err *);
/* So long may it run (0: for ever); the sandbox's unless set. -EBUSY when it has ended. */
uint64_t job_timeout(const struct job *);
int job_set_timeout(struct job *, uint64_t ms);
/* rmdir: killed first when it runs; forgotten, with its spool. */
int job_remove(struct job *, struct err *);

/* --- its result --------------------------------------------------------------- */

/* "0", "137", "lost", "cancelled" behind a wait: -EAGAIN until it is over. Appends a line. */
int job_exit_print(struct job *, struct buf *out);
/* "running", "exited 0", …: a line. */
void job_status_print(struct job *, struct buf *out);
void job_info_print(struct job *, struct buf *out, bool json);
/* When its state or output last changed, for mtime: ms since the epoch. */
int64_t job_mtime(const struct job *);

#endif
