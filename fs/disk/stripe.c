/*
 * A second SFTP channel for the bulk of one large file that is being written far away.
 *
 * Why. sshd lets a client be 2 MiB ahead on a channel and no more, whatever the client would
 * take: at 20 ms of round trip that is 104 MB/s, however fast the line. The bound is each
 * channel's, so a second one doubles it.
 *
 * Theory of operation. What is sent on one channel is done in order (write.c builds on that);
 * what is sent on two is not. So all that may be under way on the second one are WRITEs of a
 * single run: one file written from front to back through one handle, each byte once. While there
 * are any,
 *  - nothing is under way on the first channel but WRITEs of the same run: any other request,
 *    about whatever it is (this file by another name, a read, attributes, a truncation, an
 *    fsync, a write of somebody else), waits in sftp_queue.c until the second channel is empty,
 *    and what comes later waits behind it;
 *  - and none is added as long as something else waits or is under way there.
 * So to every other request the two are one channel that works in order, and the
 * WRITEs of a run do not care. Their verdicts are counted together (write.c), and an error of
 * either is the file's. Appends are never split: where they go is the server's.
 *
 * The file is opened a second time, by its name, and the protocol has no inode numbers. So
 * before that handle is used the run stands still for a round trip, and both handles are asked for
 * the attributes of what they lead to, of which the size is one that only the run has made:
 * unless all are equal it is another file, and the run stays on one channel. From then on a
 * handle is a handle, whatever becomes of the name.
 *
 * When it pays: the round trip is at least FAR_MS, a run has got RUN_MIN long, and its bytes
 * wait for the window (a sixteenth of RUN_MIN is under way). Whatever fails here (no further
 * channel, no permission, another file) costs nothing but the attempt.
 *
 * What is not so as on one channel: while such a run goes on, and when it ends with an error, there
 * may be a hole in the file where the guest looks at it, shorter than what was under way.
 *
 * States: enum stripe_state. The channel is closed when nobody has used it for IDLE_MS, and
 * when the first one goes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "file_internal.h"
#include "buf.h"
#include "log.h"
#include "ssh.h"

#define FAR_MS 10
#define RUN_MIN (16u * 1024 * 1024)
#define BACKLOG 16		/* RUN_MIN by this: 1 MiB */
#define IDLE_MS 5000
#define RETRY_MS 30000
#define COMPARE_MS 2000		/* longer the others do not wait for it */
#define YIELD_MS 20

enum stripe_state {
	STRIPE_NONE,		/* no channel: -> OPENING */
	STRIPE_OPENING,		/* -> IDLE, NONE (refused) */
	STRIPE_IDLE,		/* -> ASKING, NONE */
	STRIPE_ASKING,		/* the file is being opened: -> COMPARING, IDLE (it cannot be) */
	STRIPE_COMPARING,	/* the first one stands still: -> WRITING, IDLE (not the same) */
	STRIPE_WRITING,		/* -> IDLE (the run or the file has ended) */
};				/* and from each to NONE when a channel is lost */

struct stripe {
	struct disk *disk;
	enum stripe_state state;
	struct ssh_channel *channel;
	struct sftp *sftp;
	struct file *file;		/* ASKING, COMPARING, WRITING */
	struct sftp_handle *handle;	/* COMPARING, WRITING */
	struct sftp_call *call;		/* ASKING, COMPARING */
	struct sftp_attrs ours;
	bool begun;			/* WRITING: nothing of an older run is under way */
	int64_t retry_at;		/* NONE: not before; < 0: not on this connection */
	struct loop_timer idle, late;
	int far_ms;
	size_t run_min;
};

struct stripe *stripe_create(struct disk *disk)
{
	struct stripe *s = xcalloc(1, sizeof(*s));

	s->disk = disk;
	s->far_ms = FAR_MS;
	s->run_min = RUN_MIN;
	return s;
}

void disk_spread_from(struct disk *disk, int round_trip_ms, size_t bytes)
{
	disk->stripe->far_ms = round_trip_ms;
	disk->stripe->run_min = bytes;
}

void stripe_attached(struct stripe *s)
{
	s->retry_at = 0;
}

void stripe_destroy(struct stripe *s)
{
	stripe_drop(s, -ESTALE);
	free(s);
}

/* --- the channel ------------------------------------------------------------------- */

static void idle(struct loop_timer *t)
{
	struct stripe *s = container_of(t, struct stripe, idle);

	if (sftp_apart(s->sftp) > 0)
		loop_timer_set(s->disk->loop, t, s->retry_at < 0 ? YIELD_MS : IDLE_MS, idle);
	else
		stripe_drop(s, -ESHUTDOWN);
}

