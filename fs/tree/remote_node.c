/*
 * root/: the names on a VM's disk as nodes. An op turns a node into what fs/disk knows
 * it by (an entry), makes one call, and replies when that is answered: remote_look.c,
 * remote_change.c and remote_file.c, on what is in remote_call.c.
 *
 * `root` itself is answered from memory, whatever the network does.
 */
#include "remote_node.h"

#include "remote_internal.h"

static const struct node_ops dir_ops, file_ops, link_ops, fifo_ops, socket_ops, char_ops, block_ops;

bool remote_is_root(const struct node *node)
{
	return !node->priv;
}

struct entry *remote_entry(const struct node *node, struct disk *disk)
{
	return remote_is_root(node) ? disk_root(disk) : node->priv;
}

static const struct node_ops *ops_of(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return &dir_ops;
	case S_IFLNK:
		return &link_ops;
	case S_IFIFO:
		return &fifo_ops;
	case S_IFSOCK:
		return &socket_ops;
	case S_IFCHR:
		return &char_ops;
	case S_IFBLK:
		return &block_ops;
	default:
		return &file_ops;
	}
}

bool remote_is(const struct node *node)
{
	return node->ops == ops_of(node->ops->mode);
}

struct node *remote_child(struct node *dir, const char *name, struct entry *e, mode_t mode)
{
	struct node *node = node_find(dir, name);

	/* The disk knows it as another file than we did. */
	if (node && node->priv != e)
		node_detach(node);
	node = node_get(dir, name, ops_of(mode), dir->vm, NULL);
	if (!node->priv)
		node->priv = entry_ref(e);
	return node;
}

static void remote_free(struct node *node)
{
	entry_unref(node->priv);
}

double remote_stat(const struct node *node, struct stat *st)
{
	st->st_ino = entry_number(node->priv, node->ino);
	return entry_tell(node->priv, st);
}

double remote_lend(const struct node *node, double held)
{
	struct disk *disk;

	return vm_disk(node->vm, &disk) == 0 ? disk_lend(disk, held) : 0;
}

/* --- the kinds: one a file type, for the type of a node never changes ------------------------ */

static const struct node_ops dir_ops = {
	.kind = "remote folder",
	.mode = S_IFDIR | 0755,
	.lent = true,		/* root itself; of those in it remote_lend decides */
	.getattr = remote_getattr,
	.setattr = remote_setattr,
	.lookup = remote_lookup,
	.mkdir = remote_mkdir,
	.rmdir = remote_rmdir,
	.unlink = remote_unlink,
	.rename = remote_rename,
	.create = remote_create,
	.mknod = remote_mknod,
	.symlink = remote_symlink,
	.link = remote_link,
	.statfs = remote_statfs,
	.opendir = remote_opendir,
	.readdir = remote_readdir,
	.release = remote_releasedir,
	.free = remote_free,
};

static const struct node_ops file_ops = {
	.kind = "remote file",
	.mode = S_IFREG | 0644,
	.getattr = remote_getattr,
	.setattr = remote_setattr,
	.statfs = remote_statfs,
	.open = remote_open,
	.read = remote_read,
	.write = remote_write,
	.copy_range = remote_copy,
	.flush = remote_flush,
	.fsync = remote_fsync,
	.release = remote_release,
	.free = remote_free,
};

static const struct node_ops link_ops = {
	.kind = "remote link",
	.mode = S_IFLNK | 0777,
	.getattr = remote_getattr,
	.setattr = remote_setattr,
	.readlink = remote_readlink,
	.statfs = remote_statfs,
	.free = remote_free,
};

/* Shown as they are; the host's kernel opens none of them (nodev), and pipes are its own. */
#define SPECIAL_OPS(name, type)						\
	static const struct node_ops name = {				\
		.kind = "remote special file",				\
		.mode = type | 0600,					\
		.getattr = remote_getattr,				\
		.setattr = remote_setattr,				\
		.statfs = remote_statfs,				\
		.free = remote_free,					\
	}
SPECIAL_OPS(fifo_ops, S_IFIFO);
SPECIAL_OPS(socket_ops, S_IFSOCK);
SPECIAL_OPS(char_ops, S_IFCHR);
SPECIAL_OPS(block_ops, S_IFBLK);

struct node *remote_root_get(struct node *vm_node)
{
	return node_get(vm_node, "root", &dir_ops, vm_node->vm, NULL);
}
