/*
 * News of a machine: what its guest says on the identity port and its QEMU over
 * QMP, and what follows from it. run.c starts and ends the process.
 *
 * VM_UP follows when the guest said that sshd listens and the network (uplink.c) said
 * which port leads there, in any order.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "buf.h"
#include "err.h"
#include "identity.h"
#include "json.h"
#include "layer.h"
#include "log.h"
#include "machine.h"
#include "process.h"
#include "qemu_args.h"
#include "qmp.h"
#include "sock.h"

#define ROOM_BYTES (256ull << 20)	/* on a disk that was full, to go on */

/* --- being up ------------------------------------------------------------------ */

static void perhaps_up(struct machine *m)
{
	if (m->state != VM_BOOTING || !m->guest_ready || !m->rec.port ||
	    m->after != AFTER_UNASKED)
		return;
	loop_timer_cancel(&m->deadline);
	run_note_accel(m);
	machine_stage(m, STAGE_UP);
	m->rec.ready = true;
	m->rec.cloning = false;
	m->crashed = false;
	machine_save(m);
	machine_report(m, VM_UP, NULL);
	template_make_like(m);
	pool_check(m->kvm);
}

void news_reached(struct machine *m)
{
	perhaps_up(m);
}

static void booting_again(struct machine *m)
{
	m->guest_ready = false;
	if (m->after != AFTER_UNASKED || m->state == VM_BOOTING)
		return;		/* who has never been ready gets no more time */
	m->rec.ready = false;
	machine_save(m);
	machine_report(m, VM_BOOTING, NULL);
	run_await_boot(m);
}

/* It boots: a copy no longer, nor what it was when it was suspended. Once, it gets the time. */
static void memory_lost(struct machine *m)
{
	struct err err;

	m->rec.cloning = false;
	if (m->after != AFTER_UNASKED)
		return;
	err_set(&err, -EIO, "its saved memory is lost, for the guest restarted before it was ready");
	snprintf(m->rec.start_why, sizeof(m->rec.start_why), "%s", err.text);
	machine_save(m);
	machine_trouble(m, "start", &err);
	run_await_boot(m);
}

/*
 * The machine was reset. A guest whose kernel died does that itself, for it is
 * told panic=-1, and would do so for ever; the console tells it from a reboot. (A
 * kernel that has the driver of pvpanic is heard by panicked() before.)
 */
static void reset_seen(struct machine *m, bool by_guest)
{
	char said[160];
	struct err err;

	if (by_guest && machine_panicked(m, said, sizeof(said))) {
		err_set(&err, -EIO, "the guest's kernel died: %s", said);
		run_give_up(m, &err);
	} else if (m->rec.cloning) {
		memory_lost(m);
	}
	machine_mark_console(m);
	booting_again(m);
}

/* --- the identity port ----------------------------------------------------------- */

static void guest_word(void *user, enum identity_word word, const char *value)
{
	struct machine *m = user;
	struct err err;

	switch (word) {
	case IDENTITY_NOTHING:
		break;
	case IDENTITY_CAN_CLONE:
		m->rec.can_clone = true;	/* saved with what follows */
		break;
	case IDENTITY_SYNCED:
		freeze_word(m, word);
		break;
	case IDENTITY_FROZEN:
		if (m->hidden)
			m->hidden->word(m, word);
		break;
	case IDENTITY_HELLO_NEW:
		log_debug("vm=%s guest asks for its identity", m->rec.name);
		if (m->rec.cloning)	/* and nobody has seen the reset */
			memory_lost(m);
		if (m->guest_ready)	/* it booted while nobody watched */
			booting_again(m);
		break;
	case IDENTITY_HELLO_READY:
		if (m->rec.incoming[0] || m->rec.cloning)
			break;			/* as whom it was saved */
		/* fall through */
	case IDENTITY_CLONED:
	case IDENTITY_READY:
		m->guest_ready = true;
		perhaps_up(m);
		break;
	case IDENTITY_FAILED:
		err_set(&err, -EIO, "the guest could not take its identity: %s", value);
		run_give_up(m, &err);
		break;
	}
}