static void now_idle(struct stripe *s)
{
	s->state = STRIPE_IDLE;
	loop_timer_set(s->disk->loop, &s->idle, s->retry_at < 0 ? YIELD_MS : IDLE_MS, idle);
}

/* Let go of the file; what is under way of it goes on. */
static void let_go(struct stripe *s)
{
	bool stopped = s->state == STRIPE_COMPARING;

	if (s->file)
		s->file->run = 0;
	s->file = NULL;
	s->begun = false;
	loop_timer_cancel(&s->late);
	if (s->call)
		sftp_cancel(s->call);
	s->call = NULL;
	if (s->handle && s->sftp)
		sftp_close(s->sftp, s->handle);
	else
		free(s->handle);
	s->handle = NULL;
	if (s->state > STRIPE_IDLE)
		now_idle(s);
	/* The first one may be gone; another one has not been stopped. */
	if (stopped && s->disk->sftp)
		sftp_stop(s->disk->sftp, false);
}

void stripe_drop(struct stripe *s, int error)
{
	struct ssh_channel *channel = s->channel;
	struct sftp *sftp = s->sftp;

	let_go(s);
	loop_timer_cancel(&s->idle);
	s->state = STRIPE_NONE;
	s->channel = NULL;
	s->sftp = NULL;
	sftp_destroy(sftp, error);
	ssh_channel_destroy(channel);
}

static void not_soon(struct stripe *s)
{
	if (s->retry_at >= 0)
		s->retry_at = clock_ms() + RETRY_MS;
}

static void greeted(void *user)
{
	struct stripe *s = user;

	sftp_set_beside(s->disk->sftp, s->sftp);
	now_idle(s);
}

static void broken(void *user, const struct err *why)
{
	struct stripe *s = user;

	log_warn("%s", why->text);
	not_soon(s);
	stripe_drop(s, why->code);
}

static void channel_closed(void *user, const struct ssh_exit *how)
{
	struct stripe *s = user;

	s->channel = NULL;		/* it is freed behind this call */
	not_soon(s);
	stripe_drop(s, how->error == -EHOSTDOWN ? -EHOSTDOWN : -ESHUTDOWN);
}

static void channel_data(void *user, int stream, const uint8_t *data, size_t len)
{
	struct stripe *s = user;

	if (stream == 0 && s->sftp)
		sftp_input(s->sftp, data, len);
}

static void channel_drained(void *user)
{
	struct stripe *s = user;

	if (s->sftp)
		sftp_drained(s->sftp);
}

static void pipe_send(void *pipe, const void *data, size_t len)
{
	struct stripe *s = pipe;

	if (s->channel)
		ssh_channel_write(s->channel, data, len);
}

static size_t pipe_queued(void *pipe)
{
	struct stripe *s = pipe;

	return s->channel ? ssh_channel_queued(s->channel) : 0;
}

static void open_channel(struct stripe *s)
{
	static const struct ssh_channel_ops channel_ops = {
		.data = channel_data, .drained = channel_drained, .closed = channel_closed,
	};
	static const struct sftp_pipe pipe = { .send = pipe_send, .queued = pipe_queued };
	static const struct sftp_events events = { .ready = greeted, .failed = broken };

	if (disk_server(s->disk, &channel_ops, s, &s->channel) < 0) {
		s->channel = NULL;
		not_soon(s);
		return;
	}
	s->state = STRIPE_OPENING;
	s->sftp = sftp_create(s->disk->loop, &pipe, s, &events, s);
}

/* --- the second handle ---------------------------------------------------------------- */

/* It is not to be had, or leads elsewhere: not this file. */
static void refuse(struct stripe *s)
{
	s->file->one_channel = true;
	let_go(s);
}

static bool is_same(const struct sftp_attrs *a, const struct sftp_attrs *b)
{
	const uint32_t needed = SFTP_ATTR_SIZE | SFTP_ATTR_PERMISSIONS | SFTP_ATTR_TIMES |
				SFTP_ATTR_OWNER;

	return (a->flags & needed) == needed && (b->flags & needed) == needed &&
	       (a->perm & S_IFMT) == S_IFREG && a->perm == b->perm && a->size == b->size &&
	       a->mtime == b->mtime && a->atime == b->atime && a->uid == b->uid && a->gid == b->gid;
}

