/*
 * .sbxfs/metrics: what all layers count, the fleet's gauges, the process, and
 * how long each kind of request took. A read that waited for output or for the
 * end of a job says nothing about sbxfs: it is counted and not timed.
 */
#include "metrics_node.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"
#include "events.h"
#include "fleet.h"
#include "metrics.h"
#include "tree_internal.h"

#define ERRNO_MAX 134

static const char *const op_names[] = {
	[OP_LOOKUP] = "lookup", [OP_GETATTR] = "getattr", [OP_SETATTR] = "setattr",
	[OP_READLINK] = "readlink", [OP_STATFS] = "statfs", [OP_MKDIR] = "mkdir",
	[OP_RMDIR] = "rmdir", [OP_UNLINK] = "unlink", [OP_RENAME] = "rename",
	[OP_CREATE] = "create", [OP_MKNOD] = "mknod", [OP_SYMLINK] = "symlink",
	[OP_LINK] = "link", [OP_OPEN] = "open", [OP_READ] = "read", [OP_WRITE] = "write",
	[OP_FLUSH] = "flush", [OP_FSYNC] = "fsync", [OP_FALLOCATE] = "fallocate",
	[OP_COPY] = "copy",
	[OP_POLL] = "poll", [OP_OPENDIR] = "opendir", [OP_READDIR] = "readdir",
};
static_assert(sizeof(op_names) / sizeof(op_names[0]) == OP_COUNT, "a name for each operation");

static struct {
	struct histogram took;
	uint64_t waited;		/* for news: not timed */
	uint64_t errors[ERRNO_MAX];
} ops[OP_COUNT];
static unsigned in_flight;

/* --- requests ------------------------------------------------------------------------ */

static double now_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void request_begins(struct req *req)
{
	req->began = now_seconds();
	in_flight++;
}

void request_ends(struct req *req, int error)
{
	in_flight--;
	if (req->waited)
		ops[req->op].waited++;
	else
		histogram_add(&ops[req->op].took, now_seconds() - req->began);
	if (error < 0 && -error < ERRNO_MAX)
		ops[req->op].errors[-error]++;
}

static void requests_print(struct buf *out)
{
	char labels[64];

	metric_head(out, "sbxfs_requests_in_flight", "gauge",
		    "Requests of the kernel not yet answered.");
	buf_printf(out, "sbxfs_requests_in_flight %u\n", in_flight);
	metric_head(out, "sbxfs_request_duration_seconds", "histogram",
		    "From a request of the kernel to its answer; without those that waited for a "
		    "job.");
	for (int i = 0; i < OP_COUNT; i++) {
		snprintf(labels, sizeof(labels), "operation=\"%s\"", op_names[i]);
		histogram_print(&ops[i].took, out, "sbxfs_request_duration_seconds", labels);
	}
	metric_head(out, "sbxfs_requests_waited_total", "counter",
		    "Requests that waited for output, for room or for the end of a job.");
	for (int i = 0; i < OP_COUNT; i++)
		if (ops[i].waited)
			buf_printf(out,
				   "sbxfs_requests_waited_total{operation=\"%s\"} %" PRIu64 "\n",
				   op_names[i], ops[i].waited);
	metric_head(out, "sbxfs_request_errors_total", "counter",
		    "Requests answered with an error. ENOENT of a lookup is everyday life.");
	for (int i = 0; i < OP_COUNT; i++)
		for (int e = 1; e < ERRNO_MAX; e++)
			if (ops[i].errors[e])
				buf_printf(out, "sbxfs_request_errors_total{operation=\"%s\","
					   "errno=\"%s\"} %" PRIu64 "\n", op_names[i],
					   strerrorname_np(e) ? strerrorname_np(e) : "unknown",
					   ops[i].errors[e]);
}

/* --- the loop --------------------------------------------------------------------------- */

