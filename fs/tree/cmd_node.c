/*
 * cmd: collects a command and runs it.
 *
 * The first write to a handle reserves a job. It runs at the last close of the
 * handle, at fsync, or at the first read of that handle. To a handle that was opened read-write
 * the file is the command followed by its output: a reader that
 * goes on where its write ended reads what the command prints, to the end. Then
 * the handle is free for another command.
 *
 * A writer that dies of a signal closes its files like any other: its flush tells,
 * see process.h. Then the text is not whole and never runs.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "err.h"
#include "job.h"
#include "job_node.h"
#include "process.h"
#include "tree_internal.h"
#include "vm.h"

struct cmd_handle {
	struct job *job;	/* this handle's own, once it has written */
	bool finished;		/* it was handed on, or given up, by this handle */
	off_t base;		/* where in the handle's file its text begins */
	pid_t writer;		/* the thread of the latest write */
	const char *broken;	/* why the text is not whole: never run it */
	char *sentence;		/* why the latest write was refused */
	off_t sentence_off;
};

static int cmd_stat(struct node *node, struct stat *st)
{
	struct job *job = node_job(node);

	st->st_size = job ? (off_t)job_text_size(job) : 0;
	return 0;
}

/* A handle that is read on gives the output: beyond any text. */
static off_t cmd_reach(struct node *node)
{
	return 2 * (off_t)JOB_TEXT_MAX;
}

static int cmd_open(struct req *req, struct node *node, struct handle *h, struct fuse_file_info *fi)
{
	h->priv = xcalloc(1, sizeof(struct cmd_handle));
	fi->direct_io = 1;
	req_reply_open(req, h);
	return 0;
}

static void let_go(struct handle *h)
{
	struct cmd_handle *c = h->priv;

	if (c->job) {
		if (!c->finished)
			job_text_end(c->job);
		job_unuse(c->job);
		job_rest(c->job);
	}
	job_unref(c->job);
	c->job = NULL;
	free(h->cursor);
	h->cursor = NULL;
}

/* The job that this write belongs to. */
static int job_for_write(struct handle *h, off_t off, struct err *err)
{
	struct cmd_handle *c = h->priv;
	struct job *named = h->node->job, *job = NULL;
	int r = 0;

	if (c->job && job_state(c->job) == JOB_COLLECTING)
		return 0;
	/* What is still to come is no command of its own. */
	if (c->job && !c->finished)
		return err_set(err, -ECANCELED, "job %s was ended before its text was whole",
			       job_id(c->job));
	if (c->job && job_state(c->job) != JOB_DONE)
		return err_set(err, -EBUSY, "the command of this handle has not ended yet");
	let_go(h);
	if (named)
		job_ref(job = named);
	else
		r = job_create(h->node->vm, NULL, &job, err);
	if (r == 0)
		r = job_text_begin(job, err);
	if (r < 0) {
		if (job && !named)
			job_discard(job, err->text);
		job_unref(job);
		return r;
	}
	c->job = job;
	c->base = off;
	c->broken = NULL;
	c->finished = false;
	job_use(c->job);
	return 0;
}

static int cmd_write(struct req *req, struct handle *h, const void *data, size_t size, off_t off)
{
	struct cmd_handle *c = h->priv;
	struct err err = ERR_NONE;
	ssize_t n = job_for_write(h, off, &err);

	/* What the kernel takes for the end of the file is that of another's text. */
	if (n == 0 && (h->flags & O_APPEND))
		off = c->base + (off_t)job_text_size(c->job);
	free(c->sentence);
	c->sentence = NULL;
	c->writer = req->pid;
	if (n == 0) {
		n = job_text_write(c->job, data, size, off - c->base, &err);
		if (n < 0)
			c->broken = "a part of the command was refused";
	}
	if (n < 0) {
		c->sentence = xasprintf("%s\n", err.text);
		c->sentence_off = off;
		return req_fail(h->node, "write", NULL, &err);
	}
	req_reply_write(req, (size_t)n);
	return 0;
}

static void finish(struct cmd_handle *c)
{
	if (!c->job || job_state(c->job) != JOB_COLLECTING)
		return;
	if (c->broken)
		job_discard(c->job, c->broken);
	else
		job_submit(c->job);
	/* (A named one whose text is blank goes on.) */
	c->finished = job_state(c->job) != JOB_COLLECTING;
}

