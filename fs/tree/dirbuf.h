/* A listing as it was at opendir: readdir pages through it, changes do not disturb it. */
#ifndef SBXFS_TREE_DIRBUF_H
#define SBXFS_TREE_DIRBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

struct dirbuf;
struct node;
struct req;

struct dirbuf *dirbuf_create(void);
void dirbuf_destroy(struct dirbuf *);		/* takes NULL */
/* Add an entry; mode's type bits become d_type. The name is copied. */
void dirbuf_add(struct dirbuf *, const char *name, mode_t mode);
size_t dirbuf_count(const struct dirbuf *);
/*
 * Reply to a readdir (or readdirplus) of dir at off. With plus, each entry is looked
 * up by dir->ops->lookup_now; kinds whose lookups need the network reply themselves.
 */
void dirbuf_reply(struct dirbuf *, struct req *, struct node *dir, size_t size, off_t off,
		  bool plus);

#endif
