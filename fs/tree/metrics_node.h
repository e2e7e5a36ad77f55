/* .sbxfs/metrics, and the clock on every request. */
#ifndef SBXFS_TREE_METRICS_NODE_H
#define SBXFS_TREE_METRICS_NODE_H

struct buf;
struct req;
struct tree;

/* The text of .sbxfs/metrics, appended: Prometheus' text format. */
void metrics_node_print(struct tree *, struct buf *out);
/* A request begins; it is answered with this negative errno, or 0. */
void request_begins(struct req *);
void request_ends(struct req *, int error);

#endif
