/*
 * What a job wrote, as files: stdout, stderr, log, exit; in a job's folder, and
 * in the sandbox's as views of the latest job, which is the one at open.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "buf.h"
#include "err.h"
#include "job.h"
#include "job_node.h"
#include "tree_internal.h"
#include "vm.h"

struct job *node_job(const struct node *node)
{
	return node->job ? node->job : job_latest(node->vm);
}

int job_view_open(struct req *req, struct node *node, struct handle *h, struct fuse_file_info *fi)
{
	struct job *job = node_job(node);

	h->priv = job ? job_ref(job) : NULL;
	if (job)
		job_use(job);
	h->growing = job && job_state(job) != JOB_DONE;
	fi->direct_io = 1;
	fi->nonseekable = 0;
	req_reply_open(req, h);
	return 0;
}

void job_view_release(struct handle *h)
{
	if (h->priv) {
		job_unuse(h->priv);
		job_rest(h->priv);
	}
	job_unref(h->priv);
	free(h->cursor);
}

static enum stream_which which_of(const struct node *node)
{
	return (enum stream_which)(uintptr_t)node->arg;
}

/* --- stdout, stderr, log ---------------------------------------------------------- */

static int stream_stat(struct node *node, struct stat *st)
{
	struct job *job = node_job(node);

	st->st_size = job ? (off_t)stream_size(job_stream(job), which_of(node)) : 0;
	return 0;
}

static off_t stream_reach(struct node *node)
{
	struct job *job = node_job(node);
	bool waits = job && job_state(job) != JOB_DONE && which_of(node) != STREAM_LOG;

	return waits ? (off_t)stream_size(job_stream(job), which_of(node)) + 1 : 0;
}

int stream_reply(struct req *req, struct stream *s, enum stream_which which,
		 struct stream_cursor **cursor, size_t size, uint64_t off, bool may_wait,
		 bool nonblock)
{
	uint64_t left = stream_cursor_left(s, which, *cursor, off);
	uint8_t *data;
	ssize_t n;

	if (left == 0 && !stream_ended(s) && may_wait)
		return nonblock ? -EAGAIN : req_wait(req, stream_news(s));
	if (size > left)
		size = (size_t)left;
	data = xmalloc(size);
	n = stream_cursor_read(s, which, cursor, data, size, off);
	if (n >= 0)
		req_reply_buf(req, data, (size_t)n);
	free(data);
	return n < 0 ? (int)n : 0;
}

static int stream_node_read(struct req *req, struct handle *h, size_t size, off_t off)
{
	enum stream_which which = which_of(h->node);

	if (!h->priv) {		/* there was no job: nothing has been written */
		req_reply_buf(req, NULL, 0);
		return 0;
	}
	if (which != STREAM_LOG && h->growing && req_fills_cache(req))
		return -EINVAL;
	return stream_reply(req, job_stream(h->priv), which, &h->cursor, size, (uint64_t)off,
			    which != STREAM_LOG, h->nonblock);
}

/*
 * Readable whenever a read would not wait. Where this handle reads is not known to
 * poll, so: when there is anything it may not have seen. A reader that is
 * woken in vain gets EAGAIN or waits.
 */
static unsigned stream_poll(struct handle *h, struct wait_list **news)
{
	struct stream *s = h->priv ? job_stream(h->priv) : NULL;
	enum stream_which which = which_of(h->node);

	if (!s || which == STREAM_LOG || stream_ended(s))
		return POLLIN | POLLRDNORM;
	*news = stream_news(s);
	return stream_cursor_left(s, which, h->cursor, h->read_end) ? POLLIN | POLLRDNORM : 0;
}

const struct node_ops stream_ops = {
	.kind = "stream", .mode = S_IFREG | 0444,
	.stat = stream_stat, .reach = stream_reach, .apart = true,
	.open = job_view_open, .read = stream_node_read,
	.release = job_view_release, .poll = stream_poll,
};

/* --- exit ----------------------------------------------------------------------------- */

static int exit_stat(struct node *node, struct stat *st)
{
	struct job *job = node_job(node);
	struct buf text = BUF_INIT;

	if (job && job_exit_print(job, &text) == 0)
		st->st_size = (off_t)buf_size(&text);
	buf_finish(&text);
	return 0;
}

