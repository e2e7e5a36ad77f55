/*
 * An open file of the disk: reads and writes of any size, split and pipelined
 * within the server's limits; readahead; errors kept until they are told.
 *
 * The contract of the calls is disk.h's. A file outlives a lost link: it is
 * opened again when it is next used.
 */
#ifndef SBXFS_DISK_FILE_H
#define SBXFS_DISK_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct file;
struct file_call;
struct wait_list;

/* error: 0 or a negative errno; data, borrowed, of a read (0 bytes: end of file). */
typedef void file_cb(void *user, int error, const void *data, size_t len);

/*
 * 0: usable. -EAGAIN: being opened again, news on file_news. -ESTALE: what is
 * there now is another file.
 */
int file_ready(struct file *);
struct wait_list *file_news(struct file *);
/* May the kernel keep the pages that it has of this file? As of the open. */
bool file_keep_cache(const struct file *);
/* Must the kernel read past its cache, whose idea of the size is known to be wrong? */
bool file_bypass_cache(const struct file *);

/* Fewer bytes than asked for are the end of the file. */
int file_read(struct file *, off_t off, size_t size, file_cb *, void *user, struct file_call **);
/* The answer is the server's verdict on all of it. data is copied. */
int file_write(struct file *, off_t off, const void *data, size_t size, file_cb *, void *user,
	       struct file_call **);
/*
 * Copy within the guest; the length that was copied is told, as len of the answer: less
 * than asked for at the end of the source, or because it is much. -EOPNOTSUPP (refused or
 * answered): read and write instead.
 */
int file_copy(struct file *from, off_t off, struct file *to, off_t to_off, size_t len, file_cb *,
	      void *user, struct file_call **);
/* Waits for the writes that are under way; tells (once) the error of an earlier one. */
int file_flush(struct file *, file_cb *, void *user, struct file_call **);
int file_fsync(struct file *, file_cb *, void *user, struct file_call **);
void file_cancel(struct file_call *);
/* No call may be under way. The server is told behind it. Takes NULL. */
void file_close(struct file *);

#endif
