/*
 * Ending jobs, and signals to them: kill, timeout, rmdir, killall.
 *
 * sshd cannot be asked to do it (its "signal" request reaches one process group), so a
 * script is sent on a channel of its own that finds all processes of the jobs by their marks
 * (command.c), sends TERM, then KILL when KILL_GRACE seconds have gone by, and ends when
 * none is left. One channel ends them all: sshd has few, and a fork bomb's jobs come in
 * numbers. Of a job:
 *
 *   NONE -> WANTED -> SENT -> NONE, and then it is over as soon as its channel has closed
 *                          -> WANTED: it was just being started, or the script did not run
 *                          -> LOST (a result): its processes do not end, or the script does not
 *
 * The script has its own bounds, about 25 seconds in all. When it is not back by then and much
 * later, the guest has no answer to give: ANSWER_MS.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk.h"
#include "facts.h"
#include "job_internal.h"
#include "lane.h"
#include "log.h"

#define KILL_GRACE 5			/* seconds from TERM to KILL */
#define RETRY_MS 500
#define BATCH_MAX 100
#define ROUND_MS 3000	/* from the end of all its processes to that of its channel */
#define ROUNDS_MAX 3
#define ANSWER_MS 45000

struct errand {
	struct list link;
	struct job *job;
	char signal[16];
};

static const char no_end[] = "some of its processes do not end";
static const char no_answer[] =
	"what ends processes in the guest did not come back in 45 seconds: nobody knows";

static void set_kill(struct job *j, int kill)
{
	list_del(&j->killing);
	j->kill = kill;
	if (kill == KILL_WANTED)
		list_add_tail(&j->vm->killer.wanted, &j->killing);
	else if (kill == KILL_SENT)
		list_add_tail(&j->vm->killer.sent, &j->killing);
}

/* --- what has become of it --------------------------------------------------------- */

static void killer_retry(struct loop_timer *t)
{
	killer_go(container_of(t, struct vm, killer.retry));
}

static void later(struct vm *vm)
{
	if (!loop_timer_is_set(&vm->killer.retry))
		loop_timer_set(vm->fleet->loop, &vm->killer.retry, RETRY_MS, killer_retry);
}

static void errand_free(struct errand *e)
{
	if (!e)
		return;
	list_del(&e->link);
	job_unref(e->job);
	free(e);
}

static void give_up(struct job *j, const char *why)
{
	job_end(j, RESULT_LOST, why);
	job_let_go(j);
}

static bool asked_long_ago(const struct job *j)
{
	return clock_ms() - j->kill_asked > ANSWER_MS;
}

/* The script did not run: the same again, on another connection if there is one. */
static void not_done(struct vm *vm, struct errand *e, int error)
{
	if (e)
		list_add(&vm->killer.errands, &e->link);
	list_for_each_safe(j, &vm->killer.sent, struct job, killing) {
		set_kill(j, KILL_WANTED);
		if (asked_long_ago(j) && job_started(j))
			give_up(j, "the server has no channel for what ends it");
	}
	if (error == -EMFILE) {
		vm->killer.lane++;
		disk_yields_channel(vm->disk);
	}
	if (error == -EMFILE && lane_at(vm, vm->killer.lane)) {
		killer_go(vm);
		return;
	}
	vm->killer.lane = 0;
	if (error != -EMFILE || !lane_open(vm))
		later(vm);
}

/* Nothing of it was found any more, and yet its channel has not closed. */
static void not_over(struct loop_timer *t)
{
	struct job *j = container_of(t, struct job, retry);

	if (++j->rounds < ROUNDS_MAX) {
		set_kill(j, KILL_WANTED);
		killer_go(j->vm);
	} else {
		give_up(j, "its processes cannot be found");
	}
}

static void one_is_done(struct job *j, int status, unsigned batch)
{
	struct vm *vm = j->vm;

	set_kill(j, KILL_NONE);
	if (status != 0 && batch > 1) {
		vm->killer.alone = true;
		set_kill(j, KILL_WANTED);
	} else if (status != 0 && job_started(j)) {
		give_up(j, status == 1 ? no_end : "the guest could not run what ends it");
	} else if (j->state == JOB_STARTING && asked_long_ago(j)) {
		give_up(j, "it has not started in 45 seconds, and there is nothing to end");
	} else if (j->state == JOB_STARTING) {
		set_kill(j, KILL_WANTED);	/* it may have had no process yet */
		later(vm);
	} else if (j->state == JOB_RUNNING && !j->closed) {
		loop_timer_set(vm->fleet->loop, &j->retry, ROUND_MS, not_over);
	}
	job_check_over(j);
}

