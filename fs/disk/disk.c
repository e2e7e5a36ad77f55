/*
 * A VM's disk: its SFTP channel, opened when it is needed and again when the server
 * has closed it, and who the login user is in the guest. vm.c owns it and tells it
 * of the SSH connection; the tree calls what disk.h offers.
 *
 * The states stand at enum link_state in disk_internal.h. Whatever ends a
 * channel answers all calls first; open files are opened again later (file.c).
 */
#include "disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk_internal.h"
#include "buf.h"
#include "log.h"
#include "ssh.h"

/* What the server may send ahead of us: a whole pipeline of READs. */
#define WINDOW SFTP_IN_FLIGHT_MAX
/* A channel that failed is not tried again at once; one that cannot be had, still later. */
#define RETRY_MS 1000
#define RETRY_ABSENT_MS 10000
#define SPOKE_MS 100
/* Names are lent for a second, which the kernel counts from when the asker runs on. */
#define LENT_MS 60000

struct disk *disk_create(struct loop *loop, struct disk_cache *cache)
{
	struct disk *disk = xcalloc(1, sizeof(*disk));

	disk->cache = disk_cache_ref(cache);
	disk->scan = scan_create(disk);
	disk->stripe = stripe_create(disk);

	disk->loop = loop;
	disk->own_uid = getuid();
	disk->own_gid = getgid();
	wait_init(&disk->news);
	list_init(&disk->calls);
	list_init(&disk->files);
	list_init(&disk->listings);
	list_init(&disk->held);
	disk->root = entry_create_root(disk);
	return disk;
}

/* --- the channel's end -------------------------------------------------------- */

/* The channel is gone or given up: answer all calls with error. */
static void drop_channel(struct disk *disk, int error)
{
	struct ssh_channel *channel = disk->channel;
	struct sftp *sftp = disk->sftp;

	scan_stop(disk->scan);
	/* Cleared first: what the answers lead to must find it closed. */
	disk->channel = NULL;
	disk->sftp = NULL;
	if (disk->state != DISK_DETACHED)
		disk->state = DISK_CLOSED;
	stripe_drop(disk->stripe, error);
	sftp_destroy(sftp, error);
	ssh_channel_destroy(channel);
	files_lost(disk);
	listings_lost(disk);
}

static void may_retry(struct loop_timer *t)
{
	struct disk *disk = container_of(t, struct disk, retry);

	disk->retry_at = 0;
	wait_wake(&disk->news);
}

static void fail_channel(struct disk *disk, const struct err *why, int64_t retry_ms)
{
	disk->err = *why;
	disk->retry_at = clock_ms() + retry_ms;
	loop_timer_set(disk->loop, &disk->retry, retry_ms, may_retry);
	drop_channel(disk, why->code == -ENOSYS ? -EOPNOTSUPP : why->code);
	wait_wake(&disk->news);
}

static void sftp_is_broken(void *user, const struct err *err)
{
	log_warn("%s", err->text);
	fail_channel(user, err, RETRY_MS);
}

static void channel_closed(void *user, const struct ssh_exit *how)
{
	struct disk *disk = user;
	bool opening = disk->state == DISK_OPENING;
	struct err err;

	disk->channel = NULL;		/* it is freed behind this call */
	if (how->error == -EHOSTDOWN || (how->error == 0 && !opening)) {
		/* The link is lost, or the server got tired: it is opened again when needed. */
		drop_channel(disk, how->error ? how->error : -ESHUTDOWN);
		wait_wake(&disk->news);
		return;
	}
	if (how->error == -ENOSYS || how->status == 127)
		err_set(&err, -ENOSYS, "the sandbox has no SFTP server: root/ cannot be served");
	else if (how->error)
		err_sys(&err, how->error, "the SFTP channel was refused");
	else
		err_set(&err, -EIO, "the SFTP server ended at once, with status %d%s%s",
			how->status, disk->said[0] ? ": " : "", disk->said);
	fail_channel(disk, &err, err.code == -ENOSYS ? RETRY_ABSENT_MS : RETRY_MS);
}

