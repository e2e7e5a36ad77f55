/*
 * Jobs: commands in a sandbox.
 *
 *   COLLECTING -> QUEUED -> STARTING -> RUNNING -> DONE
 *
 * Each has a folder of its own below <state>/vms/NAME/jobs/ID: `cmd` the text,
 * `stdin` what was written before it started, the streams' files (stream.c), and
 * `result`, written when it is over. A folder without `result` at the start of the
 * daemon is a job whose end nobody saw: lost.
 *
 * A job runs on an SSH channel (command.c tells what is sent). It is over when
 * the server has closed that channel: every process that held its output has
 * ended or let go. The result is what the server said, or lost; never a guess.
 *
 * Theory of the input: what is written before the start goes to the file `stdin`;
 * at the start the file is fed to the channel in pieces, as it drains; then
 * writers are let through, at most STDIN_AHEAD bytes ahead of the guest.
 */
#include "job.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command.h"
#include "disk.h"
#include "facts.h"
#include "log.h"
#include "ssh.h"
#include "vm_internal.h"

#define STDIN_AHEAD (512 * 1024)
#define STDIN_SPOOL_MAX (1ull << 30)
#define KILL_GRACE 5			/* seconds from TERM to KILL */
#define HISTORY_MAX 1000		/* finished jobs kept of a sandbox */
#define RESULT_MAX (4 * 1024 * 1024)	/* of the file; most of it is the environment */
#define RETRY_MS 500			/* the server had no channel although we have none */

enum job_result { RESULT_EXITED, RESULT_SIGNALED, RESULT_LOST, RESULT_CANCELLED };

static const char *const result_names[] = {
	[RESULT_EXITED] = "exited", [RESULT_SIGNALED] = "signaled",
	[RESULT_LOST] = "lost", [RESULT_CANCELLED] = "cancelled",
};

struct job {
	struct list link;		/* vm->jobs */
	struct vm *vm;			/* NULL once the sandbox is gone */
	unsigned refs;
	char id[64];
	bool named, removed, in_vm;
	char *dir;
	enum job_state state;
	struct wait_list news;
	char token[33];
	char *cwd, *env;		/* NULL: the sandbox's */
	/* the text */
	int text_fd;
	uint64_t text_size;
	/* input */
	unsigned holders;
	bool eof, eof_asked;		/* no more will be taken; because of `eof` */
	int stdin_fd;
	uint64_t stdin_spooled, stdin_fed, stdin_size;
	struct wait_list stdin_news;
	/* the run */
	struct ssh_channel *channel;
	enum { KILL_NONE, KILL_WANTED, KILL_SENT } kill;
	bool script_on_stdin;
	uint64_t script_fed;
	struct loop_timer retry;
	struct stream *stream;
	/* the result */
	enum job_result result;
	int status;
	char signal[32];
	char why[ERR_TEXT_MAX];
	int64_t created, started, ended;
	uint64_t dropped;		/* of a job of the past */
	bool remove_wanted;		/* rmdir was answered: forgotten when it is over */
	bool closed;			/* the channel has; while a kill goes on it is not over yet */
	struct ssh_exit how;
};

static void feed(struct job *);
static void job_end(struct job *, enum job_result, const char *why);
/* --- life --------------------------------------------------------------------- */

struct job *job_ref(struct job *j)
{
	j->refs++;
	return j;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void job_free(struct job *j)
{
	assert(!j->channel);
	loop_timer_cancel(&j->retry);
	stream_destroy(j->stream);
	close_fd(&j->text_fd);
	close_fd(&j->stdin_fd);
	if (j->removed && remove_tree(j->dir) < 0)
		log_warn("job %s: cannot remove %s", j->id, j->dir);
	free(j->dir);
	free(j->cwd);
	free(j->env);
	free(j);
}

void job_unref(struct job *j)
{
	if (j && --j->refs == 0)
		job_free(j);
}

void job_rest(struct job *j)
{
	if (j->state != JOB_DONE)
		return;
	close_fd(&j->text_fd);
	stream_rest(j->stream);
}

/*
 * Nobody is to see it any more. Its files leave their place at once, since the name
 * may be used again; they go with the last reader.
 */
static void to_trash(struct job *j)
{
	char *moved;

	if (j->removed)
		return;
	j->removed = true;
	if (trash_move(j->vm->fleet->trash_dir, j->dir, &moved) < 0)
		return;		/* it never got as far as having files */
	free(j->dir);
	j->dir = moved;
	if (j->stream)
		stream_move(j->stream, moved);
}

/* Take it out of its sandbox: the sandbox's reference is dropped. */
static void leave_vm(struct job *j)
{
	struct vm *vm = j->vm;

	if (!j->in_vm)
		return;
	j->in_vm = false;
	list_del(&j->link);
	vm->job_count--;
	if (vm->latest == j) {
		vm->latest = NULL;
		if (!list_empty(&vm->jobs))
			vm->latest = list_entry(vm->jobs.prev, struct job, link);
	}
	job_unref(j);
}

static struct job *job_new(struct vm *vm, const char *id, bool named)
{
	struct job *j = xcalloc(1, sizeof(*j));

