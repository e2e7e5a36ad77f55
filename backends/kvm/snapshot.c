/*
 * Snapshots of a machine, the way back to one, its rest on the disk (suspend), and
 * machines that begin as copies of it. Each is an op of the machine (machine.h), and
 * one goes on at a time.
 *
 * snapshot   freeze; the layer that is left gets a name
 * restore    freeze, under a name that tells why; QEMU ends; a new layer over that
 *	      of the snapshot; QEMU starts from what was saved there
 * suspend    its memory goes into its own layer, which nobody writes to until it is
 *	      started from there; QEMU ends
 * clone      freeze; the new machine gets a layer over the one that is left
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "image.h"
#include "layer.h"
#include "log.h"
#include "machine.h"

const struct record_snapshot *snapshot_find(const struct machine *m, const char *name)
{
	for (size_t i = 0; i < m->rec.snapshot_count; i++)
		if (!strcmp(m->rec.snapshots[i].name, name))
			return &m->rec.snapshots[i];
	return NULL;
}

static void op_over(struct machine *m)
{
	m->op = OP_NONE;
	m->op_name[0] = '\0';
	layers_collect(m->kvm);
	machine_changed(m);
	news_after_op(m);
}

/* What all ops need: a machine that runs, stands still or is stopped, and nothing else to do. */
static int check(const struct machine *m, const char *what, struct err *err)
{
	bool fit = m->state == VM_UP || m->state == VM_PAUSED || m->state == VM_STOPPED;

	if (!fit || m->rec.stopping)
		return machine_refuse(m, what, err);
	if (freeze_unsettled(m))
		return err_set(err, -EBUSY, "cannot %s %s now: its QEMU does not answer", what,
			       m->rec.name);
	return machine_occupied(m, what, err);
}

/* --- snapshots ------------------------------------------------------------------- */

static int keep(struct machine *m, const char *name, const char *layer)
{
	struct record_snapshot *s = &m->rec.snapshots[m->rec.snapshot_count];

	snprintf(s->name, sizeof(s->name), "%s", name);
	snprintf(s->layer, sizeof(s->layer), "%s", layer);
	s->taken = wall_ms();
	m->rec.snapshot_count++;
	if (machine_save(m) == 0)
		return 0;
	m->rec.snapshot_count--;
	return -EIO;
}

static void snapshot_frozen(struct machine *m, const char *layer, const struct err *err)
{
	struct err why = *err;

	if (!why.code && keep(m, m->op_name, layer) < 0)
		err_set(&why, -EIO, "its record cannot be written");
	if (why.code) {
		err_prefix(&why, "the snapshot could not be taken");
		machine_trouble(m, "snapshot", &why);
	}
	op_over(m);
}

