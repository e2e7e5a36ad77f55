/*
 * A file that takes any number of bytes and keeps so many: its beginning, and its end.
 *
 * The first half of the file holds the first bytes; the second half is a ring that holds
 * the latest ones. Offsets are those of all bytes that ever came. As soon as some are to be
 * dropped, a file NAME.gap beside it holds three big-endian uint64: how many bytes are kept, how
 * many came, and how many may have come by what was being written last: what those took the
 * place of is gone, whether they are there themselves or not. (Two, in older ones.)
 */
#ifndef SBXFS_VM_SPOOL_H
#define SBXFS_VM_SPOOL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct spool {
	const char *dir, *name;		/* borrowed */
	uint64_t cap;			/* bytes kept, a multiple of 32 */
	uint64_t size;			/* bytes that came */
	uint64_t reach;			/* bytes that may have been written: size or more */
	int fd, gap_fd;			/* -1: not open */
};

/* name: of static duration. dir: until spool_rest, and then set anew. Nothing is made yet. */
void spool_init(struct spool *, const char *dir, const char *name, uint64_t cap);
/* What an earlier daemon left there. */
void spool_load(struct spool *);
/* 0, or a negative errno: then none of them counts. Makes the file at the first byte. */
int spool_append(struct spool *, const void *data, size_t len);
/*
 * Up to len bytes at off: the count, 0 at the end, -ENODATA: dropped, spool_next tells where
 * it goes on; other errno. A read ends at a gap.
 */
ssize_t spool_read(struct spool *, void *buf, size_t len, uint64_t off);
/* The first offset from off on whose byte is kept (or the end). */
uint64_t spool_next(const struct spool *, uint64_t off);
uint64_t spool_dropped(const struct spool *);
/* Close the descriptors; they are opened again when needed. */
void spool_rest(struct spool *);

#endif