	j->vm = vm;
	j->refs = 1;	/* the sandbox's */
	j->in_vm = true;
	snprintf(j->id, sizeof(j->id), "%s", id);
	j->named = named;
	j->dir = xasprintf("%s/%s", vm->jobs_dir, id);
	j->text_fd = j->stdin_fd = -1;
	wait_init(&j->news);
	wait_init(&j->stdin_news);
	list_add_tail(&vm->jobs, &j->link);
	vm->job_count++;
	return j;
}

static bool all_digits(const char *s)
{
	return s[strspn(s, "0123456789")] == 0;
}

static int id_check(const char *id, struct err *err)
{
	if (strlen(id) > 63)
		return err_set(err, -ENAMETOOLONG, "a job's name has at most 63 characters");
	if (!id[0] || id[0] == '.' || id[0] == '-' || all_digits(id) || !strcmp(id, "latest"))
		return err_set(err, -EINVAL,
			       "a job's name begins with a letter, digit or _ and is no number "
			       "(those are given by sbxfs) and not \"latest\"");
	for (const char *p = id; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("._-", *p))
			return err_set(err, -EINVAL,
				       "a job's name is made of letters, digits and . _ -");
	return 0;
}

/* Remember the last number and the latest job over a restart. */
static void save_latest(struct vm *vm)
{
	char *path = xasprintf("%s/latest", vm->jobs_dir), text[128];
	struct err err = ERR_NONE;
	int n = snprintf(text, sizeof(text), "%" PRIu64 " %s\n", vm->last_number,
			 vm->latest ? vm->latest->id : "-");

	if (write_file(path, text, (unsigned)n, false, &err) < 0)
		log_warn("vm=%s %s", vm_name(vm), err.text);
	free(path);
}

static void prune(struct vm *vm)
{
	list_for_each_safe(j, &vm->jobs, struct job, link) {
		if (vm->job_count <= HISTORY_MAX)
			break;
		if (j->state != JOB_DONE || j == vm->latest || j->refs > 1)
			continue;
		to_trash(j);
		leave_vm(j);
	}
}

static int open_spool(struct job *j, struct err *err)
{
	char *path = xasprintf("%s/cmd", j->dir);
	int r = 0;

	if (mkdir(j->dir, 0700) < 0 ||
	    (j->text_fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) < 0)
		r = err_sys(err, -errno, "cannot make %s", path);
	free(path);
	return r;
}

int job_create(struct vm *vm, const char *id, struct job **job, struct err *err)
{
	char number[24];
	struct job *j;
	int r;

	if (vm_gone(vm))
		return err_set(err, -ESTALE, "the sandbox is gone");
	if (vm->record.destroying || vm->state == VM_FAILED || vm->link == LINK_DOWN)
		return err_set(err, -EHOSTDOWN, "%s is %s%s%s", vm_name(vm), vm_status(vm),
			       vm->why_down[0] ? ": " : "", vm->why_down);
	r = id ? id_check(id, err) : 0;
	if (r < 0)
		return r;
	if (id && job_find(vm, id))
		return err_set(err, -EEXIST, "there is a job %s already", id);
	if (!id)
		snprintf(number, sizeof(number), "%" PRIu64, vm->last_number + 1);
	j = job_new(vm, id ? id : number, id != NULL);
	r = open_spool(j, err);
	if (r < 0) {
		to_trash(j);
		leave_vm(j);
		return r;
	}
	if (!id)
		vm->last_number++;
	j->stream = stream_open(j->dir, false);
	j->created = wall_ms();
	random_hex(j->token, 16);
	vm->latest = j;
	save_latest(vm);
	prune(vm);
	*job = job_ref(j);
	return 0;
}

/* --- looking around -------------------------------------------------------------- */

struct job *job_find(struct vm *vm, const char *id)
{
	list_for_each(j, &vm->jobs, struct job, link)
		if (!strcmp(j->id, id))
			return j;
	return NULL;
}

struct job *job_latest(struct vm *vm)
{
	return vm->latest;
}

void job_each(struct vm *vm, void (*each)(void *user, struct job *), void *user)
{
	list_for_each(j, &vm->jobs, struct job, link)
		each(user, j);
}

const char *job_id(const struct job *j) { return j->id; }
struct vm *job_vm(const struct job *j) { return j->vm; }
enum job_state job_state(const struct job *j) { return j->state; }
bool job_removed(const struct job *j) { return j->removed || !j->vm; }
bool job_is_named(const struct job *j) { return j->named; }
struct wait_list *job_news(struct job *j) { return &j->news; }
struct stream *job_stream(struct job *j) { return j->stream; }
struct wait_list *job_stdin_news(struct job *j) { return &j->stdin_news; }
uint64_t job_stdin_size(const struct job *j) { return j->stdin_size; }
uint64_t job_text_size(const struct job *j) { return j->text_size; }

static void set_state(struct job *j, enum job_state state)
{
	j->state = state;
	wait_wake(&j->news);
}

/* --- the text ------------------------------------------------------------------------ */

ssize_t job_text_write(struct job *j, const void *data, size_t len, off_t off, struct err *err)
{
	ssize_t n;

	if (j->state != JOB_COLLECTING)
		return err_set(err, -EBUSY, "job %s has been started: its text cannot change", j->id);
	if (off < 0 || (uint64_t)off > j->text_size)
		return err_set(err, -EINVAL, "a command is written from its beginning, without gaps");
	if ((uint64_t)off + len > JOB_TEXT_MAX)
		return err_set(err, -EFBIG, "a command has at most %u bytes", JOB_TEXT_MAX);
	n = pwrite(j->text_fd, data, len, off);
	if (n < 0)
		return err_sys(err, -errno, "cannot keep the command");
	if ((uint64_t)off + (uint64_t)n > j->text_size)
		j->text_size = (uint64_t)off + (uint64_t)n;
	return n;
}

static int text_open(struct job *j)
{
	if (j->text_fd < 0) {
		char *path = xasprintf("%s/cmd", j->dir);

		j->text_fd = open(path, O_RDONLY | O_CLOEXEC);
		free(path);
	}
	return j->text_fd < 0 ? -errno : 0;
}

ssize_t job_text_read(struct job *j, void *buf, size_t len, off_t off)
{
	ssize_t n;
	int r = text_open(j);

	if (r < 0)
		return r;
	n = pread(j->text_fd, buf, len, off);
	return n < 0 ? -errno : n;
}

static bool text_blank(struct job *j)
{
	char head[4096];
	ssize_t n = job_text_read(j, head, sizeof(head), 0);

	if (n < 0 || j->text_size > sizeof(head))
		return false;
	for (ssize_t i = 0; i < n; i++)
		if (!isspace((unsigned char)head[i]))
			return false;
	return true;
}

/* It is over and no longer to be seen; its spool goes with the last reference. */
static void forget_job(struct job *j)
{
	struct vm *vm = j->vm;

	to_trash(j);
	leave_vm(j);
	save_latest(vm);
	vm_touch(vm);
}

/* An empty text is no job: whoever waits for it finds the end of nothing. */
static void forget_empty(struct job *j)
{
	job_ref(j);
	j->state = JOB_DONE;
	j->result = RESULT_CANCELLED;
	stream_end(j->stream);
	wait_wake(&j->news);
	wait_wake(&j->stdin_news);
	forget_job(j);
	job_unref(j);
}

void job_submit(struct job *j)
{
	if (j->state != JOB_COLLECTING || !j->vm)
		return;
	if (text_blank(j)) {
		if (!j->named)
			forget_empty(j);
		return;
	}
	/* What it runs with is settled now, and told from now on. */
	if (!j->cwd)
		j->cwd = xstrdup(vm_cwd(j->vm));
	if (!j->env)
		j->env = xstrdup(vm_env(j->vm));
	close_fd(&j->text_fd);		/* a thousand may be waiting */
	set_state(j, JOB_QUEUED);
	log_debug("vm=%s job=%s queued, %" PRIu64 " bytes", vm_name(j->vm), j->id, j->text_size);
	jobs_pump(j->vm);
}

void job_discard(struct job *j, const char *why)
{
	if (j->state == JOB_COLLECTING && j->vm)
		job_end(j, RESULT_CANCELLED, why);
}

/* --- settings --------------------------------------------------------------------------- */

const char *job_cwd(const struct job *j)
{
	return j->cwd ? j->cwd : j->vm && j->state != JOB_DONE ? vm_cwd(j->vm) : "";
}

const char *job_env(const struct job *j)
{
	return j->env ? j->env : j->vm && j->state != JOB_DONE ? vm_env(j->vm) : "";
}

static int set_text(struct job *j, char **field, const char *value)
{
	if (j->state != JOB_COLLECTING)
		return -EBUSY;
	free(*field);
	*field = xstrdup(value);
	return 0;
}

int job_set_cwd(struct job *j, const char *value)
{
	return set_text(j, &j->cwd, value);
}

int job_set_env(struct job *j, const char *value)
{
	return set_text(j, &j->env, value);
}

/* --- standard input --------------------------------------------------------------------- */

void job_stdin_hold(struct job *j)
{
	j->holders++;
}

static bool started(const struct job *j)
{
	return j->state == JOB_STARTING || j->state == JOB_RUNNING;
}

void job_stdin_release(struct job *j)
{
	assert(j->holders > 0);
	if (--j->holders == 0 && started(j)) {
		j->eof = true;
		feed(j);
	}
}

static ssize_t spool_stdin(struct job *j, const void *data, size_t len)
{
	ssize_t n;

	if (j->stdin_fd < 0) {
		char *path = xasprintf("%s/stdin", j->dir);

		j->stdin_fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		free(path);
		if (j->stdin_fd < 0)
			return -errno;
	}
	if (j->stdin_spooled + len > STDIN_SPOOL_MAX)
		return -ENOSPC;
	n = pwrite(j->stdin_fd, data, len, (off_t)j->stdin_spooled);
	if (n < 0)
		return -errno;
	j->stdin_spooled += (uint64_t)n;
	j->stdin_size += (uint64_t)n;
	return n;
}

/* What was kept, or the script itself, goes first; then so much ahead of the guest. */
static bool stdin_full(const struct job *j)
{
	return j->stdin_fed < j->stdin_spooled ||
	       (j->script_on_stdin && j->script_fed < j->text_size) ||
	       ssh_channel_queued(j->channel) >= STDIN_AHEAD;
}

bool job_stdin_would_wait(const struct job *j)
{
	return j->state == JOB_RUNNING && !j->closed && !j->eof && stdin_full(j);
}

ssize_t job_stdin_write(struct job *j, const void *data, size_t len)
{
	size_t room;

	if (j->state == JOB_DONE || j->closed || j->eof)
		return -EPIPE;
	if (j->state != JOB_RUNNING) {
		/* Kept until it is known to run: a start that found no channel loses nothing. */
		ssize_t n = spool_stdin(j, data, len);

		feed(j);
		return n;
	}
	if (stdin_full(j))
		return -EAGAIN;
	room = STDIN_AHEAD - ssh_channel_queued(j->channel);
	if (len > room)
		len = room;
	ssh_channel_write(j->channel, data, len);
	j->stdin_size += len;
	return (ssize_t)len;
}

int job_stdin_eof(struct job *j)
{
	if (j->state == JOB_DONE || j->eof)
		return -EPIPE;
	j->eof = j->eof_asked = true;
	feed(j);
	wait_wake(&j->stdin_news);
	return 0;
}

/* Move up to STDIN_AHEAD bytes of a file to the channel. False: it cannot be read. */
static bool feed_file(struct job *j, int fd, uint64_t *fed, uint64_t size)
{
	char chunk[65536];

	while (*fed < size && ssh_channel_queued(j->channel) < STDIN_AHEAD) {
		ssize_t n = pread(fd, chunk, sizeof(chunk), (off_t)*fed);

		if (n <= 0)
			return false;
		ssh_channel_write(j->channel, chunk, (size_t)n);
		*fed += (uint64_t)n;
	}
	return true;
}

/* Script, then what was kept, then the end if nobody will write more. */
static void feed(struct job *j)
{
	if (!j->channel || !started(j))
		return;
	if (j->script_on_stdin && !feed_file(j, j->text_fd, &j->script_fed, j->text_size))
		goto bad;
	if (j->script_on_stdin && j->script_fed < j->text_size)
		return;
	if (!feed_file(j, j->stdin_fd, &j->stdin_fed, j->stdin_spooled))
		goto bad;
	if (j->eof && j->stdin_fed == j->stdin_spooled)
		ssh_channel_eof(j->channel);
	return;
bad:
	log_error("vm=%s job=%s cannot read its spooled input: %s", vm_name(j->vm), j->id,
		  strerror(errno));
	j->eof = true;
	ssh_channel_eof(j->channel);
}

/* --- the run ---------------------------------------------------------------------------- */

static void run_started(void *user)
{
	struct job *j = user;

	j->started = wall_ms();
	set_state(j, JOB_RUNNING);
}

static void run_data(void *user, int which, const uint8_t *data, size_t len)
{
	struct job *j = user;

	stream_append(j->stream, which ? STREAM_ERR : STREAM_OUT, data, len);
}

static void run_drained(void *user)
{
	struct job *j = user;

	feed(j);
	wait_wake(&j->stdin_news);
}

static void retry_now(struct loop_timer *t)
{
	struct job *j = container_of(t, struct job, retry);

	if (j->vm)
		jobs_pump(j->vm);
}

/* It did not get as far as running: back into the queue, nothing is lost. */
static void requeue(struct job *j)
{
	j->stdin_fed = j->script_fed = 0;
	j->eof = j->eof_asked;
	set_state(j, JOB_QUEUED);
}

static void run_refused(struct job *j, const struct ssh_exit *how)
{
	struct vm *vm = j->vm;

	if (j->kill != KILL_NONE || j->remove_wanted) {
		job_end(j, RESULT_CANCELLED, "killed before it started");
	} else if (how->error == -EMFILE) {
		/* The server has fewer channels than we thought: remember, and wait for one. */
		if (vm->active > 0)
			vm->channel_limit = vm->active;
		else
			loop_timer_set(vm->fleet->loop, &j->retry, RETRY_MS, retry_now);
		requeue(j);
	} else if (how->error == -EHOSTDOWN && !how->requested) {
		requeue(j);
	} else if (how->error == -EACCES) {
		job_end(j, RESULT_CANCELLED, "the server refused to run a command");
	} else {
		job_end(j, RESULT_LOST, "the connection went while the job was being started");
	}
}

static void finish_run(struct job *j)
{
	const struct ssh_exit *how = &j->how;

	if (how->error) {
		job_end(j, RESULT_LOST, "the connection went while the job was running");
	} else if (how->signal[0]) {
		snprintf(j->signal, sizeof(j->signal), "%s", how->signal);
		job_end(j, RESULT_SIGNALED, NULL);
	} else if (how->status >= 0) {
		j->status = how->status;
		job_end(j, RESULT_EXITED, NULL);
	} else {
		job_end(j, RESULT_LOST, "the server closed the channel without an exit status");
	}
}

static void run_closed(void *user, const struct ssh_exit *how)
{
	struct job *j = user;
	struct vm *vm = j->vm;

	job_ref(j);
	j->channel = NULL;
	vm->active--;
	if (j->state == JOB_STARTING && (how->error || !how->requested)) {
		run_refused(j, how);
	} else {
		j->closed = true;
		j->how = *how;
		if (j->kill != KILL_SENT)
			finish_run(j);
	}
	job_unref(j);
	jobs_pump(vm);
}

static const struct ssh_channel_ops run_ops = {
	.started = run_started, .data = run_data, .drained = run_drained, .closed = run_closed,
};

static int job_start(struct job *j)
{
	struct vm *vm = j->vm;
	char head[COMMAND_INLINE_MAX + 1];
	struct command c;
	ssize_t n = job_text_read(j, head, sizeof(head), 0);
	int r;

	if (n < 0) {
		job_end(j, RESULT_CANCELLED, "its text cannot be read from the spool");
		return 0;
	}
	command_build(&c, head, j->text_size, job_cwd(j), job_env(j), j->token);
	j->script_on_stdin = c.script_on_stdin;
	r = ssh_exec(vm->ssh, buf_peek(&c.exec), buf_size(&c.exec), &run_ops, j, &j->channel);
	command_finish(&c);
	if (r == -E2BIG) {
		job_end(j, RESULT_CANCELLED, "the environment is too large to be sent");
		return 0;
	}
	if (r < 0)
		return r;
	vm->active++;
	if (j->holders == 0)
		j->eof = true;
	set_state(j, JOB_STARTING);
	feed(j);
	return 0;
}

void jobs_pump(struct vm *vm)
{
	bool waiting = false;

	list_for_each(j, &vm->jobs, struct job, link)
		waiting |= j->state == JOB_QUEUED;
	if (!waiting || !vm_link_wanted(vm))
		return;
	list_for_each_safe(j, &vm->jobs, struct job, link) {
		if (vm->active >= vm->channel_limit)
			break;
		if (j->state == JOB_QUEUED && !loop_timer_is_set(&j->retry) && job_start(j) < 0)
			break;
	}
}

/* --- the end ------------------------------------------------------------------------------ */

static uint64_t job_dropped(const struct job *j)
{
	return j->dropped + stream_dropped(j->stream);
}

static int signal_number(const char *name)
{
	static const struct { const char *name; int number; } known[] = {
		{ "HUP", 1 }, { "INT", 2 }, { "QUIT", 3 }, { "ILL", 4 }, { "TRAP", 5 },
		{ "ABRT", 6 }, { "BUS", 7 }, { "FPE", 8 }, { "KILL", 9 }, { "USR1", 10 },
		{ "SEGV", 11 }, { "USR2", 12 }, { "PIPE", 13 }, { "ALRM", 14 }, { "TERM", 15 },
		{ "STKFLT", 16 }, { "XCPU", 24 }, { "XFSZ", 25 }, { "VTALRM", 26 },
		{ "PROF", 27 }, { "IO", 29 }, { "PWR", 30 }, { "SYS", 31 },
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (!strcmp(known[i].name, name))
			return known[i].number;
	return 0;
}

static void save_result(struct job *j)
{
	cJSON *json = cJSON_CreateObject();
	char *path = xasprintf("%s/result", j->dir), *text;
	struct err err = ERR_NONE;

	cJSON_AddStringToObject(json, "result", result_names[j->result]);
	cJSON_AddNumberToObject(json, "status", j->status);
	cJSON_AddStringToObject(json, "signal", j->signal);
	cJSON_AddStringToObject(json, "why", j->why);
	cJSON_AddNumberToObject(json, "created", (double)j->created);
	cJSON_AddNumberToObject(json, "started", (double)j->started);
	cJSON_AddNumberToObject(json, "ended", (double)j->ended);
	cJSON_AddStringToObject(json, "cwd", job_cwd(j));
	cJSON_AddStringToObject(json, "env", job_env(j));
	cJSON_AddNumberToObject(json, "stdin_bytes", (double)j->stdin_size);
	cJSON_AddNumberToObject(json, "dropped", (double)job_dropped(j));
	text = cJSON_PrintUnformatted(json);
	if (write_file(path, text, (unsigned)strlen(text), false, &err) < 0)
		log_warn("job=%s %s", j->id, err.text);
	cJSON_free(text);
	cJSON_Delete(json);
	free(path);
}

static void job_end(struct job *j, enum job_result result, const char *why)
{
	struct vm *vm = j->vm;
	bool ran = started(j);

	job_ref(j);
	loop_timer_cancel(&j->retry);
	j->result = result;
	if (why)
		snprintf(j->why, sizeof(j->why), "%s", why);
	j->ended = wall_ms();
	j->eof = true;
	if (!j->removed)
		save_result(j);
	if (ran && vm->disk)
		disk_job_ended(vm->disk);
	j->state = JOB_DONE;	/* before anybody is told: exit and status change together */
	close_fd(&j->text_fd);
	close_fd(&j->stdin_fd);
	log_debug("vm=%s job=%s %s%s%s", vm_name(vm), j->id, result_names[result], why ? ": " : "",
		 why ? why : "");
	stream_end(j->stream);
	wait_wake(&j->stdin_news);
	wait_wake(&j->news);
	vm_used(vm);
	if (j->remove_wanted && !j->removed)
		forget_job(j);
	job_unref(j);
}

void jobs_cancel_queued(struct vm *vm, const char *why)
{
	list_for_each_safe(j, &vm->jobs, struct job, link)
		if (j->state == JOB_QUEUED)
			job_end(j, RESULT_CANCELLED, why);
}

/* Let go of all jobs: those that are not over end for that reason. */
static void all_leave(struct vm *vm, bool remove, const char *why)
{
	loop_timer_cancel(&vm->killer_retry);
	ssh_channel_destroy(vm->killer);
	vm->killer = NULL;
	while (!list_empty(&vm->jobs)) {
		struct job *j = list_entry(vm->jobs.next, struct job, link);

		job_ref(j);
		ssh_channel_destroy(j->channel);
		j->channel = NULL;
		if (remove)
			to_trash(j);
		j->remove_wanted = false;
		if (started(j))
			job_end(j, RESULT_LOST, why);
		else if (j->state != JOB_DONE)
			job_end(j, RESULT_CANCELLED, why);
		leave_vm(j);
		j->vm = NULL;
		job_unref(j);
	}
	vm->active = 0;
}

void jobs_forget(struct vm *vm)
{
	all_leave(vm, true, "the sandbox was destroyed");
}

void jobs_leave(struct vm *vm)
{
	all_leave(vm, false, "sbxfs was unmounted");
}

/* --- kill ------------------------------------------------------------------------------------ */

static void kill_marked(struct vm *vm);

static void killer_data(void *user, int which, const uint8_t *data, size_t len)
{
}

static void killer_again(struct loop_timer *t)
{
	kill_marked(container_of(t, struct vm, killer_retry));
}

/* A batch has been dealt with: what has closed meanwhile is over now. */
static void killer_closed(void *user, const struct ssh_exit *how)
{
	struct vm *vm = user;
	bool again = how->error == -EMFILE, later = false, early;

	vm->killer = NULL;
	if (how->error == 0 && how->status != 0)
		log_warn("vm=%s some processes of killed jobs do not end", vm_name(vm));
	list_for_each_safe(j, &vm->jobs, struct job, link) {
		if (j->kill != KILL_SENT)
			continue;
		/* One that was only being started may have had no process yet. */
		early = j->state == JOB_STARTING && how->error == 0;
		j->kill = again || early ? KILL_WANTED : KILL_NONE;
		later |= early;
		if (j->closed && j->state != JOB_DONE)
			finish_run(j);
	}
	if (again || later)	/* again: somebody else has the last channel of the server */
		loop_timer_set(vm->fleet->loop, &vm->killer_retry, RETRY_MS, killer_again);
	else if (how->error == 0)
		kill_marked(vm);
}

static const struct ssh_channel_ops killer_ops = { .data = killer_data, .closed = killer_closed };

/* One channel ends them all: sshd has few, and a fork bomb's jobs come in numbers. */
static void kill_marked(struct vm *vm)
{
	struct buf tokens = BUF_INIT, exec = BUF_INIT;
	char *text;

	if (vm->killer || loop_timer_is_set(&vm->killer_retry) || !vm->ssh || !ssh_is_up(vm->ssh))
		return;
	list_for_each(j, &vm->jobs, struct job, link)
		if (j->kill == KILL_WANTED && buf_size(&tokens) < SSH_COMMAND_MAX / 2) {
			buf_printf(&tokens, "%s%s", buf_size(&tokens) ? "|" : "", j->token);
			j->kill = KILL_SENT;
		}
	if (buf_size(&tokens) == 0)
		return;
	text = buf_take_string(&tokens);
	command_build_kill(&exec, text, KILL_GRACE);
	ssh_exec(vm->ssh, buf_peek(&exec), buf_size(&exec), &killer_ops, vm, &vm->killer);
	buf_finish(&exec);
	free(text);
}

int job_kill(struct job *j, struct err *err)
{
	if (j->state == JOB_DONE)
		return err_set(err, -ESRCH, "job %s is over", j->id);
	if (!started(j)) {
		job_end(j, RESULT_CANCELLED, "killed before it started");
		return 0;
	}
	if (!j->vm->ssh || !ssh_is_up(j->vm->ssh))
		return err_set(err, -EHOSTDOWN, "%s cannot be reached", vm_name(j->vm));
	if (j->kill == KILL_NONE)
		j->kill = KILL_WANTED;
	kill_marked(j->vm);
	return 0;
}

int job_remove(struct job *j, struct err *err)
{
	int r;

	if (!j->vm || j->removed)
		return err_set(err, -ENOENT, "there is no such job");
	if (j->state != JOB_DONE) {
		job_ref(j);
		j->remove_wanted = true;
		r = job_kill(j, err);
		if (r < 0)
			j->remove_wanted = false;
		job_unref(j);
		return r;
	}
	forget_job(j);
	return 0;
}

/* --- what is shown --------------------------------------------------------------------------------- */

int job_exit_print(struct job *j, struct buf *out)
{
	int number;

	if (j->state != JOB_DONE)
		return -EAGAIN;
	switch (j->result) {
	case RESULT_EXITED:
		buf_printf(out, "%d\n", j->status);
		break;
	case RESULT_SIGNALED:
		number = signal_number(j->signal);
		/* a signal whose number is not known here: the fact is that it ended by one */
		buf_printf(out, "%d\n", number ? 128 + number : 255);
		break;
	case RESULT_LOST:
	case RESULT_CANCELLED:
		buf_printf(out, "%s\n", result_names[j->result]);
		break;
	}
	return 0;
}

void job_status_print(struct job *j, struct buf *out)
{
	static const char *const names[] = {
		[JOB_COLLECTING] = "collecting\n", [JOB_QUEUED] = "queued\n",
		[JOB_STARTING] = "queued\n", [JOB_RUNNING] = "running\n",
	};

	if (j->state != JOB_DONE) {
		buf_put(out, names[j->state], strlen(names[j->state]));
		return;
	}
	if (j->result == RESULT_EXITED)
		buf_printf(out, "exited %d", j->status);
	else if (j->result == RESULT_SIGNALED)
		buf_printf(out, "signaled %s", j->signal);
	else
		buf_printf(out, "%s%s%s", result_names[j->result],
			   j->result == RESULT_LOST && j->why[0] ? " " : "",
			   j->result == RESULT_LOST ? j->why : "");
	buf_printf(out, "\n");
}

void job_info_print(struct job *j, struct buf *out)
{
	struct facts *f = facts_create();
	struct buf status = BUF_INIT;
	char *text;

	job_status_print(j, &status);
	text = buf_take_string(&status);
	text[strcspn(text, "\n")] = 0;
	facts_text(f, "id", j->id);
	facts_text(f, "status", text);
	free(text);
	if (j->why[0])
		facts_text(f, "reason", j->why);
	if (j->state == JOB_QUEUED && j->vm && strcmp(vm_status(j->vm), "running"))
		facts_text(f, "waits_for", "the sandbox to run");
	else if (j->state == JOB_QUEUED)
		facts_text(f, "waits_for", "a free channel of the connection");
	if (job_cwd(j)[0])
		facts_text(f, "cwd", job_cwd(j));
	facts_time(f, "created", j->created);
	facts_time(f, "started", j->started);
	facts_time(f, "ended", j->ended);
	if (j->started && j->ended)
		facts_number(f, "duration_ms", j->ended - j->started);
	facts_number(f, "cmd_bytes", (int64_t)j->text_size);
	facts_number(f, "stdin_bytes", (int64_t)j->stdin_size);
	facts_number(f, "stdout_bytes", (int64_t)stream_size(j->stream, STREAM_OUT));
	facts_number(f, "stderr_bytes", (int64_t)stream_size(j->stream, STREAM_ERR));
	if (job_dropped(j))
		facts_number(f, "dropped_bytes", (int64_t)job_dropped(j));
	facts_print(f, out);
	facts_destroy(f);
}

int64_t job_mtime(const struct job *j)
{
	return j->ended ? j->ended : j->started ? j->started : j->created;
}

/* --- jobs of the past --------------------------------------------------------------------------------- */

static double number_of(const cJSON *json, const char *key)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);