static void loop_print(const struct loop_turns *t, struct buf *out)
{
	metric_head(out, "sbxfs_loop_turn_seconds", "histogram",
		    "Turns of the event loop, during which nobody else is served.");
	histogram_print(&t->took, out, "sbxfs_loop_turn_seconds", "");
	metric_head(out, "sbxfs_loop_turn_cpu_seconds", "histogram",
		    "The same in processor time: the rest was waited for the machine.");
	histogram_print(&t->cpu, out, "sbxfs_loop_turn_cpu_seconds", "");
	metric_head(out, "sbxfs_loop_turn_longest_seconds", "gauge",
		    "The longest turn since the start.");
	buf_printf(out, "sbxfs_loop_turn_longest_seconds %.6f\n", t->longest);
	metric_head(out, "sbxfs_loop_turn_longest_cpu_seconds", "gauge",
		    "The turn with the most processor time since the start.");
	buf_printf(out, "sbxfs_loop_turn_longest_cpu_seconds %.6f\n", t->longest_cpu);
}

/* --- the process ------------------------------------------------------------------------- */

static unsigned open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n > 3 ? n - 3 : 0;	/* ".", ".." and the one that counts */
}

static void memory_print(struct buf *out)
{
	unsigned long long pages[2] = { 0 };
	long size = sysconf(_SC_PAGESIZE);
	FILE *f = fopen("/proc/self/statm", "re");

	if (f && fscanf(f, "%llu %llu", &pages[0], &pages[1]) != 2)
		pages[0] = pages[1] = 0;
	if (f)
		fclose(f);
	metric_head(out, "sbxfs_process_virtual_memory_bytes", "gauge",
		    "Virtual memory size in bytes.");
	buf_printf(out, "sbxfs_process_virtual_memory_bytes %llu\n",
		   pages[0] * (unsigned long long)size);
	metric_head(out, "sbxfs_process_resident_memory_bytes", "gauge",
		    "Resident memory size in bytes.");
	buf_printf(out, "sbxfs_process_resident_memory_bytes %llu\n",
		   pages[1] * (unsigned long long)size);
}

/*
 * As every Prometheus client library names them, but for the prefix: node_exporter, by which
 * this is read, has those names for itself and drops ours.
 */
static void process_print(struct tree *tree, struct buf *out)
{
	struct rusage usage;
	struct rlimit files;

	if (getrusage(RUSAGE_SELF, &usage) == 0) {
		metric_head(out, "sbxfs_process_cpu_seconds_total", "counter",
			    "Total user and system CPU time spent in seconds.");
		buf_printf(out, "sbxfs_process_cpu_seconds_total %.6f\n",
			   (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
			   (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
	}
	metric_head(out, "sbxfs_process_open_fds", "gauge", "Number of open file descriptors.");
	buf_printf(out, "sbxfs_process_open_fds %u\n", open_descriptors());
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		metric_head(out, "sbxfs_process_max_fds", "gauge",
			    "Maximum number of open file descriptors.");
		buf_printf(out, "sbxfs_process_max_fds %llu\n", (unsigned long long)files.rlim_cur);
	}
	memory_print(out);
	metric_head(out, "sbxfs_process_start_time_seconds", "gauge",
		    "Start time of the process since unix epoch in seconds.");
	buf_printf(out, "sbxfs_process_start_time_seconds %.3f\n", (double)tree->started / 1000);
}

void metrics_node_print(struct tree *tree, struct buf *out)
{
	metric_head(out, "sbxfs_build_info", "gauge", "Always 1; which version runs.");
	buf_printf(out, "sbxfs_build_info{version=\"%s\"} 1\n", SBXFS_VERSION);
	fleet_metrics_print(tree->fleet, out);
	metrics_print(out);
	metric_head(out, "sbxfs_events_bytes_total", "counter",
		    "Bytes of .sbxfs/events since the daemon's start, with what was kept then.");
	buf_printf(out, "sbxfs_events_bytes_total %" PRIu64 "\n",
		   events_size(fleet_events(tree->fleet)));
	requests_print(out);
	loop_print(loop_turns(tree->loop), out);
	process_print(tree, out);
}