/* --- opening ------------------------------------------------------------------- */

static void id_came(struct disk *disk, int error, const struct sftp_answer *a, bool sure)
{
	const struct sftp_attrs *attrs = &a->reply->attrs;

	if (error == 0 && (attrs->flags & SFTP_ATTR_OWNER) && (sure || !disk->uid_known)) {
		disk->uid = attrs->uid;
		disk->gid = attrs->gid;
		disk->uid_known = true;
	}
	if (--disk->asking > 0 || disk->state != DISK_OPENING || !disk->sftp ||
	    !sftp_is_ready(disk->sftp))
		return;
	disk->state = DISK_READY;
	wait_wake(&disk->news);
}

static void home_came(void *user, int error, const struct sftp_answer *a)
{
	id_came(user, error, a, false);
}

static void process_came(void *user, int error, const struct sftp_answer *a)
{
	id_came(user, error, a, true);
}

/*
 * Who are we in the guest? The folder of the server's own process belongs to its
 * user, wherever there is a /proc; else the owner of the folder we start in is taken.
 */
static void sftp_greeted(void *user)
{
	struct disk *disk = user;

	disk->asking = 2;
	disk->uid_known = false;
	sftp_stat(disk->sftp, ".", home_came, disk, NULL);
	sftp_stat(disk->sftp, "/proc/self", process_came, disk, NULL);
}

static void pipe_send(void *pipe, const void *data, size_t len)
{
	struct disk *disk = pipe;

	if (disk->channel)
		ssh_channel_write(disk->channel, data, len);
}

static size_t pipe_queued(void *pipe)
{
	struct disk *disk = pipe;

	return disk->channel ? ssh_channel_queued(disk->channel) : 0;
}

static size_t line_length(const uint8_t *data, size_t len)
{
	const uint8_t *end = memchr(data, '\n', len);

	return end ? (size_t)(end - data) : len;
}

static void channel_data(void *user, int stream, const uint8_t *data, size_t len)
{
	struct disk *disk = user;

	if (stream == 0 && disk->sftp)
		sftp_input(disk->sftp, data, len);
	if (stream == 1) {
		snprintf(disk->said, sizeof(disk->said), "%.*s",
			 (int)line_length(data, len), (const char *)data);
		log_debug("the sandbox's SFTP server says: %s", disk->said);
	}
}

static void channel_drained(void *user)
{
	struct disk *disk = user;

	if (disk->sftp)
		sftp_drained(disk->sftp);
}

/* Where distributions have it; 127: nowhere. sudo must not ask, nobody would answer. */
static const char sudo_server[] =
	"sh -c 's=\"sudo -n\"; [ \"$(id -u)\" = 0 ] && s=; for p in /usr/lib/openssh"
	" /usr/libexec/openssh /usr/lib/ssh /usr/libexec /usr/lib/misc; do"
	" [ -x $p/sftp-server ] && exec $s $p/sftp-server; done; exit 127'";

int disk_server(struct disk *disk, const struct ssh_channel_ops *ops, void *user,
		struct ssh_channel **channel)
{
	if (disk->sudo)
		return ssh_exec(disk->ssh, sudo_server, strlen(sudo_server), ops, user, channel);
	return ssh_subsystem(disk->ssh, "sftp", WINDOW, ops, user, channel);
}

static int open_channel(struct disk *disk)
{
	static const struct ssh_channel_ops channel_ops = {
		.data = channel_data, .drained = channel_drained, .closed = channel_closed,
	};
	static const struct sftp_pipe pipe = { .send = pipe_send, .queued = pipe_queued };
	static const struct sftp_events events = {
		.ready = sftp_greeted, .failed = sftp_is_broken,
	};
	int r;

	disk->said[0] = 0;
	r = disk_server(disk, &channel_ops, disk, &disk->channel);
	if (r < 0) {
		disk->channel = NULL;
		return r;
	}
	disk->state = DISK_OPENING;
	disk->sftp = sftp_create(disk->loop, &pipe, disk, &events, disk);
	return -EAGAIN;
}