/* A file of the VM, or its first line, in a buffer that is wiped by who handed it to us. */
static const char *keep_file(struct machine *m, struct buf *keep, const char *file, bool line)
{
	char *text = machine_read(m, file), *at;
	size_t len;

	if (!text)
		return NULL;
	len = line ? strcspn(text, "\n") : strlen(text);
	at = (char *)buf_reserve(keep, len + 1);
	memcpy(at, text, len);
	at[len] = '\0';
	buf_commit(keep, len + 1);
	explicit_bzero(text, strlen(text));
	free(text);
	return at;
}

static int guest_facts(void *user, struct identity_facts *facts, struct buf *keep)
{
	struct machine *m = user;

	/* All of it fits: the buffer must not move while there are pointers into it. */
	buf_reserve(keep, 3 * 8192);
	facts->hostname = m->rec.spec.name[0] ? m->rec.spec.name : m->rec.name;
	facts->disk_size = m->resize ? m->rec.spec.disk : 0;
	facts->machine_id = m->rec.machine_id;
	facts->authorized_key = keep_file(m, keep, FILE_CLIENT_KEY ".pub", true);
	facts->host_key_public = keep_file(m, keep, FILE_HOST_KEY ".pub", true);
	facts->host_key = keep_file(m, keep, FILE_HOST_KEY, false);
	if (facts->authorized_key && facts->host_key_public && facts->host_key)
		return 0;
	log_error("vm=%s its keys in %s cannot be read", m->rec.name, m->dir);
	return -EIO;
}

static const struct identity_events guest_events = { guest_word, guest_facts };

/* --- QMP --------------------------------------------------------------------------- */

static void look_for_room(struct loop_timer *t)
{
	struct machine *m = container_of(t, struct machine, full);
	struct statvfs fs;

	if (!m->qmp)
		return;
	/* (While its memory is saved it must not take a step: its disk is frozen already.) */
	if (m->op == OP_NONE && !statvfs(m->dir, &fs) &&
	    (uint64_t)fs.f_bavail * fs.f_frsize >= ROOM_BYTES)
		qmp_command(m->qmp, "cont", NULL, NULL, NULL);
	else
		loop_timer_set(m->kvm->loop, t, FULL_DISK_MS, look_for_room);
}

/* One that boots goes on booting, for all that anybody can tell, but without a deadline. */
static void paused(struct machine *m, bool disk_error)
{
	struct err why = ERR_NONE;

	if (m->after != AFTER_UNASKED || m->op != OP_NONE)
		return;
	if (disk_error) {
		err_set(&why, -ENOSPC, "the host's disk is full: paused until %s has %llu MiB free",
			m->kvm->state_dir, ROOM_BYTES >> 20);
		loop_timer_set(m->kvm->loop, &m->full, FULL_DISK_MS, look_for_room);
	}
	loop_timer_cancel(&m->deadline);
	if (m->state == VM_UP)
		machine_report(m, VM_PAUSED, &why);
}

static void running(struct machine *m)
{
	if (m->after != AFTER_UNASKED)
		return;
	if (m->state == VM_PAUSED)
		machine_report(m, VM_UP, NULL);
	else if (m->state == VM_BOOTING && !loop_timer_is_set(&m->deadline))
		run_await_boot(m);
}

static void panicked(struct machine *m)
{
	char said[160];
	struct err err;

	machine_console_end(m, said, sizeof(said));
	err_set(&err, -EIO, "the guest's kernel died: %s", said);
	m->trial = m->trial && !m->rec.ready;
	run_give_up(m, &err);
}

/* --- a saved state -------------------------------------------------------------------- */

static cJSON *named(const char *key, const char *value)
{
	cJSON *j = cJSON_CreateObject();

	cJSON_AddStringToObject(j, key, value);
	return j;
}

void news_want_migration(struct machine *m)
{
	cJSON *one = named("capability", "events"), *list = cJSON_CreateArray();
	cJSON *args = cJSON_CreateObject();

	cJSON_AddBoolToObject(one, "state", true);
	cJSON_AddItemToArray(list, one);
	cJSON_AddItemToObject(args, "capabilities", list);
	qmp_command(m->qmp, "migrate-set-capabilities", args, NULL, NULL);
}

