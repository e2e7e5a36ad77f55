/* See token.h. A token of our own is made anew RENEW_MS before it ends. */
#include "token.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "api.h"
#include "buf.h"
#include "err.h"
#include "log.h"
#include "loop.h"
#include "proc.h"
#include "secret.h"

#define TOKEN_MAX 8192
#define LIFE_S 3600
#define RENEW_MS (10 * 60 * 1000)
#define RETRY_MS 15000
#define SIGN_MS 90000		/* an agent may ask its user */

struct token {
	struct loop *loop;
	struct token_conf conf;
	char *file, *key;		/* copies of the conf's */
	char *source;
	char *text;			/* secret memory; NULL: none */
	char *permissions;		/* being signed */
	struct timespec file_time;
	struct err why;			/* while there is none */
	bool refused;			/* a fresh one of ours was: the next may be as well */
	struct proc *signing;
	struct loop_timer timer;	/* renewal, or the next attempt */
};

static void sign(struct token *);

static void set_text(struct token *t, char *text)
{
	secret_free(t->text);
	t->text = text;
	secret_forget();
	if (text)
		t->why = ERR_NONE;
}

/* --- from a file, from the environment --------------------------------------------- */

static int check_text(struct token *t, char *text, const char *where)
{
	size_t n = strcspn(text, " \t\r\n");

	text[n] = 0;
	for (const char *p = text; *p; p++)
		if (*p <= 0x20 || *p > 0x7e)
			n = 0;
	if (n > 0)
		return 0;
	return err_set(&t->why, -EINVAL, "%s holds no token", where);
}

static int load_file(struct token *t)
{
	int fd = open(t->file, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *text;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0) {
		err_sys(&t->why, -errno, "token_file %s cannot be read", t->file);
		if (fd >= 0)
			close(fd);
		return t->why.code;
	}
	if (st.st_mode & 077) {
		close(fd);
		return err_set(&t->why, -EPERM, "token_file %s can be read by others: chmod 600 it",
			       t->file);
	}
	text = secret_calloc(1, TOKEN_MAX + 2);
	if (!text)
		abort();
	n = read(fd, text, TOKEN_MAX + 1);
	close(fd);
	t->file_time = st.st_mtim;
	if (n <= 0 || n > TOKEN_MAX || check_text(t, text, t->file) < 0) {
		secret_free(text);
		return err_set(&t->why, -EINVAL, "token_file %s holds no token", t->file);
	}
	set_text(t, text);
	return 0;
}

/* Taken in any case: /proc/PID/environ and our children would show it. */
static char *take_variable(const char *name)
{
	const char *value = getenv(name);
	char *text = NULL;

	if (value && *value && strlen(value) <= TOKEN_MAX)
		text = secret_strdup(value);
	secret_wipe(value);
	unsetenv(name);
	secret_forget();
	return text;
}

/* --- of our own ------------------------------------------------------------------------ */

static void retry(struct loop_timer *timer)
{
	sign(container_of(timer, struct token, timer));
}

static void signed_one(void *user, int status, const char *out, const char *err_out)
{
	struct token *t = user;
	char *text = secret_malloc(TOKEN_MAX + 1);
	int64_t next = LIFE_S * 1000 - RENEW_MS;

	if (!text)
		abort();
	t->signing = NULL;
	if (proc_explain(&t->why, "ssh-keygen", status, err_out) < 0 ||
	    api_make_token(t->permissions, out, text, TOKEN_MAX + 1) < 0) {
		if (!status)
			err_set(&t->why, -EACCES, "ssh-keygen gave no signature");
		err_prefix(&t->why, "no token can be signed with %s", t->key);
		secret_free(text);
		next = RETRY_MS;
	} else {
		set_text(t, text);
		log_debug("exe.dev: a token for %d s, signed by %s", LIFE_S, t->key);
	}
	secret_wipe(out);
	free(t->permissions);
	t->permissions = NULL;
	loop_timer_set(t->loop, &t->timer, next, retry);
	t->conf.changed(t->conf.user);
}

static void sign(struct token *t)
{
	/* The permissions are no secret; what signs them never leaves ssh-keygen or the agent. */
	const char *argv[] = { "sh", "-c",
			       "printf %s \"$1\" | ssh-keygen -Y sign -f \"$2\" -n v0@exe.dev",
			       "sh", NULL, t->key, NULL };
	struct buf permissions = BUF_INIT;

	if (t->signing)
		return;
	api_permissions(&permissions, (int64_t)time(NULL) + LIFE_S);
	free(t->permissions);
	t->permissions = buf_take_string(&permissions);
	argv[4] = t->permissions;
	if (!t->text)
		err_set(&t->why, -EAGAIN, "a token is being signed with %s", t->key);
	if (proc_run(t->loop, argv, SIGN_MS, signed_one, t, &t->signing, &t->why) < 0)
		loop_timer_set(t->loop, &t->timer, RETRY_MS, retry);
}

/* --- life ---------------------------------------------------------------------------------- */

struct token *token_create(struct loop *loop, const struct token_conf *conf)
{
	struct token *t = xcalloc(1, sizeof(*t));
	char *first, *second;
	const char *name;

	secret_begin();
	first = take_variable("EXE_TOKEN");
	second = take_variable("EXE_API_TOKEN");
	name = first ? "EXE_TOKEN" : "EXE_API_TOKEN";
	t->loop = loop;
	t->conf = *conf;
	t->conf.token_file = t->conf.signing_key = NULL;
	if (conf->token_file) {
		t->file = xstrdup(conf->token_file);
		t->source = xasprintf("file %s", t->file);
		load_file(t);
	} else if (conf->signing_key) {
		t->key = xstrdup(conf->signing_key);
		t->source = xasprintf("signed by %s", t->key);
		sign(t);
	} else if (first || second) {
		char *text = secret_strdup(first ? first : second);

		t->source = xstrdup(name);
		if (check_text(t, text, name) == 0)
			set_text(t, text);
		else
			secret_free(text);
	} else {
		t->source = xstrdup("none");
		err_set(&t->why, -ENOKEY, "there is no token: set token_file or signing_key in "
			"[exe.dev], or EXE_TOKEN (sbxfs-exe.dev(7) tells how)");
	}
	secret_free(first);
	secret_free(second);
	return t;
}

void token_destroy(struct token *t)
{
	if (!t)
		return;
	loop_timer_cancel(&t->timer);
	proc_cancel(t->signing);
	secret_free(t->text);
	free(t->permissions);
	free(t->file);
	free(t->key);
	free(t->source);
	free(t);
}

int token_state(const struct token *t, struct err *err)
{
	return t->text ? 0 : err_set(err, t->why.code, "%s", t->why.text);
}

const char *token_text(const struct token *t)
{
	return t->text;
}

const char *token_source(const struct token *t)
{
	return t->source;
}

void token_accepted(struct token *t)
{
	t->refused = false;
}

bool token_came(struct token *t)
{
	if (t->text || !t->file || load_file(t) < 0)
		return false;
	t->conf.changed(t->conf.user);
	return true;
}

bool token_refused(struct token *t)
{
	struct timespec before = t->file_time;

	if (t->file && load_file(t) == 0 && (before.tv_sec != t->file_time.tv_sec ||
					     before.tv_nsec != t->file_time.tv_nsec)) {
		t->conf.changed(t->conf.user);
		return true;
	}
	if (t->key && !t->refused) {
		t->refused = true;
		sign(t);
		return true;
	}
	return t->signing != NULL;
}
