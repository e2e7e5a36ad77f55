/* What the files of a connection share (session.c); nobody else includes it. */
#ifndef SBXFS_SSH_INTERNAL_H
#define SBXFS_SSH_INTERNAL_H

/* libssh2_session_callback_set: its successor is missing in 1.11.0. */
#define LIBSSH2_DISABLE_DEPRECATION
#include <libssh2.h>

#include "buf.h"
#include "endpoint.h"
#include "err.h"
#include "list.h"
#include "loop.h"
#include "pace.h"
#include "resolve.h"
#include "ssh.h"

enum ssh_state { SSH_WAITING, SSH_RESOLVING, SSH_CONNECTING, SSH_HANDSHAKE, SSH_LOGIN, SSH_UP,
		 SSH_DOWN };

struct login;

struct ssh {
	struct loop *loop;
	struct endpoint to;
	const struct ssh_events *events;
	void *user;
	enum ssh_state state;
	LIBSSH2_SESSION *session;
	struct loop_fd fd;
	int sock;
	struct pace_turn pace;		/* its turn to connect */
	struct resolve *resolve;
	struct address addresses[RESOLVE_MAX];
	size_t address_count, address_next;
	int64_t deadline_ms;		/* from the turn to UP */
	struct login *login;		/* while the agent's keys are tried */
	struct loop_later kick;		/* work to do at the next turn */
	struct loop_timer deadline;	/* not up in time */
	struct loop_timer pulse;	/* is the peer still there? */
	struct loop_timer pause;	/* between the handshake and the login */
	struct err why;			/* why it goes down; why.code == 0: it does not */
	bool pumping, doomed;		/* doomed: ssh_destroy was called while pumping */
	bool stuck;			/* a packet is partly sent: only channel first may act */
	struct list channels;		/* in the order of service; a stuck one is the first */
	struct ssh_channel *opening;	/* libssh2 opens one at a time */
	struct ssh_channel *asking;	/* whose request waits for its answer: see may_ask */
	struct ssh_channel *ping;	/* the liveness probe in flight */
	uint64_t received, sent;
	int64_t last_received;
	bool asked;			/* nothing has come since a sign of life was asked for */
	int64_t asked_at;
	int unanswered;			/* pulses since */
	bool held;			/* none is due */
	int64_t turn;			/* when this run of the pump began */
	size_t memory;			/* that libssh2 holds, … */
	struct list pieces;		/* … piece by piece */
	bool drained;			/* the socket had no more, until it is ready again */
	bool peer_closed;
	bool status_proven;		/* see note_free in memory.c */
};

enum channel_state {
	CH_QUEUED,	/* -> OPENING when no other is; DEAD when let go */
	CH_OPENING,	/* -> TERMINAL, REQUESTING, ENDED (refused) */
	CH_TERMINAL,	/* a terminal is asked for: -> REQUESTING, ENDED (refused) */
	CH_REQUESTING,	/* -> RUNNING, ENDED (refused) */
	CH_RUNNING,	/* -> ENDED when the server has closed it */
	CH_ENDED,	/* closed has been told (or nobody listens): close, then free */
};

/* The libssh2 call that was cut short by a full socket and must be repeated first. */
enum channel_op {
	OP_NONE, OP_TERMINAL, OP_REQUEST, OP_RESIZE, OP_READ_OUT, OP_READ_ERR, OP_WRITE, OP_EOF,
};

struct ssh_channel {
	struct list link;
	struct ssh *ssh;
	enum channel_state state;
	LIBSSH2_CHANNEL *ch;
	bool ping;
	bool subsystem;
	uint32_t window;
	uint32_t local_id;
	bool has_local_id, status_seen, exit_told;
	struct buf request;		/* the command, or the subsystem's name */
	struct buf sending, queued;	/* sending is not touched until it is sent */
	bool eof_wanted, eof_sent;
	char *term;			/* NULL: no terminal */
	unsigned cols, rows;
	bool resized;			/* not yet told the server */
	enum channel_op op;
	const struct ssh_channel_ops *ops;	/* NULL: let go */
	void *user;
};

/* One step of a channel. True when something moved. Sets ssh->stuck, ssh->why. */
bool channel_step(struct ssh_channel *);
/* The session is going away: tell closed(-EHOSTDOWN). The channel stays until it is freed. */
void channel_orphan(struct ssh_channel *);
/* The same, and free it, whatever its state. */
void channel_lost(struct ssh_channel *);
struct ssh_channel *channel_create(struct ssh *, const struct ssh_channel_ops *, void *user);
/* --- connect.c --- */
/* WAITING, to HANDSHAKE or ssh_fail; sets the deadline of all that follows. */
void connect_start(struct ssh *);
/* The socket is ready, in CONNECTING. */
void connect_ready(struct ssh *);
/* --- memory.c --- */
/* A session of libssh2 with memory of ours. < 0: -ENOMEM. */
int memory_session(struct ssh *);
/* Behind libssh2_session_free: what that has left. */
void memory_finish(struct ssh *);
/* Memory that libssh2 will free. */
void *ssh_alloc(struct ssh *, size_t);
/* --- login.c --- */
/* 1: logged in. 0: not yet (the pump is kicked). < 0: ssh_fail has been called. */
int login_step(struct ssh *);
void login_destroy(struct login *);	/* takes NULL */
/* Does it wait for the agent, and not for the server? */
bool login_waits(const struct ssh *);

/* libssh2's words about its last error. Never NULL. */
const char *ssh_last_message(struct ssh *);
/* For connect.c's socket, in all states. */
void ssh_socket_ready(struct loop_fd *, uint32_t events);
/* Have the pump run soon. */
void ssh_kick(struct ssh *);
/* r is what libssh2 returned: EAGAIN sets stuck when it could not send; else the link is dead. */
bool ssh_again(struct ssh *, int r);
void ssh_fail(struct ssh *, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
