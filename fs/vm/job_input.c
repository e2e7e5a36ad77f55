/*
 * The standard input of jobs.
 *
 * What is written before a job runs goes to the file `stdin` of its folder; at the
 * start the file is fed to the channel in pieces, as it drains; then writers are let
 * through, at most STDIN_AHEAD bytes ahead of the guest. A script that travels on
 * standard input goes first of all.
 */
#include "job_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "metrics.h"

#define STDIN_AHEAD (512 * 1024)
#define STDIN_SPOOL_MAX (1ull << 30)

void job_stdin_hold(struct job *j)
{
	j->holders++;
}

void job_stdin_release(struct job *j)
{
	assert(j->holders > 0);
	/* Whoever leaves a terminal can come back to it: hanging up is for kill. */
	if (--j->holders == 0 && job_started(j) && !j->tty) {
		j->eof = true;
		job_feed(j);
	}
}

static ssize_t spool_stdin(struct job *j, const void *data, size_t len)
{
	ssize_t n;

	if (j->stdin_fd < 0) {
		char *path = xasprintf("%s/stdin", j->dir);

		j->stdin_fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		free(path);
		if (j->stdin_fd < 0)
			return -errno;
	}
	if (j->stdin_spooled + len > STDIN_SPOOL_MAX)
		return -ENOSPC;
	n = pwrite(j->stdin_fd, data, len, (off_t)j->stdin_spooled);
	if (n < 0)
		return -errno;
	j->stdin_spooled += (uint64_t)n;
	j->stdin_size += (uint64_t)n;
	metric_add(METRIC_JOB_STDIN_BYTES, (uint64_t)n);
	return n;
}

/* What was kept, or the script itself, goes first; then so much ahead of the guest. */
static bool stdin_full(const struct job *j)
{
	return j->stdin_fed < j->stdin_spooled ||
	       (j->script_on_stdin && j->script_fed < j->text_size) ||
	       ssh_channel_queued(j->channel) >= STDIN_AHEAD;
}

bool job_stdin_would_wait(const struct job *j)
{
	return j->state == JOB_RUNNING && !j->closed && !j->eof && stdin_full(j);
}

ssize_t job_stdin_write(struct job *j, const void *data, size_t len)
{
	size_t room;

	if (j->state == JOB_DONE || j->closed || j->eof)
		return -EPIPE;
	if (j->state != JOB_RUNNING) {
		/* Kept until it is known to run: a start that found no channel loses nothing. */
		ssize_t n = spool_stdin(j, data, len);

		job_feed(j);
		return n;
	}
	if (stdin_full(j))
		return -EAGAIN;
	room = STDIN_AHEAD - ssh_channel_queued(j->channel);
	if (len > room)
		len = room;
	ssh_channel_write(j->channel, data, len);
	j->stdin_size += len;
	metric_add(METRIC_JOB_STDIN_BYTES, len);
	return (ssize_t)len;
}

int job_stdin_put(struct job *j, const void *data, size_t len)
{
	ssize_t n = 0;

	if (j->state == JOB_DONE || j->closed || j->eof)
		return -EPIPE;
	/* Behind what the channel has been given; live writers wait until it has this too. */
	while (len > 0 && (n = spool_stdin(j, data, len)) > 0) {
		data = (const char *)data + n;
		len -= (size_t)n;
	}
	job_stdin_hold(j);
	job_feed(j);
	job_stdin_release(j);
	return n < 0 ? (int)n : 0;
}

int job_stdin_eof(struct job *j)
{
	if (j->state == JOB_DONE || j->eof)
		return -EPIPE;
	if (j->tty) {
		ssize_t n = job_stdin_write(j, "\004", 1);

		return n < 0 ? (int)n : 0;
	}
	j->eof = j->eof_asked = true;
	job_feed(j);
	wait_wake(&j->stdin_news);
	return 0;
}

/* Move up to STDIN_AHEAD bytes of a file to the channel. False: it cannot be read. */
static bool feed_file(struct job *j, int fd, uint64_t *fed, uint64_t size)
{
	char chunk[65536];

	while (*fed < size && ssh_channel_queued(j->channel) < STDIN_AHEAD) {
		ssize_t n = pread(fd, chunk, sizeof(chunk), (off_t)*fed);

		if (n <= 0)
			return false;
		ssh_channel_write(j->channel, chunk, (size_t)n);
		*fed += (uint64_t)n;
	}
	return true;
}

/* Script, then what was kept, then the end if nobody will write more. */
void job_feed(struct job *j)
{
	if (!j->channel || !job_started(j))
		return;
	if (j->script_on_stdin && !feed_file(j, j->text_fd, &j->script_fed, j->text_size))
		goto bad;
	if (j->script_on_stdin && j->script_fed < j->text_size)
		return;
	if (!feed_file(j, j->stdin_fd, &j->stdin_fed, j->stdin_spooled))
		goto bad;
	if (j->eof && j->stdin_fed == j->stdin_spooled)
		ssh_channel_eof(j->channel);
	return;
bad:
	log_error("vm=%s job=%s cannot read its spooled input: %s", vm_name(j->vm), j->id,
		  strerror(errno));
	j->eof = true;
	ssh_channel_eof(j->channel);
}
