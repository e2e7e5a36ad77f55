/* root/ and all below it: a VM's disk, over fs/disk. */
#ifndef SBXFS_TREE_REMOTE_NODE_H
#define SBXFS_TREE_REMOTE_NODE_H

struct node;

/* The node `root` below a VM's folder, with a reference more. Needs no network. */
struct node *remote_root_get(struct node *vm_node);

#endif
