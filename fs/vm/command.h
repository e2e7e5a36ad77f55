/* From the text of a job to what is sent over SSH. Pure. */
#ifndef SBXFS_VM_COMMAND_H
#define SBXFS_VM_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

#include "buf.h"

struct command {
	struct buf exec;	/* for ssh_exec */
	bool script_on_stdin;	/* send the script first, then the job's own input */
};

/* Scripts longer than this (and those with #! or a NUL) travel on standard input. */
#define COMMAND_INLINE_MAX 16384

/*
 * head: the first bytes of the script (all of it when it is no longer than
 * COMMAND_INLINE_MAX); size: its whole length. cwd: NULL or "" for the login
 * folder. env: KEY=VALUE lines, checked before. token: marks every process of
 * the job, as SBXFS_JOB in its environment.
 */
void command_build(struct command *, const void *head, size_t size, const char *cwd,
		   const char *env, const char *token);
void command_finish(struct command *);

/*
 * What finds and ends every process of these jobs; see command.c. tokens: separated
 * by "|". It ends when they are gone: with 0, or with 1 when some do not end.
 */
void command_build_kill(struct buf *exec, const char *tokens, unsigned grace_seconds);

/* s in single quotes for a POSIX shell, whatever it holds. */
void shell_quote(struct buf *out, const char *s);
/* The environment file: 0, or -EINVAL and the number of the bad line. */
int env_check(const char *text, unsigned *line);

#endif
