/* From the text of a job to what is sent over SSH. Pure. */
#ifndef SBXFS_VM_COMMAND_H
#define SBXFS_VM_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"

struct command {
	struct buf exec;	/* for ssh_exec */
	bool script_on_stdin;	/* send the script first, then the job's own input */
};

/* Scripts longer than this (and those with #! or a NUL) travel on standard input. */
#define COMMAND_INLINE_MAX 16384

/*
 * The marks by which the processes of a job are found: SBXFS_JOB=token in their
 * environment, and the size that they may give to a file (command_file_limit).
 */
#define COMMAND_TOKEN 32		/* hexadecimal digits of a token */
enum command_limit { LIMIT_ASK, LIMIT_FREE, LIMIT_USED }; /* does the guest limit file sizes? */

/*
 * head: the first bytes of the script (all of it when it is no longer than
 * COMMAND_INLINE_MAX); size: its whole length. cwd: NULL or "" for the login
 * folder. env: KEY=VALUE lines, checked before. The first line that comes on standard
 * output is a greeting for struct greeting. terminal: standard input is one, and would not
 * carry a script as it is; so what can be is put on the command line.
 */
void command_build(struct command *, const void *head, size_t size, const char *cwd,
		   const char *env, const char *token, enum command_limit, bool terminal);
void command_finish(struct command *);
/* The limit, in the blocks of 512 or 1024 bytes that shells count in: beyond any file. */
uint64_t command_file_limit(const char *token);

/*
 * Takes the greeting out of what comes on standard output. What the login shell's own
 * start-up files print before it, and all that follows, is the job's.
 */
struct greeting {
	char token[COMMAND_TOKEN + 1];
	bool over;		/* it has come, or never will: nothing is held back any more */
	int pid;		/* in the guest; 0: not known */
	char held[COMMAND_TOKEN + 16];
	size_t held_len;
};
void greeting_init(struct greeting *, const char *token);
/* The job's own part of data is appended to out. */
void greeting_feed(struct greeting *, const void *data, size_t len, struct buf *out);
/* There is no more: what was held back is the job's. */
void greeting_end(struct greeting *, struct buf *out);

struct kill_target {
	const char *token;
	int pid;		/* its session; 0: not known */
};

/*
 * What finds every process of these jobs (count of them), and ends them,
 * TERM then KILL: exit status 0 when they are gone, 1 when some do not end. Or, with a
 * signal's name, sends them that once: 0.
 */
void command_build_kill(struct buf *exec, const struct kill_target *, size_t count,
			unsigned grace_seconds, const char *signal);
/* "term", "SIGTERM" -> "TERM", or NULL: no such signal. *number (not NULL): as on Linux. */
const char *signal_name(const char *text, int *number);

/*
 * Looks for what the guest lacks: "missing bash cgroup2 …" and "files unlimited" (or not),
 * a line each.
 */
void command_build_check(struct buf *exec);

/* s in single quotes for a POSIX shell, whatever it holds. */
void shell_quote(struct buf *out, const char *s);
/* The environment file: 0, or -EINVAL and the number of the bad line. */
int env_check(const char *text, unsigned *line);

#endif
