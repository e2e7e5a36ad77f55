/*
 * The present of a machine, made lasting: what snapshots, restores and clones begin
 * with.
 *
 *   a new layer over its own is made  ->  the guest syncs (if it runs)  ->  its CPUs
 *   stop  ->  QEMU writes to the new layer  ->  its memory goes into the old one  ->
 *   its CPUs go on, if they ran  ->  the files are on the disk
 *
 * Of a machine that does not run, the first step and a word in the record are all.
 *
 * Crashes: rec.next_layer is written when the new layer is ready and before QEMU
 * hears of it. Whoever finds it there asks QEMU on which file it works; when there is
 * no QEMU any more, the new layer is right in any case, since it is empty when QEMU
 * has not got so far.
 *
 * A QEMU that hangs: what was asked for has failed after ANSWER_MS, and QEMU may switch all the
 * same when it comes to it; "cont" is waiting behind that then. rec.next_layer stays until it
 * has answered, or has ended, and nothing of this kind can begin.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "layer.h"
#include "log.h"
#include "machine.h"
#include "qmp.h"

static void layer_ready(struct machine *m, const struct err *err);

/* --- the end ------------------------------------------------------------------- */

static void finish(struct machine *m, const struct err *err)
{
	void (*frozen)(struct machine *, const char *, const struct err *) = m->frozen;
	char layer[LAYER_ID];

	strcpy(layer, m->save_to);
	loop_timer_cancel(&m->sync);
	loop_timer_cancel(&m->switching);
	m->frozen = NULL;
	m->making[0] = '\0';
	/* It stays in save_to during the call, so that nobody takes its layer for garbage. */
	frozen(m, layer, err);
	m->save_to[0] = '\0';
}

static void fail(struct machine *m, const struct err *err)
{
	struct err copy = *err;

	news_go_on(m);
	finish(m, &copy);
}

void freeze_cancel(struct machine *m)
{
	save_cancel(m);
	loop_timer_cancel(&m->sync);
	loop_timer_cancel(&m->switching);
	m->frozen = NULL;
	m->making[0] = m->save_to[0] = '\0';
}

/* --- memory ---------------------------------------------------------------------- */

/* It may stand still yet, if it could not be saved. */
static void memory_saved(struct machine *m, const struct err *err)
{
	if (err->code)
		fail(m, err);
	else
		finish(m, err);
}

static void save_memory(struct machine *m)
{
	struct err err;

	if (save_start(m, m->save_to, news_go_on, memory_saved, &err) < 0)
		fail(m, &err);
}

/* --- the disk -------------------------------------------------------------------- */

static int move_to(struct machine *m, const char *layer)
{
	memmove(m->rec.layer, layer, sizeof(m->rec.layer));
	m->rec.next_layer[0] = '\0';
	return machine_save(m);
}

bool freeze_unsettled(const struct machine *m)
{
	return m->alive && m->rec.next_layer[0];
}

static void settle(struct machine *m, bool switched)
{
	move_to(m, switched ? m->rec.next_layer : m->rec.layer);
	layers_collect(m->kvm);
}

static void switched(void *user, const struct cJSON *result, const struct err *err)
{
	struct machine *m = user;
	bool waited = loop_timer_is_set(&m->switching);
	bool lost = err && err->code != -EIO;	/* it is not QEMU who says no: nobody knows */

	loop_timer_cancel(&m->switching);
	if (!lost && m->rec.next_layer[0])
		settle(m, !err);
	if (!waited) {			/* too late, or given up */
		if (m->port)
			identity_send_clock(m->port);
		return;
	}
	if (err) {
		fail(m, err);
	} else if (m->rec.can_clone) {
		save_memory(m);
	} else {
		/* A guest of an earlier sbxfs-image would not notice: its disk has to do. */
		news_go_on(m);
		finish(m, &(struct err){ 0 });
	}
}

static void switch_overdue(struct loop_timer *t)
{
	struct machine *m = container_of(t, struct machine, switching);
	struct err err;

	err_set(&err, -ETIMEDOUT, "QEMU did not answer within %d s, and stands still",
		ANSWER_MS / 1000);
	fail(m, &err);
}

