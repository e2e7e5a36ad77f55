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
 * job_run.c starts and kills them, job_input.c gives them input, job_tty.c a terminal,
 * job_show.c tells of them, job_past.c keeps their results.
 */
#include "job_internal.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk.h"
#include "log.h"
#include "news.h"
#include "remove.h"

const char *const job_result_names[] = {
	[RESULT_EXITED] = "exited", [RESULT_SIGNALED] = "signaled",
	[RESULT_TIMEOUT] = "timeout", [RESULT_LOST] = "lost", [RESULT_CANCELLED] = "cancelled",
};

/* --- life ------------------------------------------------------------------ */

struct job *job_ref(struct job *j)
{
	j->refs++;
	return j;
}

void job_close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void job_free(struct job *j)
{
	assert(!j->channel && !j->ping);
	loop_timer_cancel(&j->retry);
	stream_destroy(j->stream);
	job_close_fd(&j->text_fd);
	job_close_fd(&j->stdin_fd);
	if (j->removed)
		remove_soon(j->dir);
	free(j->dir);
	free(j->cwd);
	free(j->env);
	free(j->why);
	free(j->tty);
	free(j);
}

void job_unref(struct job *j)
{
	if (j && --j->refs == 0)
		job_free(j);
}

void job_use(struct job *j)
{
	j->users++;
}

void job_unuse(struct job *j)
{
	assert(j->users > 0);
	j->users--;
}

void job_rest(struct job *j)
{
	if (j->state != JOB_DONE)
		return;
	job_close_fd(&j->text_fd);
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
	/* Only the folders tell which numbers are used up; the last of them goes. */
	if (!j->named && strtoull(j->id, NULL, 10) == j->vm->last_number)
		jobs_save_number(j->vm);
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
	job_let_go(j);
	list_del(&j->link);
	list_del(&j->queued);
	list_del(&j->killing);
	HASH_DELETE(hh, vm->jobs_by_id, j);
	vm->job_count--;
	if (vm->latest == j) {
		vm->latest = NULL;
		if (!list_empty(&vm->jobs))
			vm->latest = list_entry(vm->jobs.prev, struct job, link);
	}
	job_unref(j);
}

struct job *job_new(struct vm *vm, const char *id, bool named)
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
	list_init(&j->queued);
	list_init(&j->lingering);
	list_init(&j->killing);
	HASH_ADD_STR(vm->jobs_by_id, id, j);
	j->serial = ++vm->last_serial;
	vm->job_count++;
	return j;
}

bool job_is_number(const char *s)
{
	return s[strspn(s, "0123456789")] == 0;
}

static int id_check(const char *id, struct err *err)
{
	if (strlen(id) > 63)
		return err_set(err, -ENAMETOOLONG, "a job's name has at most 63 characters");
	if (!id[0] || id[0] == '.' || id[0] == '-' || job_is_number(id) || !strcmp(id, "latest"))
		return err_set(err, -EINVAL,
			       "a job's name begins with a letter, digit or _ and is no number "
			       "(those are given by sbxfs) and not \"latest\"");
	for (const char *p = id; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("._-", *p))
			return err_set(err, -EINVAL,
				       "a job's name is made of letters, digits and . _ -");
	return 0;
}

