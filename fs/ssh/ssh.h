/*
 * One VM's SSH connection (RFC 4251 to 4254, through libssh2): connect, check
 * the pinned host key, log in, channels, and the end of the link.
 *
 * All callbacks run from the loop, never from inside a call of this header
 * but ssh_destroy. A callback may call everything here, ssh_destroy included.
 */
#ifndef SBXFS_SSH_SSH_H
#define SBXFS_SSH_SSH_H

#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>

struct loop;
struct endpoint;
struct err;
struct ssh;
struct ssh_channel;

struct ssh_events {
	/* Logged in: channels may be opened. At most once. */
	void (*up)(void *user);
	/*
	 * The connection ended, or never came up; at most once, and nothing after
	 * it. All channels have had their closed before. Codes: -EHOSTDOWN the
	 * link was cut, -ETIMEDOUT it fell silent or was not up before the deadline,
	 * -ECONNREFUSED, -EKEYREJECTED a host key other than the pinned one, -EACCES the
	 * login was refused, -ETIME the service answers nobody for minutes to come,
	 * -EHOSTUNREACH the host's name is not found. The ssh stays the owner's: ssh_destroy
	 * it (at once or later).
	 */
	void (*down)(void *user, const struct err *);
};

/*
 * Start to connect; up or down follows before deadline_ms, later from the loop. (Where the
 * endpoint's service minds bursts, the wait for its turn comes before that.)
 * The endpoint is copied. Never NULL: what fails at once comes through down.
 */
struct ssh *ssh_create(struct loop *, const struct endpoint *, int64_t deadline_ms,
		       const struct ssh_events *, void *user);
/*
 * Close the connection and free it. Channels still open get their closed with
 * -EHOSTDOWN from inside this call; up and down do not run any more. Takes NULL.
 */
void ssh_destroy(struct ssh *);
bool ssh_is_up(const struct ssh *);
/* The machine stands still and will go on: its silence means nothing until then. */
void ssh_hold(struct ssh *, bool hold);
bool ssh_is_held(const struct ssh *);
/* "OpenSSH_9.2p1", borrowed; "" before up. */
const char *ssh_server_version(const struct ssh *);
/* Bytes received and sent on the wire since ssh_create. */
void ssh_traffic(const struct ssh *, uint64_t *received, uint64_t *sent);

/* How a channel ended. */
struct ssh_exit {
	/*
	 * 0: the server closed it in order. -EHOSTDOWN: the link was lost first.
	 * -EMFILE: the server allows no further channel. -ENOSYS: it has no such
	 * subsystem. -ENOTTY: it gives no terminal. -EACCES: it refused the request.
	 */
	int error;
	bool requested;		/* false: the command was never sent, so it cannot have run */
	int status;		/* exit status, or -1 when the server told none */
	char signal[32];	/* "KILL" when the process died of a signal, else "" */
};

struct ssh_channel_ops {
	/* The request was granted: the command runs. At most once. May be NULL. */
	void (*started)(void *user);
	/* Bytes came, borrowed; stream 0 is standard output, 1 standard error. */
	void (*data)(void *user, int stream, const uint8_t *data, size_t len);
	/*
	 * The command's own process has ended (ssh_channel_result tells how), but somebody
	 * may still hold its output. At most once, before closed; never where the server
	 * sends no status. May be NULL.
	 */
	void (*exited)(void *user);
	/* What was queued for sending has become less than SSH_WRITE_LOW. May be NULL. */
	void (*drained)(void *user);
	/*
	 * It is over: exactly once unless ssh_channel_destroy came first; *ch is freed behind it.
	 */
	void (*closed)(void *user, const struct ssh_exit *);
};

#define SSH_WRITE_LOW (256 * 1024)

/*
 * Open a channel and run a command in it (exec, RFC 4254 6.5), or a subsystem.
 * 0: accepted, closed will run; *ch is valid until then. < 0: refused, nothing
 * kept: -EHOSTDOWN when the connection is not up, -E2BIG a command over
 * SSH_COMMAND_MAX. Any number may be asked for: they are opened one after the other.
 */
#define SSH_COMMAND_MAX 30000
int ssh_exec(struct ssh *, const void *command, size_t len, const struct ssh_channel_ops *,
	     void *user, struct ssh_channel **ch);
/* window: bytes the server may send ahead of us; 0 for the default (4 MiB). */
int ssh_subsystem(struct ssh *, const char *name, uint32_t window, const struct ssh_channel_ops *,
		  void *user, struct ssh_channel **ch);

/*
 * A terminal of that size for the command (RFC 4254 6.2), when called right behind ssh_exec.
 * Later calls resize it (6.7); term is then not used. Else: term is copied.
 */
void ssh_channel_terminal(struct ssh_channel *, const char *term, unsigned cols, unsigned rows);

/*
 * Queue bytes (copied) to be sent in order, also before started. The caller bounds
 * what it queues by ssh_channel_queued and drained.
 */
void ssh_channel_write(struct ssh_channel *, const void *data, size_t len);
size_t ssh_channel_queued(const struct ssh_channel *);
/* End of file behind what is queued; nothing may be written afterwards. */
void ssh_channel_eof(struct ssh_channel *);
/* After exited: how. */
void ssh_channel_result(struct ssh_channel *, struct ssh_exit *);
/*
 * Ask for a sign of life: closed runs (with an error that says nothing) when the server has
 * answered, and then all has come that it had sent before. Otherwise as ssh_exec.
 */
int ssh_ping(struct ssh *, const struct ssh_channel_ops *, void *user, struct ssh_channel **ch);
/*
 * Let go of it: no callback runs any more. The close message is sent behind it;
 * the server ends what runs there as if the terminal had gone. Takes NULL.
 */
void ssh_channel_destroy(struct ssh_channel *);
/* Whoever answers on it does not know us: the whole connection ends, soon, with -EACCES. */
void ssh_channel_reject(struct ssh_channel *, const char *why);

#endif