	return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

static void string_to(char *to, size_t size, const cJSON *json, const char *key)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, key));

	snprintf(to, size, "%s", s ? s : "");
}

static char *string_dup(const cJSON *json, const char *key)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, key));

	return xstrdup(s ? s : "");
}

static void load_result(struct job *j)
{
	char *path = xasprintf("%s/result", j->dir), *text = read_file(path, RESULT_MAX), name[32];
	cJSON *json = text ? cJSON_Parse(text) : NULL;

	j->result = RESULT_LOST;
	if (json) {
		string_to(name, sizeof(name), json, "result");
		for (unsigned i = 0; i <= RESULT_CANCELLED; i++)
			if (!strcmp(name, result_names[i]))
				j->result = i;
		j->status = (int)number_of(json, "status");
		string_to(j->signal, sizeof(j->signal), json, "signal");
		string_to(j->why, sizeof(j->why), json, "why");
		j->created = (int64_t)number_of(json, "created");
		j->started = (int64_t)number_of(json, "started");
		j->ended = (int64_t)number_of(json, "ended");
		j->stdin_size = (uint64_t)number_of(json, "stdin_bytes");
		j->dropped = (uint64_t)number_of(json, "dropped");
		j->cwd = string_dup(json, "cwd");
		j->env = string_dup(json, "env");
	} else {
		snprintf(j->why, sizeof(j->why), "sbxfs ended before the job did");
	}
	cJSON_Delete(json);
	free(text);
	free(path);
}

