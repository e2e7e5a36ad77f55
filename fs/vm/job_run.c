/*
 * Jobs run on channels of their sandbox's connection: started as soon as there is one
 * free, ended by a search for their mark in the guest (command.c).
 */
#include "job_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "log.h"
#include "news.h"

#define KILL_GRACE 5			/* seconds from TERM to KILL */
#define RETRY_MS 500			/* the server had no channel although we have none */

/* --- the run --------------------------------------------------------------- */

static void run_started(void *user)
{
	struct job *j = user;

	j->started = wall_ms();
	news_job_started(j);
	job_set_state(j, JOB_RUNNING);
}

static void run_data(void *user, int which, const uint8_t *data, size_t len)
{
	struct job *j = user;

	stream_append(j->stream, which ? STREAM_ERR : STREAM_OUT, data, len);
}

static void run_drained(void *user)
{
	struct job *j = user;

	job_feed(j);
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
	job_set_state(j, JOB_QUEUED);
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
	} else if (how->error == -ENOTTY) {
		job_end(j, RESULT_CANCELLED, "the server gives no terminal");
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
	if (!job_tty_fits(j, &c)) {
		command_finish(&c);
		job_end(j, RESULT_CANCELLED, "on a terminal a text has at most 16384 bytes, no NUL "
					     "and no #! line");
		return 0;
	}
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
	job_open_tty(j);
	if (j->holders == 0 && !j->tty)
		j->eof = true;
	job_set_state(j, JOB_STARTING);
	job_feed(j);
	return 0;
}

void jobs_pump(struct vm *vm)
{
	if (list_empty(&vm->queue) || !vm_link_wanted(vm))
		return;
	list_for_each_safe(j, &vm->queue, struct job, queued) {
		if (vm->active >= vm->channel_limit)
			break;
		if (!loop_timer_is_set(&j->retry) && job_start(j) < 0)
			break;
	}
}

/* --- kill ------------------------------------------------------------------ */

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
	if (!job_started(j)) {
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