static int read_text(struct req *req, struct job *job, size_t size, off_t off)
{
	uint8_t *data = xmalloc(size);
	ssize_t n = job ? job_text_read(job, data, size, off) : 0;

	if (n >= 0)
		req_reply_buf(req, data, (size_t)n);
	free(data);
	return n < 0 ? (int)n : 0;
}

static int cmd_read(struct req *req, struct handle *h, size_t size, off_t off)
{
	struct cmd_handle *c = h->priv;
	off_t output;

	if (c->sentence && off >= c->sentence_off) {
		size_t len = strlen(c->sentence), at = (size_t)(off - c->sentence_off);

		at = at < len ? at : len;
		req_reply_buf(req, c->sentence + at, len - at < size ? len - at : size);
		return 0;
	}
	if (c->job && req_fills_cache(req))
		return -EINVAL;
	if (!c->job)
		return read_text(req, node_job(h->node), size, off);
	finish(c);
	output = c->base + (off_t)job_text_size(c->job);
	if (off < c->base)
		return -EINVAL;
	if (off < output)
		return read_text(req, c->job, size, off - c->base);
	return stream_reply(req, job_stream(c->job), STREAM_LOG, &h->cursor, size,
			    (uint64_t)(off - output), true, h->nonblock);
}

static int cmd_flush(struct req *req, struct handle *h)
{
	struct cmd_handle *c = h->priv;
	struct process flusher, writer;

	if (c->job && job_state(c->job) == JOB_COLLECTING && process_dies_of_signal(req->pid) &&
	    (req->pid == c->writer || !process_identify(c->writer, &writer) ||
	     (process_identify(req->pid, &flusher) && flusher.group == writer.group)))
		c->broken = "its writer was killed before the command was whole";
	req_reply_err(req, 0);
	return 0;
}

static int cmd_fsync(struct req *req, struct handle *h, bool data_only)
{
	finish(h->priv);
	req_reply_err(req, 0);
	return 0;
}

static void cmd_release(struct handle *h)
{
	struct cmd_handle *c = h->priv;

	finish(c);
	if (!c->job && node_job(h->node))
		job_rest(node_job(h->node));
	let_go(h);
	free(c->sentence);
	free(c);
}

static unsigned cmd_poll(struct handle *h, struct wait_list **news)
{
	struct cmd_handle *c = h->priv;
	unsigned events = POLLOUT | POLLWRNORM;
	uint64_t text, seen;

	if (!c->job || job_state(c->job) == JOB_COLLECTING)
		return events | POLLIN | POLLRDNORM;
	if (stream_ended(job_stream(c->job)))
		return events | POLLIN | POLLRDNORM;
	*news = stream_news(job_stream(c->job));
	text = (uint64_t)c->base + job_text_size(c->job);
	seen = h->read_end > text ? h->read_end - text : 0;
	return stream_cursor_left(job_stream(c->job), STREAM_LOG, h->cursor, seen) ?
		POLLIN | POLLRDNORM : 0;
}

static int cmd_store(struct node *node, const void *data, size_t len, struct err *err)
{
	struct job *job = node->job;
	ssize_t n = 0;

	if (job)
		job_ref(job);
	else
		n = job_create(node->vm, NULL, &job, err);
	if (n == 0)
		n = job_text_begin(job, err);
	if (n == 0) {
		n = job_text_write(job, data, len, 0, err);
		job_text_end(job);
		if (n >= 0)
			job_submit(job);
		else if (!node->job)
			job_discard(job, err->text);
	}
	job_unref(job);
	return n < 0 ? (int)n : 0;
}

static int cmd_content(struct node *node, struct buf *out, struct err *err)
{
	struct job *job = node_job(node);
	size_t size = job ? job_text_size(job) : 0;
	ssize_t n = job ? job_text_read(job, buf_reserve(out, size), size, 0) : 0;

	if (n > 0)
		buf_commit(out, (size_t)n);
	return n < 0 ? err_sys(err, (int)n, "cannot read the command") : 0;
}

const struct node_ops cmd_ops = {
	.kind = "cmd", .mode = S_IFREG | 0644,
	.stat = cmd_stat, .reach = cmd_reach, .open = cmd_open, .read = cmd_read,
	.write = cmd_write,
	.flush = cmd_flush, .fsync = cmd_fsync, .release = cmd_release, .poll = cmd_poll,
	.store = cmd_store, .content = cmd_content,
};
