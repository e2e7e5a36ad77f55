/*
 * An SFTP client over any byte pipe: requests in flight matched to replies by
 * id, in any order and number.
 *
 * Contract of every call that takes a callback: < 0 is refused (-EHOSTDOWN: not
 * ready or ended; -EMSGSIZE: longer than the server takes), nothing is kept and
 * done never runs. 0 is accepted: done runs exactly once, later, from
 * sftp_input, from sftp_destroy or from the loop, unless sftp_cancel came first. *call (call
 * may be NULL) is valid until then. Paths, handles and data are copied.
 *
 * READs and WRITEs are bounded by bytes: what goes beyond SFTP_IN_FLIGHT waits here, in
 * order, while all other requests pass it (but see sftp_set_beside).
 */
#ifndef SBXFS_SSH_SFTP_H
#define SBXFS_SSH_SFTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sftp_codec.h"

struct err;
struct loop;
struct sftp;
struct sftp_call;

/*
 * Bytes of READ replies and WRITE data on the way at once: the measured best of one link up to
 * SFTP_NEAR_MS of round trip, more in proportion to it beyond that.
 */
#define SFTP_IN_FLIGHT (4u * 1024 * 1024)
#define SFTP_IN_FLIGHT_MAX (16u * 1024 * 1024)
#define SFTP_NEAR_MS 20
/* WRITEs are held back while more than this waits to be sent, so that others can pass. */
#define SFTP_SEND_HIGH (512u * 1024)
/*
 * A server that owes answers and has not said a word for this long is stuck (a READ of
 * a file of /proc that waits): the connection is given up. An fsync may take longer.
 */
#define SFTP_SILENCE_MS 60000
#define SFTP_FSYNC_MS 600000
#define SFTP_OPENING_MS 20000

struct sftp_pipe {
	/* Queue bytes to be sent, in order; they are copied. Never calls back. */
	void (*send)(void *pipe, const void *data, size_t len);
	/* Bytes queued and not yet sent. Falling below SFTP_SEND_HIGH is told by sftp_drained. */
	size_t (*queued)(void *pipe);
};

struct sftp_events {
	/* The greeting is over: calls are accepted. At most once. */
	void (*ready)(void *user);
	/*
	 * The peer broke the protocol (-EPROTO) or fell silent (-ETIMEDOUT); at most once, the
	 * last event. All calls have been answered. sftp_destroy it, here or later.
	 */
	void (*failed)(void *user, const struct err *);
};

/*
 * The answer to a call. error: 0 or a negative errno of the status, or why the
 * connection ended (the same for all calls then). reply is borrowed for the call, never NULL:
 * of the right type when error is 0; a READ or READDIR at the end of file gives
 * error 0 and data.len or names.count of 0. vague: error is a mere FAILURE.
 */
struct sftp_answer {
	struct sftp_reply *reply;
	struct sftp_handle *handle;	/* of an OPEN or OPENDIR: yours, to be closed */
	bool vague;
};
typedef void sftp_cb(void *user, int error, const struct sftp_answer *);

/* Send the greeting; ready or failed follows. The pipe object stays the caller's. */
struct sftp *sftp_create(struct loop *, const struct sftp_pipe *, void *pipe,
			 const struct sftp_events *, void *user);
/* Answer all calls with error, from inside this call, and free it. Takes NULL. */
void sftp_destroy(struct sftp *, int error);
/* Bytes came from the peer. May run callbacks; the sftp may be gone afterwards. */
void sftp_input(struct sftp *, const uint8_t *data, size_t len);
void sftp_drained(struct sftp *);

bool sftp_is_ready(const struct sftp *);
/* What failed will tell, already while the calls are being answered; code 0: nothing. Borrowed. */
const struct err *sftp_why(const struct sftp *);
/* SFTP_SILENCE_MS for this one: tests have less patience. */
void sftp_set_patience(struct sftp *, int64_t ms);
/* The shortest time in ms that an answer took lately; 0 while none is known. */
int64_t sftp_round_trip(const struct sftp *);
/* How many bytes may be on the way at once. */
size_t sftp_pipeline(const struct sftp *);
/* Bytes that READs and WRITEs made now may have and not wait for their turn. */
size_t sftp_room(const struct sftp *);
bool sftp_has(const struct sftp *, enum sftp_ext);
/* The most that one READ may ask for and one WRITE may carry; > 0 once ready. */
uint32_t sftp_max_read(const struct sftp *);
uint32_t sftp_max_write(const struct sftp *);

/*
 * done will not run any more. A call that was sent stays in the table until its
 * reply; a handle that it brings is closed.
 */
void sftp_cancel(struct sftp_call *);
/*
 * A READ or WRITE may have to wait here for its turn. Has the call been sent? If not, sent(user
 * of the call) runs once when it is, from inside sftp: it must do no more than take note.
 */
