/*
 * The requests of an SFTP client, one function each.
 *
 * Every one is the same three steps: a call, its packet in s->out, off it goes. (A macro, for
 * the packet is what differs.)
 */
#include <errno.h>
#include <stdlib.h>

#include "sftp_internal.h"

#define START(type)						\
	struct sftp_call *c;					\
								\
	if (s->state != SFTP_READY)				\
		return -EHOSTDOWN;				\
	c = sftp_call_new(s, type, done, user, out)

#define SEND() return sftp_call_send(s, c)

int sftp_open(struct sftp *s, const char *path, uint32_t flags, const struct sftp_attrs *attrs,
	      sftp_cb *done, void *user, struct sftp_call **out)
{
	START(SFTP_OPEN);
	sftp_put_open(&s->out, c->id, path, flags, attrs);
	SEND();
}

void sftp_close(struct sftp *s, struct sftp_handle *h)
{
	struct sftp_call *c;

	if (s->state == SFTP_READY) {
		c = sftp_call_new(s, SFTP_CLOSE, NULL, NULL, NULL);
		sftp_put_handle(&s->out, SFTP_CLOSE, c->id, h);
		sftp_call_send(s, c);
	}
	free(h);
}

int sftp_read(struct sftp *s, const struct sftp_handle *h, uint64_t off, uint32_t len,
	      sftp_cb *done, void *user, struct sftp_call **out)
{
	START(SFTP_READ);
	c->weight = len;
	sftp_put_read(&s->out, c->id, h, off, len);
	SEND();
}

static int write_call(struct sftp *s, bool apart, const struct sftp_handle *h, uint64_t off,
		      const void *data, uint32_t len, sftp_cb *done, void *user,
		      struct sftp_call **out)
{
	if (len > s->max_write)
		return -EMSGSIZE;
	START(SFTP_WRITE);
	c->weight = len;
	c->apart = apart;
	s->apart += apart;
	sftp_put_write(&s->out, c->id, h, off, data, len);
	SEND();
}

int sftp_write(struct sftp *s, const struct sftp_handle *h, uint64_t off, const void *data,
	       uint32_t len, sftp_cb *done, void *user, struct sftp_call **out)
{
	return write_call(s, false, h, off, data, len, done, user, out);
}

int sftp_write_apart(struct sftp *s, const struct sftp_handle *h, uint64_t off, const void *data,
		     uint32_t len, sftp_cb *done, void *user, struct sftp_call **out)
{
	return write_call(s, true, h, off, data, len, done, user, out);
}

static int path_call(struct sftp *s, enum sftp_type type, const char *path, sftp_cb *done,
		     void *user, struct sftp_call **out)
{
	START(type);
	sftp_put_path(&s->out, type, c->id, path);
	SEND();
}

static int handle_call(struct sftp *s, enum sftp_type type, const struct sftp_handle *h,
		       sftp_cb *done, void *user, struct sftp_call **out)
{
	START(type);
	sftp_put_handle(&s->out, type, c->id, h);
	SEND();
}

static int path_attrs_call(struct sftp *s, enum sftp_type type, const char *path,
			   const struct sftp_attrs *attrs, sftp_cb *done, void *user,
			   struct sftp_call **out)
{
	START(type);
	sftp_put_path_attrs(&s->out, type, c->id, path, attrs);
	SEND();
}

static int paths_call(struct sftp *s, enum sftp_type type, const char *one, const char *two,
		      sftp_cb *done, void *user, struct sftp_call **out)
{
	START(type);
	sftp_put_paths(&s->out, type, c->id, one, two);
	SEND();
}

static int ext_paths_call(struct sftp *s, enum sftp_ext ext, const char *one, const char *two,
			  sftp_cb *done, void *user, struct sftp_call **out)
{
	START(SFTP_EXTENDED);
	sftp_put_ext_paths(&s->out, ext, c->id, one, two);
	SEND();
}

int sftp_opendir(struct sftp *s, const char *path, sftp_cb *done, void *user,
		 struct sftp_call **out)
{
	return path_call(s, SFTP_OPENDIR, path, done, user, out);
}

int sftp_readdir(struct sftp *s, const struct sftp_handle *h, sftp_cb *done, void *user,
		 struct sftp_call **out)
{
	return handle_call(s, SFTP_READDIR, h, done, user, out);
}