static void batch_done(struct vm *vm, int status)
{
	unsigned batch = 0;

	list_for_each(j, &vm->killer.sent, struct job, killing)
		batch++;
	if (status != 0)
		log_warn("vm=%s jobs were to be ended: %s (%d)", vm_name(vm), no_end, status);
	while (!list_empty(&vm->killer.sent)) {
		struct job *j = job_ref(list_entry(vm->killer.sent.next, struct job, killing));

		one_is_done(j, status, batch);
		job_unref(j);
	}
}

static void killer_data(void *user, int which, const uint8_t *data, size_t len)
{
}

/* The errand is over, whoever's it was: it is the caller's now. */
static struct errand *killer_free(struct vm *vm)
{
	struct errand *e = vm->killer.errand;

	vm->killer.channel = NULL;
	vm->killer.errand = NULL;
	loop_timer_cancel(&vm->killer.deadline);
	return e;
}

static void killer_closed(void *user, const struct ssh_exit *how)
{
	struct vm *vm = user;
	struct errand *e = killer_free(vm);

	if (how->error == -EMFILE || how->error == -EHOSTDOWN) {
		not_done(vm, e, how->error);
		return;
	}
	vm_ref(vm);
	if (e)
		errand_free(e);
	else
		batch_done(vm, how->error ? -1 : how->status);
	killer_go(vm);
	jobs_pump(vm);
	vm_unref(vm);
}

static void signal_unanswered(struct vm *vm, struct errand *e)
{
	char *path = xasprintf("jobs/%s/ctl", e->job->id);
	struct err err = ERR_NONE;

	err_set(&err, -ETIMEDOUT, "signal %s: the guest did not answer in 45 seconds", e->signal);
	vm_set_error(vm, "signal", path, &err);
	free(path);
	errand_free(e);
}

static void no_answer_came(struct loop_timer *t)
{
	struct vm *vm = container_of(t, struct vm, killer.deadline);
	struct errand *e;

	if (vm->ssh && ssh_is_held(vm->ssh)) {	/* the guest stands still */
		list_for_each(j, &vm->killer.sent, struct job, killing)
			j->kill_asked = clock_ms();
		loop_timer_set(vm->fleet->loop, t, ANSWER_MS, no_answer_came);
		return;
	}
	ssh_channel_destroy(vm->killer.channel);
	e = killer_free(vm);
	vm_ref(vm);
	if (e)
		signal_unanswered(vm, e);
	while (!e && !list_empty(&vm->killer.sent)) {
		struct job *j = job_ref(list_entry(vm->killer.sent.next, struct job, killing));

		set_kill(j, KILL_NONE);
		if (job_started(j))
			give_up(j, no_answer);
		job_unref(j);
	}
	killer_go(vm);
	jobs_pump(vm);
	vm_unref(vm);
}

static const struct ssh_channel_ops killer_ops = { .data = killer_data, .closed = killer_closed };

/* --- the script, sent ------------------------------------------------------------------ */

/* A signal waits until its job runs; one for a job that is over is of no use. */
static struct errand *next_errand(struct vm *vm)
{
	list_for_each_safe(e, &vm->killer.errands, struct errand, link) {
		if (e->job->state == JOB_RUNNING)
			return e;
		if (e->job->state == JOB_DONE)
			errand_free(e);
	}
	return NULL;
}

static struct kill_target target(const struct job *j)
{
	/* When its own process has ended, that number may be another's. */
	return (struct kill_target){ j->token, j->exited ? 0 : j->greeting.pid };
}

static unsigned next_batch(struct vm *vm, struct kill_target *targets)
{
	unsigned max = vm->killer.alone ? 1 : BATCH_MAX, n = 0;

	list_for_each_safe(j, &vm->killer.wanted, struct job, killing) {
		if (n == max)
			break;
		targets[n++] = target(j);
		set_kill(j, KILL_SENT);
	}
	if (n == 0)
		vm->killer.alone = false;
	return n;
}

