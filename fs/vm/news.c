/* Changes become events and counts; see news.h. */
#include "news.h"

#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "events.h"
#include "job.h"
#include "job_internal.h"
#include "log.h"
#include "metrics.h"
#include "vm_internal.h"

/* --- the start and the end ---------------------------------------------------------- */

struct start {
	struct fleet *fleet;
	unsigned gone;
};

/* It was there when the last line was written and is not recorded any more. */
static void gone_meanwhile(void *user, const char *sandbox)
{
	struct start *s = user;
	const struct event_field fields[] = { { "why", "gone when sbxfs started", 0 }, { 0 } };

	if (fleet_find(s->fleet, sandbox) || fleet_trash_find(s->fleet, sandbox))
		return;
	events_post(s->fleet->events, "destroyed", sandbox, fields);
	s->gone++;
}

void news_start(struct fleet *f)
{
	const struct event_field fields[] = {
		{ "version", SBXFS_VERSION, 0 }, { "sandboxes", NULL, HASH_COUNT(f->vms) }, { 0 },
	};
	struct start s = { .fleet = f };
	struct vm *vm, *next;

	events_post(f->events, "started", NULL, fields);
	events_replay(f->events, gone_meanwhile, &s);
	HASH_ITER(hh, f->vms, vm, next)
		news_adopted(vm);
}

void news_stop(struct fleet *f)
{
	events_post(f->events, "ended", NULL, NULL);
}

/* --- sandboxes ------------------------------------------------------------------------- */

static void post_vm(struct vm *vm, const char *event)
{
	const struct event_field fields[] = {
		{ "backend", vm->record.backend, 0 },
		{ "image", vm->record.spec.image, 0 },
		{ "cpus", NULL, vm->record.spec.cpus },
		{ "memory", NULL, (int64_t)vm->record.spec.memory },
		{ "disk", NULL, (int64_t)vm->record.spec.disk },
		{ 0 },
	};

	log_info("vm=%s %s, backend %s, image %s", vm_label(vm), event, vm->record.backend,
		 vm->record.spec.image);
	events_post(vm->fleet->events, event, vm_label(vm), fields);
}

void news_created(struct vm *vm)
{
	metric_add(METRIC_SANDBOXES_CREATED, 1);
	post_vm(vm, "created");
}

void news_adopted(struct vm *vm)
{
	post_vm(vm, "adopted");
}

static void post_moved(struct vm *vm, const char *event, const char *was)
{
	const struct event_field fields[] = { { "was", was, 0 }, { 0 } };

	log_info("vm=%s %s, was %s", vm_label(vm), event, was);
	events_post(vm->fleet->events, event, vm_label(vm), fields);
}

void news_renamed(struct vm *vm, const char *was)
{
	post_moved(vm, "renamed", was);
}

void news_trashed(struct vm *vm)
{
	post_moved(vm, "trashed", vm_name(vm));
}

void news_restored(struct vm *vm, const char *was)
{
	post_moved(vm, "restored", was);
}

void news_status(struct vm *vm, const char *was)
{
	const char *status = vm_status(vm);
	bool bad = !strcmp(status, "failed") || !strcmp(status, "unreachable");
	const struct event_field fields[] = {
		{ "was", was, 0 }, { bad ? "error" : NULL, vm_error(vm), 0 }, { 0 },
	};

	if (vm->fleet)
		events_post(vm->fleet->events, status, vm_label(vm), fields);
}

void news_destroyed(struct vm *vm)
{
	log_info("vm=%s gone", vm_label(vm));
	metric_add(METRIC_SANDBOXES_DESTROYED, 1);
	events_post(vm->fleet->events, "destroyed", vm_label(vm), NULL);
}

void news_limit(struct fleet *f, const char *limit, const char *sandbox, const char *sentence)
{
	const struct event_field fields[] = {
		{ "limit", limit, 0 }, { "error", sentence, 0 }, { 0 },
	};

	events_post(f->events, "limit", sandbox, fields);
}

/* --- jobs --------------------------------------------------------------------------------- */

void news_job_started(struct job *j)
{
	const struct event_field fields[] = { { "job", j->id, 0 }, { 0 } };

	if (!j->vm || !j->vm->fleet)
		return;
	events_caller(j->vm->fleet->events, j->uid, j->thread);
	events_post(j->vm->fleet->events, "job_started", vm_label(j->vm), fields);
	events_caller(j->vm->fleet->events, (uid_t)-1, 0);
}

static enum metric result_metric(const struct job *j)
{
	switch (j->result) {
	case RESULT_SIGNALED: return METRIC_JOBS_SIGNALED;
	case RESULT_TIMEOUT: return METRIC_JOBS_TIMEOUT;
	case RESULT_LOST: return METRIC_JOBS_LOST;
	case RESULT_CANCELLED: return METRIC_JOBS_CANCELLED;
	case RESULT_EXITED: break;
	}
	return j->status == 0 ? METRIC_JOBS_SUCCESS : METRIC_JOBS_FAILURE;
}

void news_job_ended(struct job *j)
{
	struct buf status = BUF_INIT, exit = BUF_INIT;
	char *status_text, *exit_text;
	bool is_number;

	metric_add(result_metric(j), 1);
	if (!j->vm || !j->vm->fleet)
		return;
	job_status_print(j, &status);
	job_exit_print(j, &exit);
	status_text = buf_take_string(&status);
	exit_text = buf_take_string(&exit);
	status_text[strcspn(status_text, "\n")] = 0;
	exit_text[strcspn(exit_text, "\n")] = 0;
	is_number = exit_text[0] >= '0' && exit_text[0] <= '9';	/* else lost, cancelled */
	events_post(j->vm->fleet->events, "job_ended", vm_label(j->vm), (struct event_field[]){
		{ "job", j->id, 0 },
		{ "status", status_text, 0 },
		{ "exit", is_number ? NULL : exit_text, is_number ? atoi(exit_text) : 0 },
		{ j->started ? "duration_ms" : NULL, NULL, j->duration_ms },
		{ 0 },
	});
	free(status_text);
	free(exit_text);
}
