/*
 * What happened in the fleet: JSON lines (RFC 8259, one object a line), numbered,
 * the last EVENTS_KEPT kept over restarts, with readers that wait for more.
 *
 *	{"seq":17,"time":"2026-01-31T12:00:00.123Z","event":"created","sandbox":"web",
 *	 "uid":1000,"pid":4711,"backend":"kvm"}
 *
 * seq has no gap and never starts again; time never goes back within a run of the
 * daemon's clock; sandbox, uid and pid are there where they are known; what else
 * is there depends on the event (see sbxfs.5).
 *
 * To readers it is one stream of bytes that began with the oldest line kept at the
 * daemon's start. A line that a slow reader missed is counted to it in a line
 * {"lost":N} of its own.
 */
#ifndef SBXFS_VM_EVENTS_H
#define SBXFS_VM_EVENTS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "wait.h"

#define EVENTS_KEPT 10000

struct err;
struct events;

/* One more member of an event; an array of them ends with one without a key. */
struct event_field {
	const char *key;
	const char *text;	/* NULL: the number counts */
	int64_t number;
};

/*
 * Kept in the files `events` and `events.1` of dir, which exists. A half line at
 * the end, of a daemon that was killed, is cut off. < 0: the files cannot be used.
 */
int events_open(struct events **, const char *dir, struct err *);
/* Wakes nobody. Takes NULL. */
void events_close(struct events *);

/*
 * Who asks for what is done until the next call; uid -1: nobody, the daemon itself.
 * thread: as FUSE tells it; its process is looked up when something happens.
 */
void events_caller(struct events *, uid_t, pid_t thread);
/*
 * It happened now. sandbox may be NULL; fields may be NULL. Written at once, not synced: it
 * outlives the daemon, not the host's power. With a full disk it is kept in memory
 * alone. Takes NULL as events.
 */
void events_post(struct events *, const char *event, const char *sandbox,
		 const struct event_field *fields);

/*
 * The sandboxes that are there according to the lines kept: created or adopted,
 * not destroyed; a rename is followed. Borrowed names, for the call.
 */
void events_replay(struct events *, void (*each)(void *user, const char *sandbox), void *user);

/* Bytes of the stream so far: where the next line will begin. */
uint64_t events_size(const struct events *);
/* Woken when a line comes. */
struct wait_list *events_news(struct events *);

/* A reader's place; all zero at first. events_reader_finish frees what it holds. */
struct events_reader {
	bool begun, mid_line;
	uint64_t next_seq;		/* of the line that it has not had whole */
	uint64_t from_off, from_byte;	/* its offset, and the byte of the stream that is there */
	char *notice;			/* the lost line, in front of from_off */
};

/*
 * Up to len bytes at the reader's offset off, without waiting: the count, or 0 when
 * there are none yet. A first read begins with the oldest line that is kept.
 */
size_t events_read(struct events *, struct events_reader *, void *out, size_t len, uint64_t off);
void events_reader_finish(struct events_reader *);

#endif
