/*
 * Small text files, described by a table entry: one value a file, whole at each
 * read and write, a newline at the end that writers may leave out.
 */
#ifndef SBXFS_TREE_TEXT_H
#define SBXFS_TREE_TEXT_H

#include "node.h"

struct err;
struct buf;

struct text_file {
	const char *name;
	const struct node_ops *ops;	/* text_ro_ops or text_rw_ops */
	/* The whole content as it is now, appended. */
	void (*print)(struct node *, struct buf *out);
	/*
	 * A whole new value without its last newline. 0, or < 0 with a sentence: nothing changed.
	 */
	int (*store)(struct node *, const char *value, struct err *);
	enum {
		TEXT_VALUE,	/* a value may come in several writes, one behind the other */
		TEXT_LINES,		/* likewise; and >> adds a line to what is there */
		TEXT_VERBS,		/* each write stands for itself */
	} style;
};

extern const struct node_ops text_ro_ops, text_rw_ops;

/* The node of that file below dir, with a new reference. */
struct node *text_node_get(struct node *dir, const struct text_file *);
/* Likewise, under that name: its print and store go by node->name. */
struct node *text_node_named(struct node *dir, const char *name, const struct text_file *);

#endif
