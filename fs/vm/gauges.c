/* The fleet as Prometheus sees it: how many sandboxes and jobs there are, and in which state. */
#include <string.h>

#include "disk.h"
#include "job.h"
#include "job_internal.h"
#include "metrics.h"
#include "vm_internal.h"

static const char *const status_words[] = {
	"creating", "booting", "running", "paused", "stopped", "destroying", "unreachable",
	"failed",
};
#define STATUS_COUNT (sizeof(status_words) / sizeof(status_words[0]))

static void count_sandboxes(struct fleet *f, const char *backend, unsigned *counts)
{
	struct vm *vm, *next;

	HASH_ITER(hh, f->vms, vm, next) {
		if (strcmp(vm->record.backend, backend) || vm->record.trashed)
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

/* One gauge of all backends; by(slot) < 0 leaves its backend out. */
static void by_backend(struct fleet *f, struct buf *out, const char *name, const char *help,
		       int64_t (*by)(struct slot *))
{
	metric_head(out, name, "gauge", help);
	for (unsigned i = 0; i < f->slot_count; i++) {
		int64_t value = by(&f->slots[i]);

		if (value >= 0)
			buf_printf(out, "%s{backend=\"%s\"} %lld\n", name, f->slots[i].ops->name,
				   (long long)value);
	}
}

static struct fleet_usage used(struct slot *s)
{
	struct fleet_usage u;

	limits_usage(s->fleet, s->backend, &u);
	return u;
}

static int64_t used_sandboxes(struct slot *s) { return used(s).sandboxes; }
static int64_t used_memory(struct slot *s) { return (int64_t)used(s).memory; }
static int64_t used_disk(struct slot *s) { return (int64_t)used(s).disk; }

static int64_t or_none(uint64_t limit) { return limit ? (int64_t)limit : -1; }
static int64_t limit_sandboxes(struct slot *s) { return or_none(s->fleet->limits.sandboxes); }
static int64_t limit_memory(struct slot *s) { return or_none(s->fleet->limits.memory); }
static int64_t limit_disk(struct slot *s) { return or_none(s->fleet->limits.disk); }

static int64_t in_trash(struct slot *s)
{
	struct vm *vm, *next;
	int64_t n = 0;

	HASH_ITER(hh, s->fleet->vms, vm, next)
		n += vm->backend == s->backend && vm->record.trashed;
	return n;
}

static void limits_print(struct fleet *f, struct buf *out)
{
	by_backend(f, out, "sbxfs_used_sandboxes", "Sandboxes that count against the limit.",
		   used_sandboxes);
	by_backend(f, out, "sbxfs_limit_sandboxes", "[limits] sandboxes; absent without one.",
		   limit_sandboxes);
	by_backend(f, out, "sbxfs_used_memory_bytes",
		   "Memory promised to sandboxes that are not stopped.",
		   used_memory);
	by_backend(f, out, "sbxfs_limit_memory_bytes", "[limits] memory; absent without one.",
		   limit_memory);
	by_backend(f, out, "sbxfs_used_disk_bytes",
		   "Disk promised to all sandboxes, the trash too.",
		   used_disk);
	by_backend(f, out, "sbxfs_limit_disk_bytes", "[limits] disk; absent without one.",
		   limit_disk);
	by_backend(f, out, "sbxfs_trash_sandboxes", "Sandboxes in the trash.", in_trash);
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
	metric_head(out, "sbxfs_jobs_kept", "gauge",
		    "Jobs in the folders jobs/, those of the past too.");
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
	limits_print(f, out);
	jobs_print(f, out);
	links_print(f, out);
	metric_head(out, "sbxfs_cache_bytes", "gauge", "What is remembered of names below root/.");
	buf_printf(out, "sbxfs_cache_bytes %zu\n", disk_cache_used(f->cache));
}
