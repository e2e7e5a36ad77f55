/* Counters and histograms; see metrics.h. */
#include "metrics.h"

#include <stdio.h>
#include <string.h>

#include "buf.h"

/* Members of one family stand together; the first has its help. */
static const struct {
	const char *name, *labels, *help;
} table[METRIC_COUNT] = {
	[METRIC_DISK_READ_BYTES] = { "sbxfs_disk_bytes_total", "direction=\"read\"",
		"Bytes of files below root/, from or to the guests." },
	[METRIC_DISK_WRITTEN_BYTES] = { "sbxfs_disk_bytes_total", "direction=\"write\"", NULL },
	[METRIC_JOB_STDOUT_BYTES] = { "sbxfs_job_bytes_total", "stream=\"stdout\"",
		"Bytes that jobs wrote or read." },
	[METRIC_JOB_STDERR_BYTES] = { "sbxfs_job_bytes_total", "stream=\"stderr\"", NULL },
	[METRIC_JOB_STDIN_BYTES] = { "sbxfs_job_bytes_total", "stream=\"stdin\"", NULL },
	[METRIC_JOBS_SUCCESS] = { "sbxfs_jobs_total", "result=\"success\"",
		"Jobs that are over; success is exit status 0." },
	[METRIC_JOBS_FAILURE] = { "sbxfs_jobs_total", "result=\"failure\"", NULL },
	[METRIC_JOBS_SIGNALED] = { "sbxfs_jobs_total", "result=\"signaled\"", NULL },
	[METRIC_JOBS_TIMEOUT] = { "sbxfs_jobs_total", "result=\"timeout\"", NULL },
	[METRIC_JOBS_LOST] = { "sbxfs_jobs_total", "result=\"lost\"", NULL },
	[METRIC_JOBS_CANCELLED] = { "sbxfs_jobs_total", "result=\"cancelled\"", NULL },
	[METRIC_SANDBOXES_CREATED] = { "sbxfs_sandboxes_created_total", "", "Sandboxes made." },
	[METRIC_SANDBOXES_DESTROYED] = { "sbxfs_sandboxes_destroyed_total", "",
		"Sandboxes verified gone." },
	[METRIC_SFTP_REQUESTS] = { "sbxfs_sftp_requests_total", "", "Requests to SFTP servers." },
	[METRIC_SSH_CONNECTIONS] = { "sbxfs_ssh_connections_total", "result=\"success\"",
		"SSH connections: logged in, or failed before or after." },
	[METRIC_SSH_FAILURES] = { "sbxfs_ssh_connections_total", "result=\"failure\"", NULL },
	[METRIC_CACHE_HITS] = { "sbxfs_cache_lookups_total", "result=\"hit\"",
		"Names and attributes below root/ that were, or were not, in the cache." },
	[METRIC_CACHE_MISSES] = { "sbxfs_cache_lookups_total", "result=\"miss\"", NULL },
};

static uint64_t values[METRIC_COUNT];

void metric_add(enum metric m, uint64_t n)
{
	values[m] += n;
}

uint64_t metric_value(enum metric m)
{
	return values[m];
}

void metric_head(struct buf *out, const char *name, const char *type, const char *help)
{
	buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void metrics_print(struct buf *out)
{
	for (int i = 0; i < METRIC_COUNT; i++) {
		const char *labels = table[i].labels;

		if (table[i].help)
			metric_head(out, table[i].name, "counter", table[i].help);
		buf_printf(out, "%s%s%s%s %llu\n", table[i].name, *labels ? "{" : "", labels,
			   *labels ? "}" : "", (unsigned long long)values[i]);
	}
}

/* Half a millisecond is a fixed file, 30 s the longest bounded wait. */
static const char *const bounds[HISTOGRAM_CLASSES] = {
	"0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025",
	"0.05", "0.1", "0.25", "0.5", "1", "2.5", "10", "30",
};
static const double limits[HISTOGRAM_CLASSES] = {
	0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
	0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30,
};

void histogram_add(struct histogram *h, double seconds)
{
	int i = 0;

	while (i < HISTOGRAM_CLASSES && seconds > limits[i])
		i++;
	h->count[i]++;
	h->sum += seconds;
}

void histogram_print(const struct histogram *h, struct buf *out, const char *name,
		     const char *labels)
{
	const char *comma = *labels ? "," : "";
	uint64_t sum = 0;

	for (int i = 0; i <= HISTOGRAM_CLASSES; i++) {
		sum += h->count[i];
		buf_printf(out, "%s_bucket{%s%sle=\"%s\"} %llu\n", name, labels, comma,
			   i < HISTOGRAM_CLASSES ? bounds[i] : "+Inf", (unsigned long long)sum);
	}
	buf_printf(out, "%s_sum%s%s%s %.6f\n", name, *labels ? "{" : "", labels,
		   *labels ? "}" : "", h->sum);
	buf_printf(out, "%s_count%s%s%s %llu\n", name, *labels ? "{" : "", labels,
		   *labels ? "}" : "", (unsigned long long)sum);
}

void metric_label(struct buf *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '\\' || *text == '"')
			buf_put_u8(out, '\\');
		if (*text == '\n')
			buf_put(out, "\\n", 2);
		else
			buf_put_u8(out, (uint8_t)*text);
	}
}