void killer_go(struct vm *vm)
{
	struct kill_target targets[BATCH_MAX];
	struct killer *k = &vm->killer;
	struct buf exec = BUF_INIT;
	struct lane *lane;
	unsigned n = 1;
	int r;

	if (!vm->fleet || k->channel || loop_timer_is_set(&k->retry))
		return;
	lane = lane_at(vm, k->lane);
	if (!lane) {
		k->lane = 0;
		lane = lane_at(vm, 0);
	}
	if (!lane)
		return;		/* called again when there is one */
	k->errand = next_errand(vm);
	if (k->errand) {
		list_del(&k->errand->link);
		targets[0] = target(k->errand->job);
	} else {
		n = next_batch(vm, targets);
	}
	if (n == 0)
		return;
	command_build_kill(&exec, targets, n, KILL_GRACE, k->errand ? k->errand->signal : NULL);
	r = ssh_exec(lane->ssh, buf_peek(&exec), buf_size(&exec), &killer_ops, vm, &k->channel);
	buf_finish(&exec);
	loop_timer_set(vm->fleet->loop, &k->deadline, ANSWER_MS, no_answer_came);
	if (r < 0)
		killer_closed(vm, &(struct ssh_exit){ .error = r });
}

void killer_stop(struct vm *vm)
{
	loop_timer_cancel(&vm->killer.retry);
	ssh_channel_destroy(vm->killer.channel);
	errand_free(killer_free(vm));
	list_for_each_safe(e, &vm->killer.errands, struct errand, link)
		errand_free(e);
}

/* --- who asks ------------------------------------------------------------------------------ */

static int check_runs(struct job *j, struct err *err)
{
	/*
	 * What a job has left running in the background can be ended as long as it holds its
	 * output.
	 */
	if (!j->vm || (j->state == JOB_DONE && !j->channel))
		return err_set(err, -ESRCH, "job %s is over", j->id);
	if (!lane_at(j->vm, 0))
		return err_set(err, -EHOSTDOWN, "%s cannot be reached", vm_name(j->vm));
	return 0;
}

static void want(struct job *j)
{
	j->kill_asked = clock_ms();
	set_kill(j, KILL_WANTED);
}

static void mark(struct job *j)
{
	if (j->kill == KILL_NONE)
		want(j);
	killer_go(j->vm);
}

int job_kill(struct job *j, struct err *err)
{
	int r;

	if (j->state != JOB_DONE && !job_started(j)) {
		job_end(j, RESULT_CANCELLED, "killed before it started");
		return 0;
	}
	r = check_runs(j, err);
	if (r == 0)
		mark(j);
	return r;
}

int job_signal(struct job *j, const char *text, struct err *err)
{
	const char *name = signal_name(text, NULL);
	struct errand *e;
	int r;

	if (!name)
		return err_set(err, -EINVAL,
			       "there is no signal %s: names are TERM, INT, HUP, USR1 "
			       "and so on", text);
	if (j->state != JOB_DONE && !job_started(j))
		return err_set(err, -EAGAIN, "job %s has not been started yet", j->id);
	r = check_runs(j, err);
	if (r < 0)
		return r;
	e = xcalloc(1, sizeof(*e));
	e->job = job_ref(j);
	snprintf(e->signal, sizeof(e->signal), "%s", name);
	list_add_tail(&j->vm->killer.errands, &e->link);
	killer_go(j->vm);
	return 0;
}

int jobs_kill_all(struct vm *vm, struct err *err)
{
	bool runs = false;

	jobs_cancel_queued(vm, "killed before it started");
	list_for_each(j, &vm->jobs, struct job, link)
		if (j->channel && j->kill == KILL_NONE) {
			want(j);
			runs = true;
		}
	if (runs && !lane_at(vm, 0))
		return err_set(err, -EHOSTDOWN, "%s cannot be reached", vm_name(vm));
	killer_go(vm);
	return 0;
}

/* --- the timeout --------------------------------------------------------------------------- */

static void too_late(struct loop_timer *t)
{
	struct job *j = container_of(t, struct job, deadline);

	j->timed_out = true;
	log_debug("vm=%s job=%s has run too long", vm_name(j->vm), j->id);
	mark(j);
}

/* Set the timer anew. */
void job_deadline(struct job *j)
{
	int64_t left = j->started_clock + (int64_t)j->timeout_ms - clock_ms();

	loop_timer_cancel(&j->deadline);
	if (j->state == JOB_RUNNING && j->timeout_ms && !j->exited && !j->timed_out)
		loop_timer_set(j->vm->fleet->loop, &j->deadline, left > 0 ? left : 0, too_late);
}

uint64_t job_timeout(const struct job *j)
{
	bool settled = j->timeout_set || j->state == JOB_DONE;

	return settled || !j->vm ? j->timeout_ms : vm_timeout(j->vm);
}

int job_set_timeout(struct job *j, uint64_t ms)
{
	if (j->state == JOB_DONE || j->timed_out || j->exited)
		return -EBUSY;
	j->timeout_ms = ms;
	j->timeout_set = true;
	job_deadline(j);
	return 0;
}
