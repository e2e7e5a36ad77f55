/* What file.c, read.c and write.c share; nobody else includes it. */
#ifndef SBXFS_DISK_FILE_INTERNAL_H
#define SBXFS_DISK_FILE_INTERNAL_H

#include "disk_internal.h"

/* The moves: see file.c. */
enum file_state { FILE_OPEN, FILE_STALE, FILE_REOPENING, FILE_DEAD };

/* A part of the file that is there or on the way: see read.c. */
struct chunk {
	struct list link;		/* file->chunks */
	struct file *file;
	unsigned epoch;
	off_t off;
	uint32_t len, got;
	uint8_t *data;
	struct sftp_call *call;		/* on the way; NULL: complete */
	bool eof, ahead;
	int64_t when;			/* it was complete */
};

enum call_kind { CALL_READ, CALL_WRITE, CALL_COPY, CALL_FLUSH, CALL_FSYNC };

struct piece {
	struct file_call *call;
	struct sftp_call *sftp;
};

struct file_call {
	struct list link;		/* file->calls */
	struct file *file;
	enum call_kind kind;
	off_t off, from;		/* from: of a copy, in the source */
	size_t size;
	unsigned epoch;
	int64_t since;
	bool ready;			/* to be answered at the next turn */
	bool behind;			/* attributes, set behind what was written */
	bool waits;			/* a write that is answered by the verdict */
	struct piece *pieces;		/* of a write, and the one of an fsync */
	unsigned count, waiting, unsent;
	int error;
	bool vague;
	struct disk_call *explain;
	file_cb *done;	/* NULL: it has been answered (a write that is on its way) */
	void *user;
};

struct file {
	struct disk *disk;		/* NULL once it is gone */
	struct list link;		/* disk->files */
	struct entry *entry;
	struct list by_entry;		/* entry->files */
	struct sftp_handle *handle;	/* while OPEN */
	int flags;
	enum file_state state;
	bool keep_cache, bypass_cache, made;
	bool own;			/* it was made with O_EXCL */
	struct list parked;		/* of ahead.c, while nobody has it */
	int64_t parked_when;
	uint64_t parked_jobs;
	off_t size_ahead;
	struct wait_list news;
	struct list calls, chunks;
	struct loop_later later;
	/* as last seen or made; what identifies it after a lost link */
	off_t size;
	time_t mtime;
	bool size_known, mtime_known;
	/* and as its name showed it when the link was lost: a command may have changed it */
	bool seen;
	off_t seen_size;
	time_t seen_mtime;
	unsigned writing;		/* writes under way */
	bool written;			/* and nobody has looked since */
	int error;			/* of a write, not told yet */
	unsigned epoch;
	off_t next;			/* where a sequential reader goes on */
	size_t window;
	off_t run_end;			/* where a sequential writer goes on: see stripe.c */
	size_t run;			/* and what it has written so far */
	bool one_channel;		/* a second handle cannot be had */
};

/* --- file.c --- */
struct file_call *file_call_new(struct file *, enum call_kind, file_cb *done, void *user);
/* Cancel its requests and free it. */
void file_call_drop(struct file_call *);
/* Drop it and answer. */
void file_call_end(struct file_call *, int error, const void *data, size_t len);
/* It can be answered now, but its caller does not expect that: at the next turn. */
void file_call_ready(struct file_call *);
/* 0: has a handle. As disk_lost: not now. Another error, -ESTALE: never again. */
int file_usable(const struct file *);
/* The error of an earlier write, told once. */
int file_take_error(struct file *);
/* Attributes of it came. */
void file_seen(struct file *, const struct sftp_attrs *);

/* --- write.c --- */
/* A write or copy was answered: who waited for the last of them goes on. */
void file_wrote(struct file *);
/* All of it is on its way: answer; the verdict is kept for the next flush. */
void file_write_accepted(struct file_call *);

/* --- stripe.c --- */
/* A write is about to be sent: is it to go by stripe_write, in pieces of stripe_max_write? */
bool stripe_run(struct file *, off_t off, size_t size);
uint32_t stripe_max_write(const struct file *);
/* As sftp_write, on whichever channel has less to do. */
int stripe_write(struct file *, uint64_t off, const void *data, uint32_t len, sftp_cb *, void *user,
		 struct sftp_call **);
/* Its run is over, or the file: the second handle is closed behind what was written by it. */
void stripe_end(struct file *);

/* --- read.c --- */
/* Answer it if all it needs is there; false: it waits (and what is missing was asked for). */
bool file_read_try(struct file_call *);
/* It is changed, or may have been: what is there is for reads that wait already. */
void file_new_epoch(struct file *);
/* Drop what nobody wants and nobody will want. */
void file_prune(struct file *);
void file_drop_chunks(struct file *);
/* Ask for the first bytes of it. */
void file_read_ahead(struct file *, size_t len);

#endif