int sftp_fstat(struct sftp *s, const struct sftp_handle *h, sftp_cb *done, void *user,
	       struct sftp_call **out)
{
	return handle_call(s, SFTP_FSTAT, h, done, user, out);
}

int sftp_fsetstat(struct sftp *s, const struct sftp_handle *h, const struct sftp_attrs *attrs,
		  sftp_cb *done, void *user, struct sftp_call **out)
{
	START(SFTP_FSETSTAT);
	sftp_put_fsetstat(&s->out, c->id, h, attrs);
	SEND();
}

int sftp_fsync(struct sftp *s, const struct sftp_handle *h, sftp_cb *done, void *user,
	       struct sftp_call **out)
{
	START(SFTP_EXTENDED);
	c->slow = true;
	sftp_put_ext_handle(&s->out, SFTP_EXT_FSYNC, c->id, h);
	SEND();
}

int sftp_copy(struct sftp *s, const struct sftp_handle *from, uint64_t off, uint64_t len,
	      const struct sftp_handle *to, uint64_t to_off, sftp_cb *done, void *user,
	      struct sftp_call **out)
{
	START(SFTP_EXTENDED);
	sftp_put_ext_copy(&s->out, c->id, from, off, len, to, to_off);
	SEND();
}

int sftp_lstat(struct sftp *s, const char *path, sftp_cb *done, void *user,
	       struct sftp_call **out)
{
	return path_call(s, SFTP_LSTAT, path, done, user, out);
}

int sftp_stat(struct sftp *s, const char *path, sftp_cb *done, void *user,
	      struct sftp_call **out)
{
	return path_call(s, SFTP_STAT, path, done, user, out);
}

int sftp_setstat(struct sftp *s, const char *path, const struct sftp_attrs *attrs, sftp_cb *done,
		 void *user, struct sftp_call **out)
{
	return path_attrs_call(s, SFTP_SETSTAT, path, attrs, done, user, out);
}

int sftp_lsetstat(struct sftp *s, const char *path, const struct sftp_attrs *attrs, sftp_cb *done,
		  void *user, struct sftp_call **out)
{
	START(SFTP_EXTENDED);
	sftp_put_ext_path_attrs(&s->out, SFTP_EXT_LSETSTAT, c->id, path, attrs);
	SEND();
}

int sftp_remove(struct sftp *s, const char *path, sftp_cb *done, void *user,
		struct sftp_call **out)
{
	return path_call(s, SFTP_REMOVE, path, done, user, out);
}

int sftp_mkdir(struct sftp *s, const char *path, const struct sftp_attrs *attrs, sftp_cb *done,
	       void *user, struct sftp_call **out)
{
	return path_attrs_call(s, SFTP_MKDIR, path, attrs, done, user, out);
}

int sftp_rmdir(struct sftp *s, const char *path, sftp_cb *done, void *user,
	       struct sftp_call **out)
{
	return path_call(s, SFTP_RMDIR, path, done, user, out);
}

int sftp_rename(struct sftp *s, const char *from, const char *to, bool replace, sftp_cb *done,
		void *user, struct sftp_call **out)
{
	if (replace)
		return ext_paths_call(s, SFTP_EXT_POSIX_RENAME, from, to, done, user, out);
	return paths_call(s, SFTP_RENAME, from, to, done, user, out);
}

int sftp_hardlink(struct sftp *s, const char *from, const char *to, sftp_cb *done, void *user,
		  struct sftp_call **out)
{
	return ext_paths_call(s, SFTP_EXT_HARDLINK, from, to, done, user, out);
}

int sftp_symlink(struct sftp *s, const char *text, const char *path, sftp_cb *done, void *user,
		 struct sftp_call **out)
{
	return paths_call(s, SFTP_SYMLINK, text, path, done, user, out);
}

int sftp_readlink(struct sftp *s, const char *path, sftp_cb *done, void *user,
		  struct sftp_call **out)
{
	return path_call(s, SFTP_READLINK, path, done, user, out);
}

int sftp_realpath(struct sftp *s, const char *path, sftp_cb *done, void *user,
		  struct sftp_call **out)
{
	return path_call(s, SFTP_REALPATH, path, done, user, out);
}

int sftp_statvfs(struct sftp *s, const char *path, sftp_cb *done, void *user,
		 struct sftp_call **out)
{
	START(SFTP_EXTENDED);
	c->expect = SFTP_EXTENDED_REPLY;
	sftp_put_ext_path(&s->out, SFTP_EXT_STATVFS, c->id, path);
	SEND();
}