static void switch_disk(struct machine *m)
{
	char *file = layer_file(m->kvm, m->making, LAYER_DISK);
	cJSON *j = cJSON_CreateObject();
	char node[24], next[24];

	machine_node(m, node);
	snprintf(next, sizeof(next), "layer-%s", m->making);
	cJSON_AddStringToObject(j, "node-name", node);
	cJSON_AddStringToObject(j, "snapshot-file", file);
	cJSON_AddStringToObject(j, "snapshot-node-name", next);
	cJSON_AddStringToObject(j, "format", "qcow2");
	cJSON_AddStringToObject(j, "mode", "existing");
	machine_still(m, true);
	loop_timer_set(m->kvm->loop, &m->switching, ANSWER_MS, switch_overdue);
	qmp_command(m->qmp, "stop", NULL, NULL, NULL);
	qmp_command(m->qmp, "blockdev-snapshot-sync", j, switched, m);
	free(file);
}

static void stand_still(struct machine *m)
{
	struct err err;

	loop_timer_cancel(&m->sync);
	if (!run_reachable(m)) {
		err_set(&err, -EAGAIN, "its QEMU cannot be reached");
		finish(m, &err);
		return;
	}
	strcpy(m->rec.next_layer, m->making);
	if (machine_save(m) < 0) {
		err_set(&err, -EIO, "its record cannot be written");
		m->rec.next_layer[0] = '\0';
		finish(m, &err);
		return;
	}
	switch_disk(m);
}

void freeze_settle(struct machine *m, const char *file)
{
	char *next = layer_file(m->kvm, m->rec.next_layer, LAYER_DISK);

	settle(m, !strcmp(file, next));
	free(next);
}

void freeze_settle_dead(struct machine *m)
{
	if (m->rec.next_layer[0])
		strcpy(m->rec.layer, m->rec.next_layer);
	m->rec.next_layer[0] = '\0';
}

/* --- the guest ------------------------------------------------------------------- */

static void sync_overdue(struct loop_timer *t)
{
	struct machine *m = container_of(t, struct machine, sync);

	/* Its memory is saved too, with all that is not on the disk. */
	log_warn("vm=%s did not sync within %d s", m->rec.name, SYNC_MS / 1000);
	stand_still(m);
}

void freeze_word(struct machine *m, enum identity_word word)
{
	if (word == IDENTITY_SYNCED && m->frozen && loop_timer_is_set(&m->sync))
		stand_still(m);
}

static void layer_ready(struct machine *m, const struct err *err)
{
	struct err why;

	if (err->code) {
		finish(m, err);
	} else if (!m->alive) {
		err_set(&why, -EIO, "its record cannot be written");
		if (move_to(m, m->making) == 0)
			why = ERR_NONE;
		finish(m, &why);
	} else if (m->was_running && m->rec.can_clone && m->port) {
		loop_timer_set(m->kvm->loop, &m->sync, SYNC_MS, sync_overdue);
		identity_send(m->port, "sync");
	} else {
		stand_still(m);
	}
}

/* --- the beginning ------------------------------------------------------------------ */

/* A disk of before there were layers: by a second name first, for a crash may come between. */
static int adopt_disk(struct machine *m, struct err *err)
{
	char *old = machine_path(m, FILE_DISK), *new = NULL;
	int r;

	if (m->alive) {
		free(old);
		return err_set(err, -EBUSY, "%s was made by an earlier sbxfs: stop and start it "
			       "once before", m->rec.name);
	}
	r = layer_make(m->kvm, "", m->making, err);
	if (r == 0) {
		new = layer_file(m->kvm, m->making, LAYER_DISK);
		if (link(old, new) < 0)
			r = err_sys(err, -errno, "cannot link %s", old);
	}
	if (r == 0 && move_to(m, m->making) < 0)
		r = err_set(err, -EIO, "its record cannot be written");
	if (r == 0)
		unlink(old);
	free(new);
	free(old);
	return r;
}

int freeze_start(struct machine *m, void (*frozen)(struct machine *, const char *layer,
						   const struct err *), struct err *err)
{
	int r = 0;

	if (m->alive && !run_reachable(m))
		return err_set(err, -EAGAIN, "the QEMU of %s cannot be reached", m->rec.name);
	if (!m->rec.layer[0])
		r = adopt_disk(m, err);
	if (r < 0)
		return r;
	m->was_running = m->state == VM_UP && !m->rec.paused;
	strcpy(m->save_to, m->rec.layer);
	m->frozen = frozen;
	r = make_disk(m, m->rec.layer, layer_ready, err);
	if (r < 0)
		freeze_cancel(m);
	return r;
}