bool sftp_is_sent(struct sftp_call *, void (*sent)(void *user));

/*
 * Two channels of one server whose WRITEs may overtake each other, in front of everything else:
 * sftp_write_apart's on both, of bytes that no other request that is not answered is about.
 * While any of them is under way on beside, whatever else is started on s waits here, in order,
 * and so do those that follow it. beside is NULL: no longer; what waits is sent.
 */
void sftp_set_beside(struct sftp *s, struct sftp *beside);
/* May one be sent on the other now? Everything that is under way here is such a WRITE. */
bool sftp_is_apart(const struct sftp *);
/* How many of them are under way here. */
unsigned sftp_apart(const struct sftp *);
/* Nothing is sent any more, all of it waits here; until it is told to go on. */
void sftp_stop(struct sftp *, bool stop);
/* Bytes that are under way or wait to be. */
size_t sftp_load(const struct sftp *);

/* --- requests; the answer's type behind each ------------------------------ */

int sftp_open(struct sftp *, const char *path, uint32_t flags, const struct sftp_attrs *,
	      sftp_cb *, void *user, struct sftp_call **);			/* handle */
int sftp_opendir(struct sftp *, const char *path, sftp_cb *, void *user,
		 struct sftp_call **);						/* handle */
/* Frees the handle. The CLOSE is sent behind everything else that was sent; nobody waits. */
void sftp_close(struct sftp *, struct sftp_handle *);
int sftp_read(struct sftp *, const struct sftp_handle *, uint64_t off, uint32_t len, sftp_cb *,
	      void *user, struct sftp_call **);					/* data */
int sftp_write(struct sftp *, const struct sftp_handle *, uint64_t off, const void *data,
	       uint32_t len, sftp_cb *, void *user, struct sftp_call **);	/* status */
int sftp_write_apart(struct sftp *, const struct sftp_handle *, uint64_t off, const void *data,
		     uint32_t len, sftp_cb *, void *user, struct sftp_call **);	/* status */
int sftp_readdir(struct sftp *, const struct sftp_handle *, sftp_cb *, void *user,
		 struct sftp_call **);						/* names */
int sftp_fstat(struct sftp *, const struct sftp_handle *, sftp_cb *, void *user,
	       struct sftp_call **);						/* attrs */
int sftp_fsetstat(struct sftp *, const struct sftp_handle *, const struct sftp_attrs *, sftp_cb *,
		  void *user, struct sftp_call **);				/* status */
int sftp_fsync(struct sftp *, const struct sftp_handle *, sftp_cb *, void *user,
	       struct sftp_call **);						/* status */
/* The server copies within itself; a len that goes beyond the end copies less and says nothing. */
int sftp_copy(struct sftp *, const struct sftp_handle *from, uint64_t off, uint64_t len,
	      const struct sftp_handle *to, uint64_t to_off, sftp_cb *, void *user,
	      struct sftp_call **);						/* status */

int sftp_lstat(struct sftp *, const char *path, sftp_cb *, void *user,
	       struct sftp_call **);						/* attrs */
int sftp_stat(struct sftp *, const char *path, sftp_cb *, void *user,
	      struct sftp_call **);						/* attrs */
int sftp_setstat(struct sftp *, const char *path, const struct sftp_attrs *, sftp_cb *,
		 void *user, struct sftp_call **);				/* status */
int sftp_lsetstat(struct sftp *, const char *path, const struct sftp_attrs *, sftp_cb *,
		  void *user, struct sftp_call **);				/* status */
int sftp_remove(struct sftp *, const char *path, sftp_cb *, void *user,
		struct sftp_call **);						/* status */
int sftp_mkdir(struct sftp *, const char *path, const struct sftp_attrs *, sftp_cb *, void *user,
	       struct sftp_call **);						/* status */
int sftp_rmdir(struct sftp *, const char *path, sftp_cb *, void *user,
	       struct sftp_call **);						/* status */
/* replace: by posix-rename, else by RENAME, which fails where the name is taken. */
int sftp_rename(struct sftp *, const char *from, const char *to, bool replace, sftp_cb *,
		void *user, struct sftp_call **);				/* status */
int sftp_hardlink(struct sftp *, const char *from, const char *to, sftp_cb *, void *user,
		  struct sftp_call **);						/* status */
int sftp_symlink(struct sftp *, const char *text, const char *path, sftp_cb *, void *user,
		 struct sftp_call **);						/* status */
int sftp_readlink(struct sftp *, const char *path, sftp_cb *, void *user,
		  struct sftp_call **);						/* names */
int sftp_realpath(struct sftp *, const char *path, sftp_cb *, void *user,
		  struct sftp_call **);						/* names */
int sftp_statvfs(struct sftp *, const char *path, sftp_cb *, void *user,
		 struct sftp_call **);						/* extended */

#endif
