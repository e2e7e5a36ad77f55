/* What the files job*.c share; nobody else includes it. */
#ifndef SBXFS_VM_JOB_INTERNAL_H
#define SBXFS_VM_JOB_INTERNAL_H

#include "command.h"
#include "job.h"
#include "ssh.h"
#include "vm_internal.h"

/* How it ended. Facts only: what was not seen is RESULT_LOST. */
enum job_result {
	RESULT_EXITED,		/* with a status */
	RESULT_SIGNALED,	/* by a signal, as the server told */
	RESULT_TIMEOUT,		/* it ran too long and was ended */
	RESULT_LOST,		/* its end was not seen, or some of its processes do not end */
	RESULT_CANCELLED,	/* it never ran */
};

extern const char *const job_result_names[];

struct job {
	struct list link;		/* vm->jobs */
	struct list queued;		/* vm->queue, while in that state */
	UT_hash_handle hh;		/* vm->jobs_by_id */
	uint64_t serial;		/* orders the queue */
	struct vm *vm;			/* NULL once the sandbox is gone */
	unsigned refs, users;
	char id[64];
	bool named, removed, in_vm;
	char *dir;
	enum job_state state;
	struct wait_list news;
	char token[33];
	uid_t uid;			/* who wrote it; -1 when nobody did */
	pid_t thread;
	char *cwd, *env;		/* NULL: the sandbox's */
	char *tty;			/* NULL: no terminal */
	/* the text */
	int text_fd;
	uint64_t text_size;
	bool text_taken;		/* somebody is writing it */
	/* input */
	unsigned holders;
	bool eof, eof_asked;		/* no more will be taken; because of `eof` */
	int stdin_fd;
	uint64_t stdin_spooled, stdin_fed, stdin_size;
	struct wait_list stdin_news;
	/* the run */
	struct lane *lane;		/* while there is a channel */
	/* of a job that is over: its children hold it, see job_run.c */
	struct ssh_channel *channel;
	struct list lingering;		/* those */
	struct greeting greeting;
	int64_t submitted, started_clock, exited; /* of clock_ms; exited: its own process has */
	bool drained;			/* and all that it wrote has come */
	struct loop_timer drain;
	struct ssh_channel *ping;
	uint64_t timeout_ms;		/* 0: none */
	bool timeout_set, timed_out;
	struct loop_timer deadline;
	/* how it is ended: job_kill.c */
	enum { KILL_NONE, KILL_WANTED, KILL_SENT } kill;
	struct list killing;		/* vm->killer.wanted or .sent */
	int64_t kill_asked;		/* of clock_ms */
	unsigned rounds;
	bool script_on_stdin;
	uint64_t script_fed;
	struct loop_timer retry;
	struct stream *stream;
	/* the result */
	enum job_result result;
	int status;
	char signal[32];
	char *why;			/* NULL: there is nothing to say */
	int64_t created, started, ended;	/* of wall_ms, which may jump */
	int64_t duration_ms;
	uint64_t dropped;		/* of a job of the past */
	bool remove_wanted;		/* rmdir was answered: forgotten when it is over */
	bool closed;	/* the channel has; while a kill goes on it is not over yet */
	bool cut;			/* … because the connection went */
	struct ssh_exit how;
};

/* job.c */
/*
 * A collecting one, the latest from now on, with a reference for the caller. Errors of the spool.
 */
int job_make(struct vm *, const char *id, bool named, struct job **, struct err *);
struct job *job_new(struct vm *, const char *id, bool named);	/* last of vm->jobs */
bool job_is_number(const char *id);
bool job_started(const struct job *);		/* a channel was asked for, and it is not over */
void job_set_state(struct job *, enum job_state);
/* It is over, with that result: noted, told, its input closed. why may be NULL. */
void job_end(struct job *, enum job_result, const char *why);
void job_close_fd(int *fd);

/* job_run.c */
void job_check_over(struct job *);		/* it may be: end it if it is */
void job_linger(struct job *);			/* it is over; keep its channel for its children */
void job_let_go(struct job *);			/* close its channel, if there is one */

/* job_kill.c */
void job_deadline(struct job *);		/* it runs, or its timeout has changed */
void killer_stop(struct vm *);

/* job_input.c: hand on what the channel takes, and the end of it. */
void job_feed(struct job *);

/* job_tty.c: of the channel that was just asked for. */
void job_open_tty(struct job *);
/* Can this text run on a terminal? */
bool job_tty_fits(const struct job *, const struct command *);

/* setup.c */
/* May it not start yet, because the sandbox is still to be set up? */
bool setup_holds(const struct vm *, const struct job *);
/* News of a job, which may be that one. */
void setup_started(struct job *);
void setup_ended(struct job *);

/* job_past.c */
/* It is about to be started: for a daemon after this one. 0 or a negative errno. */
int job_note_start(struct job *);
void job_save_result(struct job *);
void jobs_save_number(struct vm *);

/* job_show.c */
uint64_t job_dropped(const struct job *);

#endif
