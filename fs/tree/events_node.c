/* .sbxfs/events: the stream of what happens in the fleet, read like a job's stdout. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "buf.h"
#include "events.h"
#include "fleet.h"
#include "tree_internal.h"

static struct events *events_of(const struct node *node)
{
	return fleet_events(node->tree->fleet);
}

static int events_node_stat(struct node *node, struct stat *st)
{
	st->st_size = (off_t)events_size(events_of(node));
	return 0;
}

static int events_node_open(struct req *req, struct node *node, struct handle *h,
			    struct fuse_file_info *fi)
{
	h->priv = xcalloc(1, sizeof(struct events_reader));
	fi->direct_io = 1;
	req_reply_open(req, h);
	return 0;
}

/* More is always to come. */
static off_t events_node_reach(struct node *node)
{
	return (off_t)events_size(events_of(node)) + 1;
}

static int events_node_read(struct req *req, struct handle *h, size_t size, off_t off)
{
	struct events *e = events_of(h->node);
	uint8_t *data = xmalloc(size);
	size_t n = events_read(e, h->priv, data, size, (uint64_t)off);
	int r = 0;

	if (req_fills_cache(req))
		r = -EINVAL;
	else if (n > 0 || size == 0)
		req_reply_buf(req, data, n);
	else
		r = h->nonblock ? -EAGAIN : req_wait(req, events_news(e));
	free(data);
	return r;
}

/* As stream_node.c's: readable when there is what this handle may not have seen. */
static unsigned events_node_poll(struct handle *h, struct wait_list **news)
{
	struct events *e = events_of(h->node);

	*news = events_news(e);
	return events_size(e) > h->read_end ? POLLIN | POLLRDNORM : 0;
}

static void events_node_release(struct handle *h)
{
	if (h->priv)
		events_reader_finish(h->priv);
	free(h->priv);
}

const struct node_ops events_ops = {
	.kind = "events", .mode = S_IFREG | 0444,
	.stat = events_node_stat, .reach = events_node_reach, .apart = true,
	.open = events_node_open, .read = events_node_read,
	.release = events_node_release, .poll = events_node_poll,
};