static void prune(struct vm *vm)
{
	list_for_each_safe(j, &vm->jobs, struct job, link) {
		if (vm->job_count <= vm->fleet->jobs.history)
			break;
		if (j->state != JOB_DONE || j == vm->latest || j->users > 0 || j->channel)
			continue;
		job_ref(j);
		to_trash(j);
		leave_vm(j);
		/* The kernel may remember its folder for long; its files need not stay for that. */
		stream_rest(j->stream);
		remove_soon(j->dir);
		job_unref(j);
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
	int r;

	if (vm_gone(vm))
		return err_set(err, -ESTALE, "the sandbox is gone");
	if (vm_is_closed(vm)) {
		vm_check_open(vm, err);
		return err->code = -EHOSTDOWN;
	}
	if (vm->state == VM_FAILED || (vm->link == LINK_DOWN && !vm->leaving))
		return err_set(err, -EHOSTDOWN, "%s is %s%s%s", vm_name(vm), vm_status(vm),
			       vm->why_down ? ": " : "", vm->why_down ? vm->why_down : "");
	r = id ? id_check(id, err) : 0;
	if (r < 0)
		return r;
	if (id && job_find(vm, id))
		return err_set(err, -EEXIST, "there is a job %s already", id);
	if (!id)
		snprintf(number, sizeof(number), "%" PRIu64, vm->last_number + 1);
	r = job_make(vm, id ? id : number, id != NULL, job, err);
	if (r == 0 && !id)
		vm->last_number++;
	return r;
}

int job_make(struct vm *vm, const char *id, bool named, struct job **job, struct err *err)
{
	struct job *j = job_new(vm, id, named);
	int r = open_spool(j, err);

	if (r < 0) {
		to_trash(j);
		leave_vm(j);
		return r;
	}
	j->stream = stream_open(j->dir, false, vm->fleet->jobs.spool);
	j->created = wall_ms();
	random_hex(j->token, 16);
	j->uid = vm->fleet->caller_uid;
	j->thread = vm->fleet->caller_thread;
	vm->latest = j;
	prune(vm);
	*job = job_ref(j);
	return 0;
}

/* --- looking around -------------------------------------------------------- */

struct job *job_find(struct vm *vm, const char *id)
{
	struct job *j;

	HASH_FIND_STR(vm->jobs_by_id, id, j);
	return j;
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

bool job_started(const struct job *j)
{
	return j->state == JOB_STARTING || j->state == JOB_RUNNING;
}

/* One that comes back because there was no channel stands where it stood. */
static void enqueue(struct job *j)
{
	struct list *before = j->vm->queue.prev;

	while (before != &j->vm->queue &&
	       list_entry(before, struct job, queued)->serial > j->serial)
		before = before->prev;
	list_add(before, &j->queued);
}

void job_set_state(struct job *j, enum job_state state)
{
	list_del(&j->queued);
	j->state = state;
	if (state == JOB_QUEUED)
		enqueue(j);
	wait_wake(&j->news);
}

/* --- the text -------------------------------------------------------------- */

int job_text_begin(struct job *j, struct err *err)
{
	if (j->state != JOB_COLLECTING)
		return err_set(err, -EBUSY, "job %s has been started: its text cannot change",
			       j->id);
	if (j->text_taken)
		return err_set(err, -EBUSY, "somebody else is writing the text of job %s", j->id);
	if (ftruncate(j->text_fd, 0) < 0)
		return err_sys(err, -errno, "cannot keep the command in %s", j->dir);
	j->text_size = 0;
	j->text_taken = true;
	return 0;
}

void job_text_end(struct job *j)
{
	j->text_taken = false;
}

ssize_t job_text_write(struct job *j, const void *data, size_t len, off_t off, struct err *err)
{
	ssize_t n;

	if (j->state != JOB_COLLECTING)
		return err_set(err, -EBUSY, "job %s has been started: its text cannot change",
			       j->id);
	if (off < 0 || (uint64_t)off > j->text_size)
		return err_set(err, -EINVAL,
			       "a command is written from its beginning, without gaps");
	if ((uint64_t)off + len > JOB_TEXT_MAX)
		return err_set(err, -EFBIG, "a command has at most %u bytes", JOB_TEXT_MAX);
	n = pwrite(j->text_fd, data, len, off);
	if (n < 0 || (size_t)n < len)
		return err_sys(err, n < 0 ? -errno : -ENOSPC, "cannot keep the command in %s",
			       j->dir);
	if ((uint64_t)off + len > j->text_size)
		j->text_size = (uint64_t)off + len;
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
	if (!j->timeout_set)
		j->timeout_ms = vm_timeout(j->vm);
	j->timeout_set = true;
	j->submitted = clock_ms();
	job_close_fd(&j->text_fd);		/* a thousand may be waiting */
	job_set_state(j, JOB_QUEUED);
	log_debug("vm=%s job=%s queued, %" PRIu64 " bytes", vm_name(j->vm), j->id, j->text_size);
	vm_used(j->vm);
	vm_wake(j->vm);
	jobs_pump(j->vm);
}

void job_discard(struct job *j, const char *why)
{
	if (j->state == JOB_COLLECTING && j->vm)
		job_end(j, RESULT_CANCELLED, why);
}

/* --- settings -------------------------------------------------------------- */

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

/* --- the end --------------------------------------------------------------- */

void job_end(struct job *j, enum job_result result, const char *why)
{
	struct vm *vm = j->vm;
	bool ran = job_started(j);

	job_ref(j);
	loop_timer_cancel(&j->retry);
	loop_timer_cancel(&j->deadline);
	list_del(&j->killing);
	j->kill = KILL_NONE;
	if (ran)
		vm->active--;
	if (!j->greeting.over && j->greeting.held_len > 0) {
		struct buf own = BUF_INIT;

		greeting_end(&j->greeting, &own);
		stream_append(j->stream, STREAM_OUT, buf_peek(&own), buf_size(&own));
		buf_finish(&own);
	}
	j->result = result;
	if (why && !j->why)
		j->why = xstrdup(why);
	j->ended = wall_ms();
	if (j->started)
		j->duration_ms = clock_ms() - j->started_clock;
	j->eof = true;
	if (!j->removed)
		job_save_result(j);
	if (ran && vm->disk)
		disk_job_ended(vm->disk);
	names_lend(vm);
	list_del(&j->queued);
	j->state = JOB_DONE;	/* before anybody is told: exit and status change together */
	job_close_fd(&j->text_fd);
	job_close_fd(&j->stdin_fd);
	log_debug("vm=%s job=%s %s%s%s", vm_name(vm), j->id, job_result_names[result],
		  why ? ": " : "", why ? why : "");
	news_job_ended(j);
	stream_end(j->stream);
	wait_wake(&j->stdin_news);
	wait_wake(&j->news);
	vm_used(vm);
	job_linger(j);
	setup_ended(j);
	if (j->remove_wanted && !j->removed)
		forget_job(j);
	job_unref(j);
}

void jobs_cancel_queued(struct vm *vm, const char *why)
{
	list_for_each_safe(j, &vm->queue, struct job, queued)
		job_end(j, RESULT_CANCELLED, why);
}

/* Let go of all jobs: those that are not over end for that reason. */
static void all_leave(struct vm *vm, bool remove, const char *why)
{
	killer_stop(vm);
	while (!list_empty(&vm->jobs)) {
		struct job *j = list_entry(vm->jobs.next, struct job, link);

		job_ref(j);
		job_let_go(j);
		if (remove)
			to_trash(j);
		j->remove_wanted = false;
		if (job_started(j))
			job_end(j, RESULT_LOST, why);
		else if (j->state != JOB_DONE)
			job_end(j, RESULT_CANCELLED, why);
		leave_vm(j);
		j->vm = NULL;
		job_unref(j);
	}
}

void jobs_forget(struct vm *vm)
{
	all_leave(vm, true, "the sandbox was destroyed");
}

void jobs_leave(struct vm *vm)
{
	all_leave(vm, false, "sbxfs was unmounted");
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
