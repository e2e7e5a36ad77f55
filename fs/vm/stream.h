/*
 * What a job wrote: two streams spooled in files of the host, and the order in
 * which they came, with readers that wait for more.
 *
 * Files in the job's folder, each a spool: `stdout`, `stderr`: the bytes; `order`: records of
 * two big-endian uint64, the end of a run of bytes in the merged log and its end in
 * its stream with the stream's number in the top bit. All are made at the first byte.
 *
 * Of a stream that grows beyond its cap the middle is dropped, also while it is read.
 * Offsets here count all bytes that came.
 */
#ifndef SBXFS_VM_STREAM_H
#define SBXFS_VM_STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "wait.h"

enum stream_which { STREAM_OUT, STREAM_ERR, STREAM_LOG };

struct stream;

/*
 * Over the files of dir (borrowed for the call; they may exist already: a job of the past).
 * cap: bytes kept of each stream.
 */
struct stream *stream_open(const char *dir, bool ended, uint64_t cap);
void stream_destroy(struct stream *);	/* takes NULL; wakes nobody */

/*
 * Bytes came on STREAM_OUT or STREAM_ERR. What the disk does not take is counted
 * as dropped and nothing after it is kept (the streams must not have holes unseen).
 */
void stream_append(struct stream *, enum stream_which, const void *data, size_t len);
/* Nothing more comes. Readers are woken. */
void stream_end(struct stream *);
bool stream_ended(const struct stream *);

/* Bytes so far, but those that the disk did not take; the log's is the sum. */
uint64_t stream_size(const struct stream *, enum stream_which);
/* Those that are not kept; of them those that the disk did not take. */
uint64_t stream_dropped(const struct stream *);
uint64_t stream_refused(const struct stream *);
/*
 * Up to len bytes at off, without waiting: the count, 0 when there are none (yet); -ENODATA
 * those at off were dropped, stream_next tells where it goes on; or another errno.
 */
ssize_t stream_read(struct stream *, enum stream_which, void *buf, size_t len, uint64_t off);
uint64_t stream_next(struct stream *, enum stream_which, uint64_t off);
/* Woken when bytes come and at the end. */
struct wait_list *stream_news(struct stream *);
/* Its files are below dir from now on. */
void stream_move(struct stream *, const char *dir);
/* Close the descriptors (they are opened again when needed). */
void stream_rest(struct stream *);

/* --- a reader's own offsets: one line stands for what was dropped ----------------- */

/*
 * Made at the first gap that a reader meets; forgets all but the latest. To be freed with
 * free. A reader without one has the stream's offsets.
 */
struct stream_cursor;

/* As stream_read, at an offset of the reader's; never -ENODATA, but the line. */
ssize_t stream_cursor_read(struct stream *, enum stream_which, struct stream_cursor **, void *buf,
			   size_t len, uint64_t off);
/* How many bytes can be read at that offset now, at most. */
uint64_t stream_cursor_left(const struct stream *, enum stream_which, const struct stream_cursor *,
			    uint64_t off);

#endif