void news_go_on(struct machine *m)
{
	if (!m->was_running)
		return;
	machine_still(m, false);
	if (!run_reachable(m))
		return;
	qmp_command(m->qmp, "cont", NULL, NULL, NULL);
	if (m->port)
		identity_send_clock(m->port);
}

/* Its disk may have been made larger than its memory knows; the guest hears of it as it wakes. */
static void grow_disk(struct machine *m)
{
	cJSON *j = cJSON_CreateObject();
	char node[24];

	machine_node(m, node);
	cJSON_AddStringToObject(j, "node-name", node);
	cJSON_AddNumberToObject(j, "size", (double)m->rec.spec.disk);
	qmp_command(m->qmp, "block_resize", j, NULL, NULL);
}

/*
 * It stands where it was saved. That it has begun is written down before it takes
 * the first step: from then on what was saved no longer fits its disk.
 */
static void arrived(struct machine *m)
{
	bool template = !strcmp(m->rec.base, m->rec.incoming);
	char from[PATH_MAX];

	strcpy(from, m->rec.incoming);
	m->resize = template && template_disk(m->rec.base) < m->rec.spec.disk;
	machine_stage(m, STAGE_STATE);
	m->rec.incoming[0] = '\0';
	m->rec.cloning = m->rec.can_clone = true;
	m->loading = false;
	if (machine_save(m) < 0) {	/* it has not, then, and can do so another time */
		strcpy(m->rec.incoming, from);
		m->rec.cloning = false;
		err_set(&m->why, -EIO, "its record cannot be written");
		run_end(m, AFTER_FAIL);
		return;
	}
	layers_collect(m->kvm);
	if (m->resize)
		grow_disk(m);
	qmp_command(m->qmp, "cont", NULL, NULL, NULL);
	if (m->hidden && m->hidden->arrived)
		m->hidden->arrived(m);
	else if (m->port)
		identity_send_clone(m->port);
}

static void load_failed(struct machine *m, const struct err *err)
{
	if (m->loading)
		run_give_up(m, err);
}

static void load_answered(void *user, const cJSON *result, const struct err *err)
{
	if (err)
		load_failed(user, err);
}

static void load(struct machine *m)
{
	char *path = xasprintf("%s/" LAYER_STATE, m->rec.incoming);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct err err;

	m->loading = true;
	if (fd < 0) {
		err_sys(&err, -errno, "cannot read %s", path);
		load_failed(m, &err);
	} else {
		news_want_migration(m);
		qmp_command_fd(m->qmp, "getfd", named("fdname", "load"), fd, load_answered, m);
		qmp_command(m->qmp, "migrate-incoming", named("uri", "fd:load"), load_answered, m);
	}
	free(path);
}

/* It says why in its log, in a line or two, before it tells us; the log begins with each start. */
static void not_taken(struct machine *m)
{
	char *said = machine_read(m, FILE_QEMU_LOG);
	struct err err;

	for (size_t n = said ? strlen(said) : 0; n > 0 && said[n - 1] == '\n'; n--)
		said[n - 1] = '\0';
	err_set(&err, -EIO, "QEMU does not take it%s%.600s", said ? ": " : "", said ? said : "");
	free(said);
	load_failed(m, &err);
}

static void migration_seen(struct machine *m, const char *status)
{
	if (m->save) {
		save_event(m, status);
	} else if (m->loading && !strcmp(status, "completed")) {
		arrived(m);
	} else if (m->loading && !strcmp(status, "failed")) {
		not_taken(m);
	}
}

/* Its CPUs stand still: where it arrived, on request, or for an op that a crash has cut short. */
static void stands_still(struct machine *m)
{
	if (m->after != AFTER_UNASKED || m->op != OP_NONE)
		return;
	if (m->rec.incoming[0] && !m->rec.ready) {
		if (!m->loading)
			arrived(m);
	} else if (m->rec.paused) {
		paused(m, false);
	} else if (!loop_timer_is_set(&m->full)) {
		log_info("vm=%s stood still and nobody had asked for it: it goes on", m->rec.name);
		m->was_running = true;
		news_go_on(m);
	}
}

