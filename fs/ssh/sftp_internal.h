/* What the files of an SFTP client (sftp*.c) share; nobody else includes it. */
#ifndef SBXFS_SSH_SFTP_INTERNAL_H
#define SBXFS_SSH_SFTP_INTERNAL_H

#include <uthash.h>

#include "buf.h"
#include "err.h"
#include "list.h"
#include "loop.h"
#include "sftp.h"

enum sftp_state { SFTP_GREETING, SFTP_READY, SFTP_DEAD };

struct sftp_call {
	struct sftp *sftp;
	UT_hash_handle hh;
	struct list pending;		/* or held */
	uint32_t id;
	uint8_t type;			/* of the request */
	uint8_t expect;			/* the type of a good reply */
	bool sent, slow, apart;
	uint32_t weight;		/* bytes asked for or carried, of READ and WRITE */
	int64_t since;
	struct buf packet;		/* while not sent */
	sftp_cb *done;			/* NULL: nobody waits for the answer */
	void (*on_sent)(void *user);
	void *user;
};

struct sftp {
	struct loop *loop;
	const struct sftp_pipe *ops;
	void *pipe;
	const struct sftp_events *events;
	void *user;
	enum sftp_state state;
	struct err why;			/* it failed */
	bool busy, doomed;		/* doomed: destroyed from a callback */
	struct buf in, out;
	struct sftp_call *calls;	/* by id, oldest first */
	struct list pending, held;
	struct sftp *beside, *front;	/* see sftp_set_beside; front: it is beside that one */
	unsigned apart;			/* calls in the table */
	bool stopped;
	uint32_t next_id;
	size_t in_flight, waiting;	/* bytes on the way; that wait for it */
	uint32_t extensions, max_read, max_write;
	int64_t round_trip, round_trip_since;	/* ms; < 0: not known */
	int64_t heard;			/* when the peer last showed a sign of life */
	int64_t patience;
	struct loop_timer watchdog;
};

/* sftp.c */

/* The peer broke the protocol or fell silent: all calls are answered, failed runs. Not twice. */
void sftp_fail(struct sftp *, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Look in ms from now whether the peer owes an answer for too long. */
void sftp_watch(struct sftp *, int64_t ms);

/* sftp_queue.c */

/*
 * A call for a request of that type: it is in the table, its packet is to be built in s->out and
 * handed to sftp_call_send. out may be NULL.
 */
struct sftp_call *sftp_call_new(struct sftp *, uint8_t type, sftp_cb *done, void *user,
				struct sftp_call **out);
/* Send what is in s->out, now or when it is its turn. Returns 0. */
int sftp_call_send(struct sftp *, struct sftp_call *);
/* It is answered or given up: out of the table. Nothing is called back. */
void sftp_call_free(struct sftp_call *);
/* Send what has room by now. Calls back only to have it noted that something was sent. */
void sftp_pump(struct sftp *);
/* Calls have ended: if this one is beside another, that may go on. */
void sftp_tell_front(struct sftp *);

/* sftp_reply.c */

/* Take the whole packets at the front; returns the bytes taken. May run callbacks. */
size_t sftp_take_packets(struct sftp *, const uint8_t *data, size_t len);

#endif
