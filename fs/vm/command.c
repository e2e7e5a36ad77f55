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
 * The mark (SBXFS_JOB=token in the environment of every child) is how a job is
 * ended: whoever carries it, and every session that one of them belongs to. The
 * shell that set it has it on its command line; "[=]" keeps the search from
 * finding itself. It needs no daemon, no cgroup and no pid. What escapes is a
 * process that both left the session and cleared its environment.
 */
#include "command.h"

#include <ctype.h>
#include <errno.h>
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

/* "export A='1' B='2'; " */
static void put_exports(struct buf *out, const char *env, const char *token)
{
	buf_printf(out, "export SBXFS_JOB=%s", token);
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
	buf_printf(out, "; ");
}

static void put_preamble(struct buf *out, const char *cwd, const char *env, const char *token)
{
	put_exports(out, env, token);
	if (cwd && *cwd) {
		buf_printf(out, "cd ");
		/* a name with a leading dash is a folder all the same */
		if (*cwd == '-')
			buf_printf(out, "./");
		shell_quote(out, cwd);
		buf_printf(out, " || exit 127; ");
	}
}

/*
 * The file is made before anything runs in the job's folder or environment, so that a
 * wrong cwd cannot lose the script. dd reads exactly that many bytes; head
 * of busybox reads ahead and would eat the job's input.
 */
static void put_script_runner(struct buf *out, size_t size, bool interpreter, const char *cwd,
			      const char *env, const char *token)
{
	struct buf inner = BUF_INIT;
	char *text;

	buf_printf(&inner,
		   "u=$(umask); umask 077; f=$(mktemp \"${TMPDIR:-/tmp}/sbxfs.XXXXXXXX\") || exit 126; "
		   "trap 'rm -f \"$f\"' EXIT; trap 'exit 143' TERM; trap 'exit 130' INT; "
		   "trap 'exit 129' HUP; "
		   "dd of=\"$f\" bs=%zu count=1 iflag=fullblock 2>/dev/null || exit 126; "
		   "[ \"$(wc -c <\"$f\")\" -eq %zu ] || exit 126; chmod 700 \"$f\"; umask $u; ",
		   size, size);
	put_preamble(&inner, cwd, env, token);
	buf_printf(&inner, interpreter ? "\"$f\"" : "\"${SHELL:-/bin/sh}\" \"$f\"");
	text = buf_take_string(&inner);
	buf_printf(out, "exec /bin/sh -c ");
	shell_quote(out, text);
	free(text);
}

void command_build(struct command *c, const void *head, size_t size, const char *cwd,
		   const char *env, const char *token)
{
	bool interpreter = size >= 2 && !memcmp(head, "#!", 2);
	struct buf exec = BUF_INIT;

	c->script_on_stdin = interpreter || size > COMMAND_INLINE_MAX || memchr(head, 0, size);
	if (c->script_on_stdin) {
		put_script_runner(&exec, size, interpreter, cwd, env, token);
	} else {
		put_preamble(&exec, cwd, env, token);
		buf_put(&exec, head, size);
	}
	c->exec = exec;
}

void command_finish(struct command *c)
{
	buf_finish(&c->exec);
}

void command_build_kill(struct buf *exec, const char *tokens, unsigned grace_seconds)
{
	/* Builtins only, but for grep: a slow guest has hundreds of processes to look at. */
	static const char script[] =
		"k=$1; "
		"find_them() { "
		"  m=' '; s=' '; r=; "
		"  for f in $(grep -Els \"SBXFS_JOB[=]($k)\" /proc/[0-9]*/environ "
		"      /proc/[0-9]*/cmdline); do "
		"    p=${f#/proc/}; p=${p%%/*}; m=\"$m$p \"; "
		"    { read -r l </proc/$p/stat; } 2>/dev/null || continue; "
		"    l=${l##*) }; set -- $l; s=\"$s$4 \"; "
		"  done; "
		"  for d in /proc/[0-9]*; do "
		"    { read -r l <$d/stat; } 2>/dev/null || continue; "
		"    p=${d#/proc/}; l=${l##*) }; set -- $l; "
		"    case $1 in Z|X) continue;; esac; "
		"    case $s in *\" $4 \"*) r=\"$r $p\"; continue;; esac; "
		"    case $m in *\" $p \"*) r=\"$r $p\";; esac; "
		"  done; "
		"}; "
		"now() { read -r t x </proc/uptime; t=${t%.*}; }; "
		"hard=; "
		"while find_them; [ -n \"$r\" ]; do "
		"  now; "
		"  if [ -z \"$hard\" ]; then "
		"    hard=$((t+$2)); kill -TERM $r 2>/dev/null; kill -CONT $r 2>/dev/null; "
		"  elif [ $t -ge $hard ]; then kill -KILL $r 2>/dev/null; fi; "
		"  [ $t -ge $((hard+10)) ] && exit 1; sleep 0.1 2>/dev/null || sleep 1; "
		"done; exit 0";

	buf_printf(exec, "exec /bin/sh -c ");
	shell_quote(exec, script);
	buf_printf(exec, " kill '%s' %u", tokens, grace_seconds);
}