static void take_status(void *user, const cJSON *result, const struct err *err)
{
	struct machine *m = user;
	const char *status = json_string(result, "status");
	struct err why;

	if (err)
		return;
	if (m->state == VM_BOOTING && !m->stages[STAGE_QEMU])
		machine_stage(m, STAGE_QEMU);
	if (!strcmp(status, "running")) {
		running(m);
	} else if (!strcmp(status, "inmigrate")) {
		if (m->rec.incoming[0] && !m->loading)
			load(m);
	} else if (!strcmp(status, "suspended")) {
		paused(m, false);
	} else if (!strcmp(status, "finish-migrate")) {
		if (m->op == OP_NONE)	/* cut short by a crash: it will be paused in a moment */
			qmp_command(m->qmp, "query-status", NULL, take_status, m);
	} else if (!strcmp(status, "paused") || !strcmp(status, "postmigrate")) {
		stands_still(m);
	} else if (!strcmp(status, "io-error")) {
		paused(m, true);
	} else if (!strcmp(status, "guest-panicked")) {
		panicked(m);
	} else if (!strcmp(status, "internal-error")) {
		err_set(&why, -EIO, machine_kvm(m) ? "KVM ended the guest with an internal error" :
						"QEMU ended the guest with an internal error");
		run_give_up(m, &why);
	}
}

/* What it said of its CPUs while an op went on was not listened to. */
void news_after_op(struct machine *m)
{
	if (run_reachable(m))
		qmp_command(m->qmp, "query-status", NULL, take_status, m);
}

/* A crash has left open which layer it writes to. */
static void take_disk(void *user, const cJSON *result, const struct err *err)
{
	const cJSON *inserted;
	struct machine *m = user;

	if (err || m->op != OP_NONE)
		return;
	inserted = cJSON_GetObjectItemCaseSensitive(cJSON_GetArrayItem(result, 0), "inserted");
	freeze_settle(m, json_string(inserted, "file"));
}

static void qmp_event(void *user, const char *name, const cJSON *data)
{
	struct machine *m = user;

	log_debug("vm=%s qmp event %s %s", m->rec.name, name, json_string(data, "reason"));
	if (!strcmp(name, "STOP"))
		qmp_command(m->qmp, "query-status", NULL, take_status, m);
	else if (!strcmp(name, "RESUME"))
		running(m);
	else if (!strcmp(name, "RESET"))
		reset_seen(m, json_bool(data, "guest"));
	else if (!strcmp(name, "MIGRATION"))
		migration_seen(m, json_string(data, "status"));
	else if (!strcmp(name, "SHUTDOWN"))
		snprintf(m->shutdown, sizeof(m->shutdown), "%s", json_string(data, "reason"));
	else if (!strcmp(name, "GUEST_PANICKED"))
		panicked(m);
}

static void qmp_lost(void *user, const struct err *why)
{
	struct machine *m = user;

	log_debug("vm=%s %s", m->rec.name, why->text);
	save_lost(m, why);
	qmp_close(m->qmp);
	m->qmp = NULL;
}

static const struct qmp_events qmp_news = { qmp_event, qmp_lost };

static int connect_to(const struct machine *m, const char *end)
{
	char *name = machine_socket(m, end);
	struct err err;
	int fd = sock_connect(m->rec.run_dir, name, &err);

	if (fd < 0)
		log_warn("vm=%s %s", m->rec.name, err.text);
	free(name);
	return fd;
}

/* Without these the VM can still be used, and ended by signals. */
void news_connect(struct machine *m)
{
	int fd = connect_to(m, "qmp");

	if (fd >= 0 && qmp_open(&m->qmp, m->kvm->loop, fd, &qmp_news, m, NULL) == 0) {
		if (m->rec.next_layer[0])
			qmp_command(m->qmp, "query-block", NULL, take_disk, m);
		qmp_command(m->qmp, "query-status", NULL, take_status, m);
	}
	fd = connect_to(m, "id");
	if (fd >= 0)
		identity_open(&m->port, m->kvm->loop, fd, &guest_events, m, NULL);
	if (m->port && m->rec.cloning)
		identity_send_clone(m->port);	/* again: a crash came between */
}

void news_disconnect(struct machine *m)
{
	qmp_close(m->qmp);
	m->qmp = NULL;
	identity_close(m->port);
	m->port = NULL;
	m->guest_ready = false;
	loop_timer_cancel(&m->full);
}
