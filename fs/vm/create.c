/*
 * Sandboxes come and go: names, ids, mkdir, rmdir, mv.
 *
 * The name is what users call it now; the id is given at the creation and is what its
 * folder and its backend know it by. They are the same text unless somebody who was
 * renamed, or lies in the trash, has it as his id still.
 */
#include "vm_internal.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "news.h"

#define NAME_LENGTH_MAX 63

/* --- names ------------------------------------------------------------------ */

int fleet_name_check(const char *name, struct err *err)
{
	if (strlen(name) > NAME_LENGTH_MAX)
		return err_set(err, -ENAMETOOLONG, "a sandbox's name has at most %d characters",
			       NAME_LENGTH_MAX);
	for (const char *p = name; *p; p++)
		if (!islower((unsigned char)*p) && !isdigit((unsigned char)*p) && *p != '-')
			return err_set(err, -EINVAL,
				       "a sandbox's name is made of a-z, 0-9 and -, not \"%s\"", name);
	if (!islower((unsigned char)name[0]))
		return err_set(err, -EINVAL, "a sandbox's name begins with a letter a-z, not \"%s\"",
			       name);
	if (name[strlen(name) - 1] == '-')
		return err_set(err, -EINVAL, "a sandbox's name does not end in a dash: \"%s\"", name);
	return 0;
}

/* base, or base and four random digits: what is not taken. */
static void free_text(struct fleet *f, const char *base, char out[64],
		      struct vm *(*find)(struct fleet *, const char *))
{
	char digits[5];

	snprintf(out, 64, "%s", base);
	while (find(f, out)) {
		random_hex(digits, 2);
		snprintf(out, 64, "%.58s-%s", base, digits);
	}
}

void fleet_free_name(struct fleet *f, const char *base, char out[64])
{
	free_text(f, base, out, fleet_find);
}

/* May a sandbox of that backend be called so now? */
static int name_check(struct fleet *f, const struct backend *backend, const char *name,
		      struct err *err)
{
	int r = fleet_name_check(name, err);

	if (r == 0 && fleet_find(f, name))
		r = err_set(err, -EEXIST, "there is a sandbox %s already", name);
	if (r == 0 && backend && backend->ops->check_name)
		r = backend->ops->check_name((struct backend *)(uintptr_t)backend, name, err);
	return r;
}

/* --- create ------------------------------------------------------------------- */

int fleet_create(struct fleet *f, const char *name, struct err *err)
{
	struct slot *slot = &f->slots[0];
	struct record r = { .created = wall_ms(), .spec = f->defaults };
	struct vm *vm;
	int result = name_check(f, slot->backend, name, err);

	if (result < 0)
		return result;
	if (!slot->ready)
		return err_set(err, -ENODEV, "backend %s is unavailable: %s", slot->ops->name,
			       slot->why);
	free_text(f, name, r.id, fleet_find_id);
	snprintf(r.name, sizeof(r.name), "%s", name);
	snprintf(r.backend, sizeof(r.backend), "%s", slot->ops->name);
	snprintf(r.spec.name, sizeof(r.spec.name), "%s", name);
	store_new_tag(&r.spec);
	/* What an interrupted removal may have left under that id is not the new one's. */
	result = store_remove(f->vms_dir, f->trash_dir, r.id, err);
	if (result < 0)
		return result;
	result = store_write(f->vms_dir, &r, err);
	if (result == 0)
		result = slot->ops->create(slot->backend, r.id, &r.spec, err);
	if (result < 0) {
		store_remove(f->vms_dir, f->trash_dir, r.id, NULL);
		return result;
	}
	vm = fleet_add(f, &r);
	news_created(vm);
	return 0;
}

int fleet_rename(struct vm *vm, const char *name, struct err *err)
{
	struct fleet *f = vm->fleet;
	struct record record = vm->record;
	char was[sizeof(record.name)];
	int r = vm_check_open(vm, err);

	if (r == 0 && !strcmp(name, vm_name(vm)))
		return 0;
	if (r == 0)
		r = name_check(f, vm->backend, name, err);
	if (r == 0 && vm->backend && vm->backend->ops->rename)
		r = vm->backend->ops->rename(vm->backend, vm_id(vm), name, err);
	if (r < 0)
		return r;
	snprintf(record.name, sizeof(record.name), "%s", name);
	r = store_write(f->vms_dir, &record, err);
	if (r < 0) {
		if (vm->backend && vm->backend->ops->rename)
			vm->backend->ops->rename(vm->backend, vm_id(vm), vm_name(vm), NULL);
		return r;
	}
	memcpy(was, vm_name(vm), sizeof(was));
	vm_set_name(vm, name);
	news_renamed(vm, was);
	return 0;
}

/* --- destroy --------------------------------------------------------------------- */

int fleet_destroy(struct fleet *f, const char *name, struct err *err)
{
	struct vm *vm = fleet_find(f, name);
	struct record record;
	int r;

	if (!vm)
		return err_set(err, -ENOENT, "there is no sandbox %s", name);
	if (!vm->backend)
		return err_set(err, -ENODEV, "its backend %s is not configured", vm->record.backend);
	if (vm->record.destroying && vm->state != VM_FAILED)
		return err_set(err, -EBUSY, "%s is being destroyed already", name);
	record = vm->record;
	record.destroying = true;
	r = store_write(f->vms_dir, &record, err);
	/* A full disk must not keep anybody from making room; the backend has a record too. */
	if (r == -ENOSPC || r == -EDQUOT)
		log_warn("vm=%s destroyed without a note of it: %s", name, err->text);
	else if (r < 0)
		return r;
	log_info("vm=%s destroy", name);
	vm->state = VM_DESTROYING;
	vm_mark_destroying(vm);
	r = vm->backend->ops->destroy(vm->backend, vm_id(vm), err);
	if (r == -ENOENT) {
		fleet_remove(vm);	/* it never came to be */
		r = 0;
	} else if (r < 0) {
		vm_report(vm, VM_FAILED, NULL, err);
	}
	return r;
}

