/*
 * Pages that the kernel has locked: those that a READ of root/ is to fill. Whoever waits for such a
 * page to read it can be killed; but where the kernel throws away what it keeps of the file it
 * waits for the page too, and no signal is heard there. A server that does not answer the READ
 * would hold him up until it is given up, for a minute (sftp.h). So
 *
 * - a READ whose asker has ended is answered: who else needs the page asks by himself. The kernel
 *   tells nobody when the asker of a read that fills its pages is killed, so it is looked at once a
 *   second, where a READ takes that long;
 * - what has the kernel throw something away, an open and the news of another size or time, is told
 *   behind the READs that came before: so he waits here, for as long, and can be interrupted.
 */
#include "process.h"
#include "remote_internal.h"

#define PAGES_MS 1000

static bool is_one(const struct req *req)
{
	return req_fills_cache(req) && remote_is(req->node);
}

static struct req *first_gone(struct tree *tree)
{
	list_for_each(req, &tree->reqs, struct req, all)
		if (req->asker_gone)
			return req;
	return NULL;
}

static void look(struct loop_timer *t)
{
	struct tree *tree = container_of(t, struct tree, pages_timer);
	int64_t late = loop_now(tree->loop) - PAGES_MS;
	struct req *gone;
	bool more = false;

	list_for_each(req, &tree->reqs, struct req, all) {
		if (!is_one(req))
			continue;
		more = true;
		req->asker_gone = req->arrived <= late && process_is_over(req->pid);
	}
	/* The answer to one may lead to those of others. */
	while ((gone = first_gone(tree)))
		req_abandon(gone);
	if (more)
		pages_watch(tree);
}

void pages_watch(struct tree *tree)
{
	if (!loop_timer_is_set(&tree->pages_timer))
		loop_timer_set(tree->loop, &tree->pages_timer, PAGES_MS, look);
}

bool pages_locked(const struct req *waiting, const struct node *node)
{
	int64_t before = waiting->started ? waiting->started : loop_now(node->tree->loop);

	list_for_each(req, &node->tree->reqs, struct req, all)
		if (req->node == node && req->arrived <= before && is_one(req))
			return true;
	return false;
}

bool pages_busy(const struct req *req, const struct node *node, const struct entry *e,
		const struct stat *st)
{
	return node && node->priv == e && S_ISREG(node->ops->mode) &&
	       entry_told_otherwise(e, st) && pages_locked(req, node);
}

bool pages_wait(struct req *req, const struct node *node, const struct entry *e,
		const struct stat *st)
{
	if (!pages_busy(req, node, e, st))
		return false;
	req_wait_until(req, &req->tree->pages_news, REMOTE_WAIT_MS);
	return true;
}