static int check_name(const char *name, struct err *err)
{
	static const char good[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

	if (!name[0] || strlen(name) > 63 || name[0] == '.' || name[0] == '-' ||
	    strspn(name, good) != strlen(name))
		return err_set(err, -EINVAL, "a snapshot's name is made of at most 63 letters, "
			       "digits, '.', '_' and '-', not \"%s\"", name);
	return 0;
}

int snapshot_take(struct machine *m, const char *name, struct err *err)
{
	int r = check_name(name, err);

	if (r == 0 && snapshot_find(m, name))
		r = err_set(err, -EEXIST, "%s has a snapshot %s already", m->rec.name, name);
	if (r == 0 && m->rec.snapshot_count + 1 >= SNAPSHOTS_MAX)
		r = err_set(err, -ENOSPC, "%s has %d snapshots already", m->rec.name,
			    SNAPSHOTS_MAX - 1);
	if (r == 0)
		r = check(m, "take a snapshot of", err);
	if (r < 0)
		return r;
	m->op = OP_SNAPSHOT;
	snprintf(m->op_name, sizeof(m->op_name), "%s", name);
	machine_ask(m, TODO_SNAPSHOT);
	return 0;
}

int snapshot_drop(struct machine *m, const char *name, struct err *err)
{
	const struct record_snapshot *s = snapshot_find(m, name);
	struct record before = m->rec;
	size_t i;
	int r;

	if (!s)
		return err_set(err, -ENOENT, "%s has no snapshot %s", m->rec.name, name);
	if (m->op == OP_RESTORE && !strcmp(m->op_name, name))
		return machine_busy(m, "drop that snapshot of", err);
	i = (size_t)(s - m->rec.snapshots);
	m->rec.snapshot_count--;
	memmove(&m->rec.snapshots[i], &m->rec.snapshots[i + 1],
		(m->rec.snapshot_count - i) * sizeof(*s));
	r = record_save(&m->rec, m->dir, err);
	if (r < 0) {
		m->rec = before;
		return r;
	}
	layers_collect(m->kvm);
	machine_changed(m);
	return 0;
}

void snapshot_each(const struct machine *m, void (*each)(void *, const struct vm_snapshot *),
		   void *user)
{
	for (size_t i = 0; i < m->rec.snapshot_count; i++) {
		const struct record_snapshot *s = &m->rec.snapshots[i];
		const struct vm_snapshot shown = {
			.name = s->name, .taken = s->taken, .size = layer_size(m->kvm, s->layer),
			.ready = true,
		};

		each(user, &shown);
	}
	if (m->op == OP_SNAPSHOT) {
		const struct vm_snapshot coming = { .name = m->op_name, .taken = wall_ms() };

		each(user, &coming);
	}
}

/* --- restore --------------------------------------------------------------------- */

static void restore_failed(struct machine *m, const struct err *err)
{
	struct err why = *err;

	err_prefix(&why, "the snapshot could not be restored");
	machine_trouble(m, "restore", &why);
	op_over(m);
}

/* Over the snapshot's layer from now on, and from what was saved there. */
static int move_to(struct machine *m, const struct record_snapshot *s)
{
	struct record before = m->rec;

	strcpy(m->rec.layer, m->making);
	m->rec.incoming[0] = '\0';
	if (layer_has_state(m->kvm, s->layer)) {
		char *folder = layer_folder(m->kvm, s->layer);

		snprintf(m->rec.incoming, sizeof(m->rec.incoming), "%s", folder);
		free(folder);
	}
	m->rec.phase = m->was_running || m->rec.incoming[0] ? PHASE_STARTING : PHASE_STOPPED;
	if (machine_save(m) == 0)
		return 0;
	m->rec = before;
	return -EIO;
}

/* The record first: what it led to before is garbage then. */
static void restore_disk_made(struct machine *m, const struct err *err)
{
	const struct record_snapshot *s = snapshot_find(m, m->op_name);
	struct err why = *err;

	if (!why.code && (!s || move_to(m, s) < 0))
		err_set(&why, -EIO, s ? "its record cannot be written" : "the snapshot is gone");
	m->making[0] = '\0';
	if (why.code) {
		restore_failed(m, &why);
		machine_stopped(m, &why);
		return;
	}
	run_release(m);		/* it is not what it was suspended as that comes back */
	op_over(m);
	if (m->rec.phase == PHASE_STOPPED) {
		machine_stopped(m, NULL);
		return;
	}
	machine_report(m, VM_BOOTING, NULL);
	run_start(m);
}

static void restore_disk(struct machine *m)
{
	const struct record_snapshot *s = snapshot_find(m, m->op_name);
	struct err err;

	if (make_disk(m, s->layer, restore_disk_made, &err) < 0)
		restore_disk_made(m, &err);
}

/* "before-NAME", or the first "before-NAME-N" that is free. */
static void name_present(const struct machine *m, char name[64])
{
	snprintf(name, 64, "before-%.50s", m->op_name);
	for (unsigned n = 2; snapshot_find(m, name); n++)
		snprintf(name, 64, "before-%.50s-%u", m->op_name, n);
}

static void restore_frozen(struct machine *m, const char *layer, const struct err *err)
{
	char name[64];
	struct err why = *err;

	name_present(m, name);
	if (!why.code && keep(m, name, layer) < 0)
		err_set(&why, -EIO, "its record cannot be written");
	if (why.code) {
		restore_failed(m, &why);
		return;
	}
	m->was_running = m->alive;
	if (m->alive)
		run_end(m, AFTER_RESTORE);
	else
		restore_disk(m);
}

int snapshot_restore(struct machine *m, const char *name, struct err *err)
{
	int r = 0;

	if (!snapshot_find(m, name))
		r = err_set(err, -ENOENT, "%s has no snapshot %s", m->rec.name, name);
	else if (m->rec.snapshot_count + 1 >= SNAPSHOTS_MAX)
		r = err_set(err, -ENOSPC, "%s has %d snapshots: drop one, so that its present can "
			    "be kept", m->rec.name, SNAPSHOTS_MAX - 1);
	else
		r = check(m, "restore a snapshot of", err);
	if (r < 0)
		return r;
	m->op = OP_RESTORE;
	snprintf(m->op_name, sizeof(m->op_name), "%s", name);
	machine_ask(m, TODO_RESTORE);
	return 0;
}

/* --- suspend ---------------------------------------------------------------------- */

static void all_sent(struct machine *m)
{
	/* It stays as it is: what follows is the end of its QEMU, or news_go_on. */
}

static void suspend_failed(struct machine *m, const struct err *err)
{
	struct err why = *err;

	m->rec.incoming[0] = '\0';
	err_prefix(&why, "it could not be suspended");
	news_go_on(m);
	machine_trouble(m, "suspend", &why);
	m->save_to[0] = '\0';
	op_over(m);
}

static void suspend_saved(struct machine *m, const struct err *err)
{
	char *folder = layer_folder(m->kvm, m->rec.layer);
	struct err why = *err;

	snprintf(m->rec.incoming, sizeof(m->rec.incoming), "%s", folder);
	free(folder);
	if (!why.code && machine_save(m) < 0)
		err_set(&why, -EIO, "its record cannot be written");
	if (why.code) {
		suspend_failed(m, &why);
		return;
	}
	uplink_keep(m);
	run_end(m, AFTER_SUSPEND);
}

static void suspend(struct machine *m)
{
	struct err err;

	m->was_running = m->state == VM_UP && !m->rec.paused;
	strcpy(m->save_to, m->rec.layer);
	if (save_start(m, m->rec.layer, all_sent, suspend_saved, &err) < 0)
		suspend_failed(m, &err);
}

int snapshot_suspend(struct machine *m, struct err *err)
{
	int r;

	if (m->state != VM_UP && m->state != VM_PAUSED)
		return machine_refuse(m, "suspend", err);
	r = check(m, "suspend", err);
	if (r == 0 && !m->rec.can_clone)
		r = err_set(err, -ENOSYS, "the image of %s was built by an earlier sbxfs-image: "
			    "its sandboxes cannot be suspended", m->rec.name);
	if (r == 0 && m->legacy)	/* the next QEMU has another network card */
		r = err_set(err, -EBUSY, "cannot suspend %s: an earlier sbxfs started it, and it "
			    "would not come back; restart it once before", m->rec.name);
	if (r == 0 && !m->rec.layer[0])
		r = err_set(err, -EBUSY, "%s was made by an earlier sbxfs: stop and start it once "
			    "before", m->rec.name);
	if (r < 0)
		return r;
	m->op = OP_SUSPEND;
	machine_ask(m, TODO_SUSPEND);
	return 0;
}

/* --- clones ------------------------------------------------------------------------- */

static void origin_failed(struct machine *m, const struct err *err)
{
	struct err why = *err;

	m->cloned_from = NULL;
	err_prefix(&why, "it could not be cloned");
	machine_failed(m, &why);
}

/* m gets its disk over that of layer, and goes on from what was saved there, if anything. */
static void begin_as_copy(struct machine *m, const struct machine *source, const char *layer)
{
	m->cloned_from = NULL;
	snprintf(m->origin, sizeof(m->origin), "%s", layer);
	snprintf(m->rec.accel, sizeof(m->rec.accel), "%s", source->rec.accel);
	if (layer_has_state(m->kvm, layer)) {
		char *folder = layer_folder(m->kvm, layer);

		snprintf(m->rec.incoming, sizeof(m->rec.incoming), "%s", folder);
		free(folder);
	}
	make_files(m);
}

static struct machine *who_waits(const struct machine *source)
{
	struct machine *m, *next;

	HASH_ITER (hh, source->kvm->machines, m, next)
		if (m->cloned_from == source)
			return m;
	return NULL;
}

static void origin_frozen(struct machine *source, const char *layer, const struct err *err)
{
	struct machine *m;

	source->op = OP_NONE;
	while ((m = who_waits(source))) {
		if (err->code)
			origin_failed(m, err);
		else
			begin_as_copy(m, source, layer);
	}
	op_over(source);
}

/* Its disk must have stopped changing; of several that ask at once all get the same present. */
static int origin_present(struct machine *m, struct machine *source, struct err *err)
{
	int r;

	if (source->op == OP_ORIGIN && source->frozen) {
		m->cloned_from = source;
		return 0;
	}
	r = check(source, "clone", err);
	if (r == 0) {
		source->op = OP_ORIGIN;
		m->cloned_from = source;
		r = freeze_start(source, origin_frozen, err);
		if (r < 0)
			op_over(source);
	}
	return r;
}

void snapshot_origin(struct machine *m)
{
	struct machine *source = machine_find(m->kvm, m->rec.spec.from);
	const struct record_snapshot *s;
	struct err err;
	int r = 0;

	s = source ? snapshot_find(source, m->rec.spec.from_snapshot) : NULL;
	if (!source)
		r = err_set(&err, -ENOENT, "there is no sandbox %s", m->rec.spec.from);
	else if (s)
		begin_as_copy(m, source, s->layer);
	else if (m->rec.spec.from_snapshot[0])
		r = err_set(&err, -ENOENT, "%s has no snapshot %s", m->rec.spec.from,
			    m->rec.spec.from_snapshot);
	else
		r = origin_present(m, source, &err);
	if (r < 0)
		origin_failed(m, &err);
}

/* --- from the loop ------------------------------------------------------------------ */

void snapshot_go_on(struct machine *m, enum todo todo)
{
	struct err err;

	if (m->op == OP_NONE)
		return;			/* it was abandoned in this moment */
	if (todo == TODO_SUSPEND)
		suspend(m);
	else if (todo == TODO_SNAPSHOT && freeze_start(m, snapshot_frozen, &err) < 0)
		snapshot_frozen(m, "", &err);
	else if (todo == TODO_RESTORE && freeze_start(m, restore_frozen, &err) < 0)
		restore_failed(m, &err);
}

void snapshot_ended(struct machine *m)
{
	if (m->op == OP_RESTORE) {
		restore_disk(m);
		return;
	}
	m->save_to[0] = '\0';
	op_over(m);
	machine_stopped(m, NULL);
}

void snapshot_abandon(struct machine *m, const struct err *why)
{
	enum op op = m->op;
	struct machine *waiting;

	if (op == OP_NONE)
		return;
	freeze_cancel(m);
	make_cancel(m);
	while ((waiting = who_waits(m)))
		origin_failed(waiting, why);
	if (op == OP_SNAPSHOT)
		machine_trouble(m, "snapshot", why);
	else if (op == OP_RESTORE)
		machine_trouble(m, "restore", why);
	else if (op == OP_SUSPEND)
		machine_trouble(m, "suspend", why);
	op_over(m);
}
