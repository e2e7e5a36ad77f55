/* The README files of the tree. */
#ifndef SBXFS_TREE_README_H
#define SBXFS_TREE_README_H

extern const char readme_mount[];	/* .sbxfs/README */
extern const char readme_vm[];		/* NAME/README */

#endif
