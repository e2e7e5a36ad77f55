/*
 * The trash: what rmdir removed, or its ttl, is stopped and kept for [limits] trash,
 * where the backend can keep it (BACKEND_CAP_KEEP). There it is called NAME@TIME.
 *
 *   shown -> (stop) in the trash -> destroying -> gone
 *                    -> shown again, and started when it ran before
 *
 * The record says where it is; that it is stopped is asked for until the backend has said
 * so (trash_keep_stopped), also by the daemon that comes after.
 */
#include "vm_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "log.h"
#include "news.h"

/* --- names -------------------------------------------------------------------- */

static void name_print(const struct record *r, char out[96])
{
	time_t seconds = r->trashed / 1000;
	struct tm tm;
	char when[32];

	gmtime_r(&seconds, &tm);
	strftime(when, sizeof(when), "%Y%m%dT%H%M%SZ", &tm);
	snprintf(out, 96, "%s@%s", r->name, when);
}

void vm_trash_name(const struct vm *vm, char out[96])
{
	name_print(&vm->record, out);
}

const char *vm_label(struct vm *vm)
{
	if (!vm->record.trashed)
		return vm->record.name;
	vm_trash_name(vm, vm->label);
	return vm->label;
}

struct vm *fleet_trash_find(struct fleet *f, const char *name)
{
	struct vm *vm, *next;
	char its[96];

	HASH_ITER(hh, f->vms, vm, next) {
		if (!vm->record.trashed)
			continue;
		vm_trash_name(vm, its);
		if (!strcmp(its, name))
			return vm;
	}
	return NULL;
}

static int by_time(const struct vm *a, const struct vm *b)
{
	return a->record.trashed < b->record.trashed ? -1 : a->record.trashed > b->record.trashed;
}

void fleet_trash_each(struct fleet *f, void (*each)(void *user, struct vm *), void *user)
{
	struct vm *vm, *next;

	HASH_SORT(f->vms, by_time);
	HASH_ITER(hh, f->vms, vm, next)
		if (vm->record.trashed)
			each(user, vm);
}

struct vm *trash_oldest(struct fleet *f, const struct backend *of)
{
	struct vm *vm, *next, *oldest = NULL;

	HASH_ITER(hh, f->vms, vm, next)
		if (vm->record.trashed && !vm->record.destroying && vm->backend &&
		    (!of || vm->backend == of) && (!oldest || by_time(vm, oldest) < 0))
			oldest = vm;
	return oldest;
}

/* --- in ------------------------------------------------------------------------ */

bool trash_takes(const struct vm *vm)
{
	return vm->fleet->limits.trash > 0 && !vm->record.trashed && vm->record.made &&
	       (vm_caps(vm) & BACKEND_CAP_KEEP) && vm->state != VM_CREATING;
}

int trash_put(struct vm *vm, struct err *err)
{
	struct fleet *f = vm->fleet;
	struct record r = vm->record;
	char name[96];
	int result;

	r.trashed = wall_ms();
	name_print(&r, name);
	while (fleet_trash_find(f, name)) {	/* names are whole seconds */
		r.trashed += 1000;
		name_print(&r, name);
	}
	r.was_running = vm->state == VM_UP || vm->state == VM_BOOTING || vm->state == VM_PAUSED ||
			vm->starting || r.revive;
	r.revive = false;
	result = store_write(f->vms_dir, &r, err);
	if (result == -ENOSPC || result == -EDQUOT)
		log_warn("vm=%s removed without a note of it: %s", vm_name(vm), err->text);
	else if (result < 0)
		return result;
	fleet_hide_name(f, vm);
	vm->record = r;
	news_trashed(vm);
	vm_close(vm, "the sandbox lies in the trash");
	life_attend(vm);
	return 0;
}

void trash_keep_stopped(struct vm *vm)
{
	const struct backend_ops *ops = vm->backend->ops;
	struct err err = ERR_NONE;

	if (vm->state != VM_UP && vm->state != VM_BOOTING && vm->state != VM_PAUSED)
		return;
	if (vm->stop_asked && clock_ms() - vm->stop_asked < 10000)
		return;
	vm->stop_asked = clock_ms();
	if (!ops->stop)
		err_set(&err, -ENOSYS, "backend %s cannot stop it", ops->name);
	if (!ops->stop || ops->stop(vm->backend, vm_id(vm), &err) < 0)
		vm_set_error(vm, "stop", "", &err);
	else
		vm->stop_taken = true;
}

/* --- out ------------------------------------------------------------------------ */

void trash_revive(struct vm *vm)
{
	struct record r = vm->record;
	struct err err = ERR_NONE;

	if (vm->state != VM_STOPPED && vm->state != VM_FAILED && vm->stop_taken)
		return;		/* it is still being stopped: its backend will tell */
	r.revive = false;
	if (vm_update(vm, &r, &err) < 0 || (vm->state == VM_STOPPED && vm_start(vm, &err) < 0))
		vm_set_error(vm, "start", "", &err);
	vm_reopen(vm);
}

int fleet_restore(struct vm *vm, const char *name, struct err *err)
{
	struct fleet *f = vm->fleet;
	struct record r = vm->record;
	struct fleet_usage more = { .sandboxes = 1 };
	char was[96];
	int result = vm->record.destroying ?
		err_set(err, -EBUSY, "it is being destroyed already") : 0;

	if (result == 0 && !vm->backend)
		result = err_set(err, -ENODEV, "its backend %s is not configured", r.backend);
	if (result == 0)
		result = fleet_name_free(f, vm->backend, name, err);
	if (result < 0)
		return result;
	if (f->limits.age && !r.foreign && r.created + f->limits.age <= wall_ms())
		return err_set(err, -EDQUOT, "it is older than [limits] age lets a sandbox be");
	if (r.was_running && !vm_takes_memory(vm))
		more.memory = r.spec.memory;
	result = limits_admit(f, vm->backend, name, &more, err);
	if (result == 0 && strcmp(name, r.name) && vm->backend->ops->rename)
		result = vm->backend->ops->rename(vm->backend, vm_id(vm), name, err);
	if (result < 0)
		return result;
	snprintf(r.name, sizeof(r.name), "%s", name);
	r.trashed = 0;
	r.revive = r.was_running;
	r.was_running = false;
	r.expires = r.ttl ? wall_ms() + r.ttl : 0;
	result = store_write(f->vms_dir, &r, err);
	if (result < 0)
		return result;
	vm_trash_name(vm, was);
	vm->record = r;
	vm->error = ERR_NONE;
	fleet_show_name(f, vm);
	news_restored(vm, was);
	life_used(vm);
	life_attend(vm);
	vm_touch(vm);
	return 0;
}

/* --- for good --------------------------------------------------------------------- */

int trash_drop(struct vm *vm, const char *why, struct err *err)
{
	struct err own = ERR_NONE;
	int r;

	vm_ref(vm);
	log_info("vm=%s dropped: %s", vm_label(vm), why);
	r = vm_destroy(vm, err ? err : &own);
	if (r < 0)
		log_warn("vm=%s %s", vm_name(vm), err ? err->text : own.text);
	vm_unref(vm);
	return r;
}

void trash_pressure(struct fleet *f)
{
	struct vm *vm, *next, *oldest;

	/* One at a time: what the next one is worth shows when it is gone. */
	HASH_ITER(hh, f->vms, vm, next)
		if (vm->record.trashed && vm->record.destroying && vm->state != VM_FAILED)
			return;
	oldest = trash_oldest(f, NULL);
	if (oldest && limits_disk_is_low(f))
		trash_drop(oldest, "the host's disk is nearly full", NULL);
}