int disk_ready(struct disk *disk)
{
	switch (disk->state) {
	case DISK_DETACHED:
		return -EHOSTDOWN;
	case DISK_CLOSED:
		return disk->retry_at ? disk->err.code : open_channel(disk);
	case DISK_OPENING:
		return -EAGAIN;
	case DISK_READY:
		return 0;
	}
	return -EHOSTDOWN;
}

int disk_lost(const struct disk *disk)
{
	if (disk->state == DISK_DETACHED)
		return -EHOSTDOWN;
	if (disk->state != DISK_READY)
		return -ESHUTDOWN;
	/* It has failed, and tells its calls before it tells us. */
	return sftp_is_ready(disk->sftp) ? 0 : sftp_why(disk->sftp)->code;
}

/* --- the connection --------------------------------------------------------------- */

void disk_attach(struct disk *disk, struct ssh *ssh, bool sudo)
{
	disk_detach(disk);
	disk->ssh = ssh;
	disk->sudo = sudo;
	disk->state = DISK_CLOSED;
	disk->retry_at = 0;
	stripe_attached(disk->stripe);
}

void disk_detach(struct disk *disk)
{
	if (disk->state == DISK_DETACHED)
		return;
	disk->state = DISK_DETACHED;
	disk->ssh = NULL;
	loop_timer_cancel(&disk->retry);
	disk->retry_at = 0;
	/* What the link hid is unknown: nothing may be told from memory. */
	disk->jobs++;
	drop_channel(disk, -EHOSTDOWN);
	wait_wake(&disk->news);
}

void disk_destroy(struct disk *disk)
{
	if (!disk)
		return;
	disk_detach(disk);
	scan_destroy(disk->scan);
	disk->scan = NULL;
	files_orphan(disk);
	stripe_destroy(disk->stripe);
	disk->stripe = NULL;
	listings_orphan(disk);
	loop_timer_cancel(&disk->expire);
	loop_timer_cancel(&disk->spoke);
	entry_forget_all(disk->root);
	disk_cache_unref(disk->cache);
	free(disk);
}

struct wait_list *disk_news(struct disk *disk)
{
	return &disk->news;
}

const struct err *disk_error(const struct disk *disk)
{
	return disk->sftp && sftp_why(disk->sftp)->code ? sftp_why(disk->sftp) : &disk->err;
}

struct entry *disk_root(struct disk *disk)
{
	return disk->root;
}

void disk_job_ended(struct disk *disk)
{
	disk->jobs++;
	files_new_epoch(disk);
}

bool disk_lend_names(struct disk *disk, bool yes)
{
	bool lent = disk->lent_at && clock_ms() - disk->lent_at < LENT_MS;

	disk->lend = yes;
	if (!yes)
		disk->lent_at = 0;
	return lent;
}

double disk_lend(struct disk *disk, double held)
{
	if (!disk->lend || held <= 0)
		return 0;
	disk->lent_at = clock_ms();
	return held;
}

static void spoke_on(struct loop_timer *t)
{
	struct disk *disk = container_of(t, struct disk, spoke);

	if (!disk->spoke_again)
		return;
	disk->spoke_again = false;
	disk->jobs++;
	loop_timer_set(disk->loop, t, SPOKE_MS, spoke_on);
}

/*
 * Who reads what a command says may look at once for what it has written. A command that
 * never stops talking would leave nothing to be remembered: then it is every SPOKE_MS.
 */
void disk_job_spoke(struct disk *disk)
{
	if (loop_timer_is_set(&disk->spoke)) {
		disk->spoke_again = true;
		return;
	}
	disk->jobs++;
	loop_timer_set(disk->loop, &disk->spoke, SPOKE_MS, spoke_on);
}

bool disk_in_use(const struct disk *disk)
{
	return !list_empty(&disk->files) || !list_empty(&disk->listings) ||
	       !list_empty(&disk->calls);
}
