/*
 * Requests: replied exactly once, waiting, interrupted.
 *
 * A req is made by fuse_ops.c for each FUSE request and freed by its reply.
 * libfuse calls an interrupt function with its own lock on the request held, and
 * perhaps from inside fuse_req_interrupt_func: so that function only notes it,
 * and the -EINTR is sent from the loop.
 */
#include "req.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "dirbuf.h"
#include "fleet.h"
#include "log.h"
#include "metrics_node.h"
#include "node.h"
#include "req_internal.h"
#include "tree_internal.h"

void req_run(struct req *req)
{
	struct fleet *fleet = req->tree->fleet;

	fleet_caller(fleet, req->uid, req->pid);
	req->perform(req);
	fleet_caller(fleet, (uid_t)-1, 0);
}

static void wake(struct waiter *w)
{
	struct req *req = container_of(w, struct req, waiter);

	loop_timer_cancel(&req->timer);
	req_run(req);
}

struct req *req_create(struct tree *tree, fuse_req_t fuse, struct node *node, struct handle *h)
{
	struct req *req = xcalloc(1, sizeof(*req));
	const struct fuse_ctx *ctx = fuse_req_ctx(fuse);

	req->tree = tree;
	req->fuse = fuse;
	req->node = node;
	req->handle = h;
	req->uid = ctx->uid;
	req->gid = ctx->gid;
	req->pid = ctx->pid;
	if (node)
		node_ref(node);
	waiter_init(&req->waiter, wake);
	req->arrived = loop_now(tree->loop);
	list_add_tail(&tree->reqs, &req->all);
	return req;
}

bool req_fills_cache(const struct req *req)
{
	/* the kernel names the owner of the descriptor in direct reads only */
	return req->op == OP_READ && req->fi.lock_owner == 0;
}

/* Free everything but what libfuse has; returns that, to be replied to. */
static fuse_req_t req_take(struct req *req)
{
	fuse_req_t fuse = req->fuse;
	struct tree *tree = req->tree;
	bool was_read = req->op == OP_READ;

	assert(!req->cancel);
	request_ends(req, req->error);
	if (req->opening && req->opened)
		handle_close(req->handle);
	else if (req->opening)
		handle_abandon(req->handle);
	list_del(&req->all);
	wait_cancel(&req->waiter);
	loop_timer_cancel(&req->timer);
	loop_later_cancel(&req->later);
	loop_later_cancel(&req->rerun);
	node_unref(req->node);
	node_unref(req->node2);
	free(req->name);
	free(req->name2);
	if (req->data_owned)
		free(req->data);
	free(req);
	if (was_read)
		wait_wake(&tree->pages_news);
	return fuse;
}

/* --- replies ------------------------------------------------------------------ */

/*
 * A reply fails with ENOENT when its request has been aborted. What the reply
 * handed over (a lookup, an open handle) is then not held by the kernel.
 */
static void check(int r, const char *what)
{
	if (r < 0 && r != -ENOENT)
		log_warn("fuse: reply to %s: %s", what, strerror(-r));
}

void req_reply_err(struct req *req, int error)
{
	fuse_req_t fuse;

	req->error = error;
	fuse = req_take(req);
	check(fuse_reply_err(fuse, -error), "a request");
}

static void fill_entry(struct fuse_entry_param *e, const struct req *req, struct node *node,
		       const struct stat *st, double timeout)
{
	memset(e, 0, sizeof(*e));
	e->entry_timeout = req->name_timeout;
	e->ino = node->ino;
	e->attr = *st;
	e->attr_timeout = timeout;
}

void req_reply_entry(struct req *req, struct node *node, const struct stat *st, double timeout)
{
	struct fuse_entry_param e;
	fuse_req_t fuse;
	int r;

	fill_entry(&e, req, node, st, timeout);
	node_looked_up(node);
	node_ref(node);
	fuse = req_take(req);
	r = fuse_reply_entry(fuse, &e);
	check(r, "lookup");
	if (r < 0)
		node_forget(node, 1);
	node_unref(node);
}

void req_reply_missing(struct req *req)
{
	struct fuse_entry_param e = { .entry_timeout = req->name_timeout };

	if (e.entry_timeout > 0)
		check(fuse_reply_entry(req_take(req), &e), "lookup");
	else
		req_reply_err(req, -ENOENT);
}

void req_reply_attr(struct req *req, const struct stat *st, double timeout)
{
	check(fuse_reply_attr(req_take(req), st, timeout), "getattr");
}

void req_reply_create(struct req *req, struct node *node, const struct stat *st, double timeout,
		      struct handle *h)
{
	struct fuse_entry_param e;
	struct fuse_file_info fi = req->fi;
	fuse_req_t fuse;
	int r;

	fill_entry(&e, req, node, st, timeout);
	fi.fh = (uint64_t)(uintptr_t)h;
	node_looked_up(node);
	node_ref(node);
	fuse = req_take(req);
	r = fuse_reply_create(fuse, &e, &fi);
	check(r, "create");
	if (r < 0) {
		handle_close(h);
		node_forget(node, 1);
	}
	node_unref(node);
}

