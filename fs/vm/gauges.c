/* The fleet as Prometheus sees it: how many sandboxes and jobs there are, and in which state. */
#include <string.h>

#include "job.h"
#include "job_internal.h"
#include "metrics.h"
#include "vm_internal.h"

static const char *const status_words[] = {
	"creating", "booting", "running", "paused", "stopped", "destroying", "unreachable", "failed",
};
#define STATUS_COUNT (sizeof(status_words) / sizeof(status_words[0]))

static void count_sandboxes(struct fleet *f, const char *backend, unsigned *counts)
{
	struct vm *vm, *next;

	HASH_ITER(hh, f->vms, vm, next) {
		if (strcmp(vm->record.backend, backend))
			continue;
		for (size_t i = 0; i < STATUS_COUNT; i++)
			if (!strcmp(vm_status(vm), status_words[i]))
				counts[i]++;
	}
}

static void sandboxes_print(struct fleet *f, struct buf *out)
{
	metric_head(out, "sbxfs_sandboxes", "gauge", "Sandboxes that are there.");
	for (unsigned i = 0; i < f->slot_count; i++) {
		const char *backend = f->slots[i].ops->name;
		unsigned counts[STATUS_COUNT] = { 0 };

		count_sandboxes(f, backend, counts);
		for (size_t s = 0; s < STATUS_COUNT; s++)
			buf_printf(out, "sbxfs_sandboxes{backend=\"%s\",state=\"%s\"} %u\n",
				   backend, status_words[s], counts[s]);
	}
	metric_head(out, "sbxfs_backend_ready", "gauge", "Can the backend make sandboxes now?");
	for (unsigned i = 0; i < f->slot_count; i++)
		buf_printf(out, "sbxfs_backend_ready{backend=\"%s\"} %d\n", f->slots[i].ops->name,
			   f->slots[i].ready);
}

static void jobs_print(struct fleet *f, struct buf *out)
{
	unsigned collecting = 0, queued = 0, running = 0;
	unsigned long long kept = 0;
	struct vm *vm, *next;

	HASH_ITER(hh, f->vms, vm, next) {
		struct list *l;

		kept += vm->job_count;
		for (l = vm->jobs.next; l != &vm->jobs; l = l->next) {
			struct job *job = list_entry(l, struct job, link);

			collecting += job->state == JOB_COLLECTING;
			queued += job->state == JOB_QUEUED;
			running += job->state == JOB_STARTING || job->state == JOB_RUNNING;
		}
	}
	metric_head(out, "sbxfs_jobs", "gauge", "Jobs that are not over.");
	buf_printf(out, "sbxfs_jobs{state=\"collecting\"} %u\nsbxfs_jobs{state=\"queued\"} %u\n"
		   "sbxfs_jobs{state=\"running\"} %u\n", collecting, queued, running);
	metric_head(out, "sbxfs_jobs_kept", "gauge", "Jobs in the folders jobs/, those of the past too.");
	buf_printf(out, "sbxfs_jobs_kept %llu\n", kept);
}

static void links_print(struct fleet *f, struct buf *out)
{
	unsigned up = 0;
	struct vm *vm, *next;

	HASH_ITER(hh, f->vms, vm, next)
		up += vm->link == LINK_UP;
	metric_head(out, "sbxfs_sandboxes_connected", "gauge",
		    "Sandboxes that an SSH connection is open to.");
	buf_printf(out, "sbxfs_sandboxes_connected %u\n", up);
}

void fleet_metrics_print(struct fleet *f, struct buf *out)
{
	sandboxes_print(f, out);
	jobs_print(f, out);
	links_print(f, out);
}
