/*
 * How a job is run in the guest.
 *
 * A text is handed to the login user's shell as `ssh host TEXT` would hand it
 * over, byte for byte, behind a short preamble on the same line that marks the
 * job's processes and sets folder and environment. What such a command line
 * cannot carry (#! scripts, long ones, NUL bytes) is sent as the first bytes of
 * standard input, stored by dd in a private file, and run from there; the
 * job's own input follows on the same channel.
 *
 * How the processes of a job are found when it is to be ended: by two marks that children
 * inherit. One is in their environment, SBXFS_JOB=token. The other outlives also
 * `env -i` and sudo: the soft limit of the size of files (ulimit -f, which every shell
 * has) is set to a number of the job's own, petabytes beyond any file. Then whoever is in the
 * session of such a process, and whoever descends from one. The shell that set the mark has
 * it on its command line; "[=]" keeps the search from finding itself. It needs no
 * daemon, no root and no cgroup; those were tried: entering one costs a job 4 to 25 ms (it
 * waits for the kernel's RCU) where all else costs 3. What escapes is a process that has
 * done all of this: left the session, lost its parent, cleared its environment and set its
 * file size limit anew; and what others start on request, such as systemd or dockerd.
 */
#include "command.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void shell_quote(struct buf *out, const char *s)
{
	buf_put_u8(out, '\'');
	for (; *s; s++) {
		if (*s == '\'')
			buf_printf(out, "'\\''");
		else
			buf_put_u8(out, (uint8_t)*s);
	}
	buf_put_u8(out, '\'');
}

int env_check(const char *text, unsigned *line)
{
	*line = 0;
	while (*text) {
		size_t len = strcspn(text, "\n"), name = 0;

		++*line;
		while (name < len && (isalnum((unsigned char)text[name]) || text[name] == '_'))
			name++;
		if (len > 0 && (name == 0 || name == len || text[name] != '=' ||
				isdigit((unsigned char)text[0])))
			return -EINVAL;
		text += len + (text[len] == '\n');
	}
	return 0;
}

/* "export A='1' B='2' SBXFS_JOB=token; ": the mark comes last, so that it is nobody else's. */
static void put_exports(struct buf *out, const char *env, const char *token)
{
	buf_printf(out, "export");
	while (env && *env) {
		size_t len = strcspn(env, "\n"), name = strcspn(env, "=");

		if (len > 0 && name < len) {
			char *value = xstrndup(env + name + 1, len - name - 1);

			buf_printf(out, " %.*s=", (int)name, env);
			shell_quote(out, value);
			free(value);
		}
		env += len + (env[len] == '\n');
	}
	buf_printf(out, " SBXFS_JOB=%s; ", token);
}

uint64_t command_file_limit(const char *token)
{
	char digits[14];

	/* 52 bits: in blocks of 1024 bytes below 2^63, so that it is a size and not "unlimited". */
	snprintf(digits, sizeof(digits), "%.13s", token);
	return 1ull << 52 | strtoull(digits, NULL, 16);
}

static void put_preamble(struct buf *out, const char *cwd, const char *env, const char *token,
			 enum command_limit limit)
{
	put_exports(out, env, token);
	if (limit == LIMIT_ASK)
		buf_printf(out, "case $(ulimit -f) in unlimited) ");
	if (limit != LIMIT_USED)
		buf_printf(out, "ulimit -S -f %" PRIu64 "; ", command_file_limit(token));
	if (limit == LIMIT_ASK)
		buf_printf(out, "esac; ");
	buf_printf(out, "echo %s $$; ", token);
	if (cwd && *cwd) {
		buf_printf(out, "cd ");
		/* a name with a leading dash is a folder all the same */
		if (*cwd == '-')
			buf_printf(out, "./");
		shell_quote(out, cwd);
		buf_printf(out, " || exit 127; ");
	}
}

struct script {
	const char *text;	/* NULL: it comes on standard input */
	size_t size;
	bool interpreter;	/* it begins with #! */
};

/*
 * The file is made before anything runs in the job's folder or environment, so that a
 * wrong cwd cannot lose the script. dd reads exactly that many bytes; head
 * of busybox reads ahead and would eat the job's input.
 */
static void put_script_runner(struct buf *out, const struct script *s, const char *cwd,
			      const char *env, const char *token, enum command_limit limit)
{
	struct buf inner = BUF_INIT;
	char *text;

	buf_printf(&inner,
		   "u=$(umask); umask 077; "
		   "f=$(mktemp \"${TMPDIR:-/tmp}/sbxfs.XXXXXXXX\") || exit 126; "
		   "trap 'rm -f \"$f\"' EXIT; trap 'exit 143' TERM; trap 'exit 130' INT; "
		   "trap 'exit 129' HUP; ");
	if (s->text) {
		buf_printf(&inner, "printf %%s ");
		shell_quote(&inner, s->text);
		buf_printf(&inner, " >\"$f\" || exit 126; ");
	} else {
		buf_printf(&inner,
			   "dd of=\"$f\" bs=%zu count=1 iflag=fullblock 2>/dev/null || exit 126; "
			   "[ \"$(wc -c <\"$f\")\" -eq %zu ] || exit 126; ", s->size, s->size);
	}
	buf_printf(&inner, "chmod 700 \"$f\"; umask $u; ");
	put_preamble(&inner, cwd, env, token, limit);
	buf_printf(&inner, s->interpreter ? "\"$f\"" : "\"${SHELL:-/bin/sh}\" \"$f\"");
	text = buf_take_string(&inner);
	buf_printf(out, "exec /bin/sh -c ");
	shell_quote(out, text);
	free(text);
}

void command_build(struct command *c, const void *head, size_t size, const char *cwd,
		   const char *env, const char *token, enum command_limit limit, bool terminal)
{
	struct script s = { .size = size, .interpreter = size >= 2 && !memcmp(head, "#!", 2) };
	bool carried = size <= COMMAND_INLINE_MAX && !memchr(head, 0, size);
	struct buf exec = BUF_INIT;
	char *text;

	c->script_on_stdin = !carried || (s.interpreter && !terminal);
	if (c->script_on_stdin) {
		put_script_runner(&exec, &s, cwd, env, token, limit);
	} else if (s.interpreter) {
		s.text = text = xstrndup(head, size);
		put_script_runner(&exec, &s, cwd, env, token, limit);
		free(text);
	} else {
		put_preamble(&exec, cwd, env, token, limit);
		buf_put(&exec, head, size);
	}
	c->exec = exec;
}

void command_finish(struct command *c)
{
	buf_finish(&c->exec);
}