static void load_job(struct vm *vm, const char *id)
{
	struct job *j = job_new(vm, id, !all_digits(id));
	char *path = xasprintf("%s/cmd", j->dir);
	struct stat st;

	j->state = JOB_DONE;
	j->eof = true;
	if (stat(path, &st) == 0) {
		j->text_size = (uint64_t)st.st_size;
		j->created = (int64_t)st.st_mtime * 1000;
	}
	free(path);
	load_result(j);
	j->stream = stream_open(j->dir, true);
	if (all_digits(id) && strtoull(id, NULL, 10) > vm->last_number)
		vm->last_number = strtoull(id, NULL, 10);
}

static int by_age(const void *a, const void *b)
{
	const struct job *const *x = a, *const *y = b;

	if ((*x)->created != (*y)->created)
		return (*x)->created < (*y)->created ? -1 : 1;
	return strverscmp((*x)->id, (*y)->id);
}

static void sort_jobs(struct vm *vm)
{
	struct job **all = xcalloc(vm->job_count, sizeof(*all));
	unsigned n = 0;

	list_for_each(j, &vm->jobs, struct job, link)
		all[n++] = j;
	qsort(all, n, sizeof(*all), by_age);
	list_init(&vm->jobs);
	for (unsigned i = 0; i < n; i++)
		list_add_tail(&vm->jobs, &all[i]->link);
	free(all);
}

void jobs_load(struct vm *vm)
{
	char *path = xasprintf("%s/latest", vm->jobs_dir), *text, id[64] = "";
	DIR *d = opendir(vm->jobs_dir);
	struct dirent *e;
	uint64_t last = 0;

	vm->channel_limit = JOB_CHANNELS;
	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.' && e->d_type == DT_DIR && strlen(e->d_name) < 64)
			load_job(vm, e->d_name);
	if (d)
		closedir(d);
	sort_jobs(vm);
	text = read_file(path, 256);
	if (text && sscanf(text, "%" SCNu64 " %63s", &last, id) >= 1 && last > vm->last_number)
		vm->last_number = last;
	vm->latest = job_find(vm, id);
	if (!vm->latest && !list_empty(&vm->jobs))
		vm->latest = list_entry(vm->jobs.prev, struct job, link);
	free(text);
	free(path);
}
