/*
 * What fuse_ops.c shares with the files of its ops: how a call of the kernel becomes a req, and
 * the ops themselves, with libfuse's arguments (struct fuse_lowlevel_ops). Nobody else includes it.
 */
#ifndef SBXFS_TREE_FUSE_OPS_H
#define SBXFS_TREE_FUSE_OPS_H

#include "req.h"

/*
 * A req about the node of that number, of which perform is what op does, the first time and
 * whenever there is news for it (req_run). NULL: -ESTALE has been replied. fi may be NULL.
 */
struct req *op_begin(fuse_req_t, enum req_op, void (*perform)(struct req *), fuse_ino_t,
		     struct fuse_file_info *fi);
/* The same about a name in that folder. */
struct req *op_begin_name(fuse_req_t, enum req_op, void (*perform)(struct req *), fuse_ino_t parent,
			  const char *name);
/* r < 0 is the reply; else there was one, or the req waits. */
void op_finish(struct req *, int r);
/* It is about a sandbox that is gone: -ESTALE. */
bool op_stale(const struct node *);
/* req_fail with a sentence of our own; returns code. */
int op_refuse(struct node *, const char *operation, const char *name, int code,
	      const char *sentence);

/* fuse_look.c */
void op_lookup(fuse_req_t fuse, fuse_ino_t parent, const char *name);
void op_forget(fuse_req_t fuse, fuse_ino_t ino, uint64_t n);
void op_forget_multi(fuse_req_t fuse, size_t count, struct fuse_forget_data *forgets);
void op_getattr(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *fi);
void op_setattr(fuse_req_t fuse, fuse_ino_t ino, struct stat *attr, int to_set,
		struct fuse_file_info *fi);
void op_readlink(fuse_req_t fuse, fuse_ino_t ino);
void op_statfs(fuse_req_t fuse, fuse_ino_t ino);

/* fuse_change.c */
void op_mkdir(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode);
void op_rmdir(fuse_req_t fuse, fuse_ino_t parent, const char *name);
void op_unlink(fuse_req_t fuse, fuse_ino_t parent, const char *name);
void op_rename(fuse_req_t fuse, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
	       const char *newname, unsigned flags);
void op_create(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode,
	       struct fuse_file_info *fi);
void op_mknod(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void op_symlink(fuse_req_t fuse, const char *text, fuse_ino_t parent, const char *name);
void op_link(fuse_req_t fuse, fuse_ino_t ino, fuse_ino_t newparent, const char *newname);

/* fuse_file.c */
void op_open(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *fi);
void op_read(fuse_req_t fuse, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_write(fuse_req_t fuse, fuse_ino_t ino, const char *data, size_t size, off_t off,
	      struct fuse_file_info *fi);
void op_flush(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *fi);
void op_fsync(fuse_req_t fuse, fuse_ino_t ino, int data_only, struct fuse_file_info *fi);
void op_release(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *fi);
void op_fallocate(fuse_req_t fuse, fuse_ino_t ino, int mode, off_t off, off_t len,
		  struct fuse_file_info *fi);
void op_copy_file_range(fuse_req_t fuse, fuse_ino_t ino, off_t off, struct fuse_file_info *fi,
			fuse_ino_t out_ino, off_t out_off, struct fuse_file_info *out_fi,
			size_t size, int flags);
void op_poll(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *fi,
	     struct fuse_pollhandle *ph);

/* fuse_list.c */
void op_opendir(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *fi);
void op_readdir(fuse_req_t fuse, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_readdirplus(fuse_req_t fuse, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi);

#endif