void req_reply_open(struct req *req, struct handle *h)
{
	struct fuse_file_info fi = req->fi;
	int r;

	fi.fh = (uint64_t)(uintptr_t)h;
	req->opening = false;
	r = fuse_reply_open(req_take(req), &fi);
	check(r, "open");
	if (r < 0)	/* the opener was killed: no release will come */
		handle_close(h);
}

void req_reply_buf(struct req *req, const void *data, size_t len)
{
	/* data may belong to the req: reply before it is freed */
	if (req->handle)
		req->handle->read_end = (uint64_t)req->off + len;
	check(fuse_reply_buf(req->fuse, data, len), "read");
	req_take(req);
}

void req_reply_write(struct req *req, size_t len)
{
	check(fuse_reply_write(req_take(req), len), "write");
}

void req_reply_readlink(struct req *req, const char *text)
{
	fuse_req_t fuse = req->fuse;

	check(fuse_reply_readlink(fuse, text), "readlink");
	req_take(req);
}

void req_reply_statfs(struct req *req, const struct statvfs *st)
{
	check(fuse_reply_statfs(req_take(req), st), "statfs");
}

void req_reply_poll(struct req *req, unsigned revents)
{
	check(fuse_reply_poll(req_take(req), revents), "poll");
}

void req_reply_lseek(struct req *req, off_t off)
{
	check(fuse_reply_lseek(req_take(req), off), "lseek");
}

/* --- waiting -------------------------------------------------------------------- */

/* Answer that it was interrupted; of a write that was, what is done cannot be undone. */
static void give_up(struct req *req)
{
	if (req->progress > 0)
		req_reply_write(req, req->progress);
	else
		req_reply_err(req, -EINTR);
}

static void grace_over(struct loop_timer *t)
{
	struct req *req = container_of(t, struct req, timer);
	void (*cancel)(struct req *) = req->cancel;

	req->cancel = NULL;
	cancel(req);
	req_reply_err(req, -EINTR);
}

static void interrupted(struct loop_later *l)
{
	struct req *req = container_of(l, struct req, later);

	if (req->cancel)
		loop_timer_set(req->tree->loop, &req->timer, REQ_GRACE_MS, grace_over);
	else
		give_up(req);
}

static void on_interrupt(fuse_req_t fuse, void *data)
{
	struct req *req = data;

	if (req->interrupted)
		return;
	req->interrupted = true;
	loop_later(req->tree->loop, &req->later, interrupted);
}

static void listen_for_interrupt(struct req *req)
{
	if (req->listening)
		return;
	req->listening = true;
	if (req->data && !req->data_owned) {
		/* it points into the buffer of the next request */
		uint8_t *copy = xmalloc(req->size);

		memcpy(copy, req->data, req->size);
		req->data = copy;
		req->data_owned = true;
	}
	fuse_req_interrupt_func(req->fuse, on_interrupt, req);
	hold_watch(req->tree);
}

int req_wait(struct req *req, struct wait_list *list)
{
	wait_add(list, &req->waiter);
	req->waited = true;
	listen_for_interrupt(req);
	/* interrupted while a call held it, which has been answered since */
	if (req->interrupted)
		loop_later(req->tree->loop, &req->later, interrupted);
	return 0;
}

static void rerun(struct loop_later *l)
{
	struct req *req = container_of(l, struct req, rerun);

	req_run(req);
}

void req_run_later(struct req *req)
{
	loop_later(req->tree->loop, &req->rerun, rerun);
	listen_for_interrupt(req);
}

static void overdue(struct loop_timer *t)
{
	req_reply_err(container_of(t, struct req, timer), -ETIMEDOUT);
}

int req_wait_until(struct req *req, struct wait_list *list, int64_t deadline_ms)
{
	int64_t now = loop_now(req->tree->loop);

	if (!req->started)
		req->started = now;
	loop_timer_set(req->tree->loop, &req->timer, req->started + deadline_ms - now, overdue);
	return req_wait(req, list);
}

int req_hold(struct req *req, void (*cancel)(struct req *))
{
	assert(!req->cancel);
	req->cancel = cancel;
	listen_for_interrupt(req);
	/* interrupted while it waited before, and run again since */
	if (req->interrupted && !loop_timer_is_set(&req->timer))
		loop_later(req->tree->loop, &req->later, interrupted);
	return 0;
}

void req_release(struct req *req)
{
	req->cancel = NULL;
	loop_timer_cancel(&req->timer);
}

void req_overdue(struct req *req)
{
	void (*cancel)(struct req *) = req->cancel;
	int error = cancel || req->started ? -ETIMEDOUT : -EINTR;

	req->cancel = NULL;
	if (cancel)
		cancel(req);
	if (req->progress > 0)
		req_reply_write(req, req->progress);
	else
		req_reply_err(req, error);
}

void req_abandon(struct req *req)
{
	void (*cancel)(struct req *) = req->cancel;

	req->cancel = NULL;
	if (cancel)
		cancel(req);
	give_up(req);
}

void reqs_end(struct tree *tree)
{
	while (!list_empty(&tree->reqs))
		req_abandon(list_entry(tree->reqs.next, struct req, all));
}