static void theirs_came(void *user, int error, const struct sftp_answer *a)
{
	struct stripe *s = user;

	s->call = NULL;
	if (error || !is_same(&s->ours, &a->reply->attrs)) {
		refuse(s);
		return;
	}
	s->state = STRIPE_WRITING;
	loop_timer_cancel(&s->late);
	log_debug("a file is written over two channels");
	sftp_stop(s->disk->sftp, false);
}

static void ours_came(void *user, int error, const struct sftp_answer *a)
{
	struct stripe *s = user;

	s->call = NULL;
	if (error == 0) {
		s->ours = a->reply->attrs;
		error = sftp_fstat(s->sftp, s->handle, theirs_came, s, &s->call);
	}
	if (error) {
		s->call = NULL;
		refuse(s);
	}
}

static void late(struct loop_timer *t)
{
	refuse(container_of(t, struct stripe, late));
}

/* The look at the file goes behind all that was sent of it, and nothing goes behind that. */
static void opened(void *user, int error, const struct sftp_answer *a)
{
	struct stripe *s = user;

	s->call = NULL;
	s->handle = a->handle;
	if (!error)
		error = file_usable(s->file);
	if (!error)
		error = sftp_fstat(s->disk->sftp, s->file->handle, ours_came, s, &s->call);
	if (error) {
		s->call = NULL;
		refuse(s);
		return;
	}
	s->state = STRIPE_COMPARING;
	loop_timer_set(s->disk->loop, &s->late, COMPARE_MS, late);
	sftp_stop(s->disk->sftp, true);
}

static void ask(struct stripe *s, struct file *f)
{
	char path[PATH_MAX];

	loop_timer_cancel(&s->idle);
	s->file = f;
	s->state = STRIPE_ASKING;
	if (entry_path(f->entry, NULL, path) < 0 ||
	    sftp_open(s->sftp, path, SFTP_WRITABLE, NULL, opened, s, &s->call) < 0) {
		s->call = NULL;
		refuse(s);
	}
}

/* --- for write.c -------------------------------------------------------------------------- */

static bool is_worth_it(const struct stripe *s, const struct file *f)
{
	struct sftp *sftp = s->disk->sftp;

	return f->run >= s->run_min && !f->one_channel && !(f->flags & O_APPEND) &&
	       f->entry->attached && sftp_round_trip(sftp) >= s->far_ms &&
	       sftp_load(sftp) >= s->run_min / BACKLOG;
}

static void consider(struct stripe *s, struct file *f)
{
	if (s->file || s->retry_at < 0 || !is_worth_it(s, f))
		return;
	if (s->state == STRIPE_NONE && clock_ms() >= s->retry_at)
		open_channel(s);
	else if (s->state == STRIPE_IDLE && sftp_apart(s->sftp) == 0 &&
		 sftp_apart(s->disk->sftp) == 0)
		ask(s, f);
}

bool stripe_run(struct file *f, off_t off, size_t size)
{
	struct stripe *s = f->disk->stripe;

	if (off != f->run_end)
		stripe_end(f);
	f->run = off == f->run_end ? f->run + size : size;
	f->run_end = off + (off_t)size;
	if (s->file != f || s->state != STRIPE_WRITING) {
		consider(s, f);
		return false;
	}
	s->begun = s->begun || (sftp_apart(s->sftp) == 0 && sftp_apart(s->disk->sftp) == 0);
	return s->begun;
}

uint32_t stripe_max_write(const struct file *f)
{
	uint32_t a = sftp_max_write(f->disk->sftp), b = sftp_max_write(f->disk->stripe->sftp);

	return a < b ? a : b;
}

int stripe_write(struct file *f, uint64_t off, const void *data, uint32_t len, sftp_cb *done,
		 void *user, struct sftp_call **call)
{
	struct stripe *s = f->disk->stripe;
	struct sftp *first = s->disk->sftp;

	if (sftp_is_apart(first) && sftp_load(s->sftp) < sftp_load(first))
		return sftp_write_apart(s->sftp, s->handle, off, data, len, done, user, call);
	return sftp_write_apart(first, f->handle, off, data, len, done, user, call);
}

void stripe_end(struct file *f)
{
	f->run = 0;
	if (f->disk && f->disk->stripe->file == f)
		let_go(f->disk->stripe);
}

bool disk_yields_channel(struct disk *disk)
{
	struct stripe *s = disk ? disk->stripe : NULL;

	if (!s || s->state == STRIPE_NONE)
		return false;
	s->retry_at = -1;
	if (s->state == STRIPE_OPENING)
		stripe_drop(s, -ESHUTDOWN);
	else if (s->file)
		let_go(s);
	else
		now_idle(s);
	return true;
}
