/*
 * The run of a job, on a channel of one of its sandbox's connections (lane.c).
 *
 * Usually the server tells how the command ended and closes the channel, both at once. But
 * whoever still holds its output, a child in the background, keeps the channel open; a
 * shell's user would have the prompt by then. So once the end is known, what the command
 * itself wrote is waited for, and no longer:
 *
 *   exited -> EXIT_MS -> a question to the server; its answer comes behind all that was sent
 *   before -> nothing for QUIET_MS (or DRAIN_MAX_MS in all, if somebody goes on writing)
 *
 * Then the job is over. Its channel stays open, unread output goes nowhere, so that the
 * children live on as they would under a shell; until a job that waits needs the channel.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk.h"
#include "guest.h"
#include "job_internal.h"
#include "lane.h"
#include "log.h"
#include "news.h"

#define RETRY_MS 500			/* the server had no channel although we have none */
#define EXIT_MS 20
#define QUIET_MS 100
#define DRAIN_MAX_MS 10000

/* --- is it over? ------------------------------------------------------------ */

static void finish_run(struct job *j)
{
	const struct ssh_exit *how = &j->how;

	if (how->error) {
		job_end(j, RESULT_LOST, "the connection went while the job was running");
	} else if (j->timed_out) {
		job_end(j, RESULT_TIMEOUT, NULL);
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

void job_check_over(struct job *j)
{
	if (!job_started(j))
		return;
	/* One that is being ended is over when all its processes have gone, or the way to them. */
	if (j->kill != KILL_NONE && !j->cut)
		return;
	if (j->closed || j->drained)
		finish_run(j);
}

/* --- its channel -------------------------------------------------------------- */

static void channel_gone(struct job *j)
{
	struct lane *l = j->lane;

	j->channel = NULL;
	j->lane = NULL;
	list_del(&j->lingering);
	loop_timer_cancel(&j->drain);
	ssh_channel_destroy(j->ping);
	j->ping = NULL;
	lane_freed(l);
}

void job_let_go(struct job *j)
{
	bool lingers = !list_empty(&j->lingering);

	if (!j->channel)
		return;
	ssh_channel_destroy(j->channel);
	channel_gone(j);
	if (lingers)
		job_unref(j);
}

void job_linger(struct job *j)
{
	if (!j->channel)
		return;
	loop_timer_cancel(&j->drain);
	ssh_channel_eof(j->channel);
	list_add_tail(&j->lane->lingering, &j->lingering);
	job_ref(j);
}

/* --- what the command's own end leaves behind ----------------------------------- */

static void quiet(struct loop_timer *t)
{
	struct job *j = container_of(t, struct job, drain);

	j->drained = true;
	job_check_over(j);
	if (j->vm)
		jobs_pump(j->vm);
}

static void answered(void *user, const struct ssh_exit *how)
{
	struct job *j = user;

	j->ping = NULL;
	if (how->error != -EHOSTDOWN)
		loop_timer_set(j->vm->fleet->loop, &j->drain, QUIET_MS, quiet);
}

static void ping_data(void *user, int which, const uint8_t *data, size_t len)
{
}

static const struct ssh_channel_ops ping_ops = { .data = ping_data, .closed = answered };

static void ask(struct loop_timer *t)
{
	struct job *j = container_of(t, struct job, drain);

	/* Refused: the connection is ending, and run_closed with it. */
	if (ssh_ping(j->lane->ssh, &ping_ops, j, &j->ping) < 0)
		j->ping = NULL;
}

static void run_exited(void *user)
{
	struct job *j = user;

	if (!job_started(j))
		return;
	ssh_channel_result(j->channel, &j->how);
	j->exited = clock_ms();
	loop_timer_cancel(&j->deadline);
	loop_timer_set(j->vm->fleet->loop, &j->drain, EXIT_MS, ask);
}

/* --- the run --------------------------------------------------------------- */

static void run_started(void *user)
{
	struct job *j = user;

	j->started = wall_ms();
	j->started_clock = clock_ms();
	news_job_started(j);
	job_set_state(j, JOB_RUNNING);
	job_deadline(j);
	if (j->vm && !list_empty(&j->vm->killer.errands))
		killer_go(j->vm);	/* a signal waited for it */
}

/* Nothing of the job's has run yet, and these are not its words. */
static bool is_stranger(const struct job *j, const uint8_t *data, size_t len)
{
	const char *words = j->vm->to.stranger;

	return !j->greeting.over && words[0] && memmem(data, len, words, strlen(words));
}

static void run_data(void *user, int which, const uint8_t *data, size_t len)
{
	struct job *j = user;
	struct buf own = BUF_INIT;

	if (!job_started(j))
		return;		/* its children's, and it is over */
	if (j->vm && is_stranger(j, data, len)) {
		ssh_channel_reject(j->channel, j->vm->to.stranger_why);
		return;
	}
	if (j->vm && j->vm->disk)
		disk_job_spoke(j->vm->disk);
	if (which == 0 && !j->greeting.over) {
		greeting_feed(&j->greeting, data, len, &own);
		stream_append(j->stream, STREAM_OUT, buf_peek(&own), buf_size(&own));
		buf_finish(&own);
	} else {
		stream_append(j->stream, which ? STREAM_ERR : STREAM_OUT, data, len);
	}
	if (j->exited && loop_timer_is_set(&j->drain) && j->drain.cb == quiet &&
	    clock_ms() - j->exited < DRAIN_MAX_MS)
		loop_timer_set(j->vm->fleet->loop, &j->drain, QUIET_MS, quiet);
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
	j->vm->active--;
	job_set_state(j, JOB_QUEUED);
}

static void run_refused(struct job *j, struct lane *lane, const struct ssh_exit *how)
{
	if (j->kill != KILL_NONE || j->remove_wanted) {
		job_end(j, RESULT_CANCELLED, "killed before it started");
	} else if (how->error == -EMFILE) {
		/* The server has fewer channels than we thought: wait for one. */
		if (!lane_refused(lane))
			loop_timer_set(j->vm->fleet->loop, &j->retry, RETRY_MS, retry_now);
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

static void run_closed(void *user, const struct ssh_exit *how)
{
	struct job *j = user;
	struct vm *vm = j->vm;
	struct lane *lane = j->lane;
	bool lingered = !list_empty(&j->lingering);

	job_ref(j);
	channel_gone(j);
	if (lingered) {
		job_unref(j);
	} else if (j->state == JOB_STARTING && (how->error || !how->requested)) {
		run_refused(j, lane, how);
	} else if (job_started(j)) {
		j->closed = true;
		j->cut = how->error;
		/* When its end is known, the end of the connection changes nothing. */
		if (!j->exited)
			j->how = *how;
		job_check_over(j);
		if (!how->error && vm->fleet)
			vm_guest_look(vm, lane);
	}
	job_unref(j);
	jobs_pump(vm);
}

static const struct ssh_channel_ops run_ops = {
	.started = run_started, .data = run_data, .exited = run_exited, .drained = run_drained,
	.closed = run_closed,
};

static int job_start(struct job *j, struct lane *lane)
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
	command_build(&c, head, j->text_size, job_cwd(j), job_env(j), j->token, vm->guest.limit,
		      j->tty != NULL);
	if (!job_tty_fits(j, &c)) {
		command_finish(&c);
		job_end(j, RESULT_CANCELLED,
			"on a terminal a text has at most 16384 bytes and no NUL");
		return 0;
	}
	j->script_on_stdin = c.script_on_stdin;
	r = job_note_start(j);
	if (r < 0) {
		command_finish(&c);
		job_end(j, RESULT_CANCELLED, "that it is started cannot be written to the spool");
		return 0;
	}
	setup_started(j);
	names_recall(vm);
	r = ssh_exec(lane->ssh, buf_peek(&c.exec), buf_size(&c.exec), &run_ops, j, &j->channel);
	command_finish(&c);
	if (r == -E2BIG) {
		job_end(j, RESULT_CANCELLED,
			"the text and its environment are too large to be sent");
		return 0;
	}
	if (r < 0)
		return r;
	j->lane = lane;
	lane_used(lane);
	vm->active++;
	vm->last_start = clock_ms();
	greeting_init(&j->greeting, j->token);
	job_open_tty(j);
	if (j->holders == 0 && !j->tty)
		j->eof = true;
	job_set_state(j, JOB_STARTING);
	job_feed(j);
	return 0;
}

void jobs_pump(struct vm *vm)
{
	/* (Of one that is leaving: they would be lost with what runs there.) */
	if (!vm->fleet || vm->leaving || list_empty(&vm->queue) || !vm_link_wanted(vm))
		return;
	list_for_each_safe(j, &vm->queue, struct job, queued) {
		struct lane *lane = setup_holds(vm, j) ? NULL : lane_take(vm, j->submitted);

		if (!lane)
			break;
		if (!loop_timer_is_set(&j->retry) && job_start(j, lane) < 0)
			break;
	}
}
