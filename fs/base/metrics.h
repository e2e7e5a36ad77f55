/*
 * What is counted, for .sbxfs/metrics: counters that only grow, and histograms of
 * durations. Text as Prometheus reads it (text exposition format 0.0.4): names
 * end in their unit, counters in _total.
 *
 * To count something new: a line in enum metric, one in metrics.c's table, and
 * metric_add() where it happens.
 */
#ifndef SBXFS_BASE_METRICS_H
#define SBXFS_BASE_METRICS_H

#include <stdint.h>

struct buf;

enum metric {
	METRIC_DISK_READ_BYTES,
	METRIC_DISK_WRITTEN_BYTES,
	METRIC_JOB_STDOUT_BYTES,
	METRIC_JOB_STDERR_BYTES,
	METRIC_JOB_STDIN_BYTES,
	METRIC_JOBS_SUCCESS,		/* exit 0 */
	METRIC_JOBS_FAILURE,		/* another number */
	METRIC_JOBS_SIGNALED,
	METRIC_JOBS_TIMEOUT,
	METRIC_JOBS_LOST,
	METRIC_JOBS_CANCELLED,
	METRIC_SANDBOXES_CREATED,
	METRIC_SANDBOXES_DESTROYED,
	METRIC_SFTP_REQUESTS,
	METRIC_SSH_CONNECTIONS,		/* logged in */
	METRIC_SSH_FAILURES,		/* attempts that failed, connections that broke */
	METRIC_CACHE_HITS,
	METRIC_CACHE_MISSES,
	METRIC_COUNT
};

void metric_add(enum metric, uint64_t n);
uint64_t metric_value(enum metric);
/* All counters, with HELP and TYPE, appended. */
void metrics_print(struct buf *out);

/* Durations in classes; all zero at first. */
#define HISTOGRAM_CLASSES 16
struct histogram {
	uint64_t count[HISTOGRAM_CLASSES + 1];	/* the last: longer than all bounds */
	double sum;				/* seconds */
};

void histogram_add(struct histogram *, double seconds);
/* The HELP and TYPE lines of a family. type: "counter", "gauge", "histogram". */
void metric_head(struct buf *out, const char *name, const char *type, const char *help);
/* The samples of one histogram of the family; labels: `operation="read"` or "". */
void histogram_print(const struct histogram *, struct buf *out, const char *name,
		     const char *labels);
/* text as the value of a label: backslash, quote and newline escaped. */
void metric_label(struct buf *out, const char *text);

#endif
