/* cmd, for those who replace it as a whole. */
#ifndef SBXFS_TREE_CMD_NODE_H
#define SBXFS_TREE_CMD_NODE_H

#include <stddef.h>

struct buf;
struct err;
struct node;

/* Run these bytes as if they had been written and closed. */
int cmd_store(struct node *, const void *data, size_t len, struct err *);
/* The text that a reader would get, appended. */
int cmd_print(struct node *, struct buf *out);

#endif