static off_t exit_reach(struct node *node)
{
	struct job *job = node_job(node);

	return job && job_state(job) != JOB_DONE;
}

static int exit_read(struct req *req, struct handle *h, size_t size, off_t off)
{
	struct buf text = BUF_INIT;
	size_t len;

	if (h->growing && req_fills_cache(req))
		return -EINVAL;
	if (h->priv && job_exit_print(h->priv, &text) == -EAGAIN)
		return h->nonblock ? -EAGAIN : req_wait(req, job_news(h->priv));
	len = buf_size(&text);
	if ((size_t)off > len)
		off = (off_t)len;
	if (size > len - (size_t)off)
		size = len - (size_t)off;
	req_reply_buf(req, text.data ? text.data + off : NULL, size);
	buf_finish(&text);
	return 0;
}

static unsigned exit_poll(struct handle *h, struct wait_list **news)
{
	if (!h->priv || job_state(h->priv) == JOB_DONE)
		return POLLIN | POLLRDNORM;
	*news = job_news(h->priv);
	return 0;
}

const struct node_ops exit_ops = {
	.kind = "exit", .mode = S_IFREG | 0444,
	.stat = exit_stat, .reach = exit_reach, .apart = true,
	.open = job_view_open, .read = exit_read,
	.release = job_view_release, .poll = exit_poll,
};

/* --- stdin ------------------------------------------------------------------------------ */

static int stdin_stat(struct node *node, struct stat *st)
{
	struct job *job = node_job(node);

	st->st_size = job ? (off_t)job_stdin_size(job) : 0;
	return 0;
}

static int stdin_open(struct req *req, struct node *node, struct handle *h,
		      struct fuse_file_info *fi)
{
	if (node_job(node))
		job_stdin_hold(node_job(node));
	return job_view_open(req, node, h, fi);
}

static int no_input(const struct job *job, struct err *err)
{
	if (!job)
		return err_set(err, -EPIPE, "there is no job that could have input");
	return err_set(err, -EPIPE, "the input of job %s has ended%s", job_id(job),
		       job_stdin_size(job) ? "" : ": it is written, or held open, before the "
		       "command is: mkdir jobs/NAME, then stdin, then cmd");
}

/* All of it, in as many pieces as the guest takes: req->progress counts what is done. */
static int stdin_write(struct req *req, struct handle *h, const void *data, size_t size, off_t off)
{
	struct job *job = h->priv;
	struct err err;
	ssize_t n;

	/* One that ends while a pipe is on is as it should be; this is somebody's mistake. */
	if (!h->growing) {
		no_input(job, &err);
		return req_fail(h->node, "write", NULL, &err);
	}
	while (req->progress < size) {
		n = job_stdin_write(job, (const char *)data + req->progress, size - req->progress);
		if (n == -EAGAIN && h->nonblock && req->progress > 0)
			break;
		if (n == -EAGAIN)
			return h->nonblock ? -EAGAIN : req_wait(req, job_stdin_news(job));
		if (n < 0 && req->progress > 0)
			break;
		if (n < 0)
			return (int)n;
		req->progress += (size_t)n;
	}
	req_reply_write(req, req->progress);
	return 0;
}

static int stdin_store(struct node *node, const void *data, size_t len, struct err *err)
{
	struct job *job = node_job(node);
	int r = job ? job_stdin_put(job, data, len) : -EPIPE;

	if (r == -EPIPE)
		return no_input(job, err);
	return r < 0 ? err_sys(err, r, "cannot keep the input") : 0;
}

static void stdin_release(struct handle *h)
{
	if (h->priv)
		job_stdin_release(h->priv);
	job_view_release(h);
}

static unsigned stdin_poll(struct handle *h, struct wait_list **news)
{
	if (!h->priv || !job_stdin_would_wait(h->priv))
		return POLLOUT | POLLWRNORM;
	*news = job_stdin_news(h->priv);
	return 0;
}

const struct node_ops stdin_ops = {
	.kind = "stdin", .mode = S_IFREG | 0200,
	.stat = stdin_stat, .open = stdin_open, .write = stdin_write, .release = stdin_release,
	.poll = stdin_poll, .store = stdin_store,
};
