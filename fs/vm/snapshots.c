/*
 * The snapshots of a sandbox, as its backend keeps them; nothing of them is stored
 * here. Called by the tree; restore is a verb (verbs.c).
 */
#include "vm_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct backend_ops *snapshot_ops(const struct vm *vm)
{
	return vm_caps(vm) & BACKEND_CAP_SNAPSHOT ? vm->backend->ops : NULL;
}

int vm_snapshot_take(struct vm *vm, const char *name, struct err *err)
{
	const struct backend_ops *ops = snapshot_ops(vm);
	int r = vm_check_open(vm, err);

	if (r == 0 && !ops)
		r = err_set(err, -ENOSYS, "backend %s takes no snapshots", vm->record.backend);
	if (r == 0)
		r = ops->snapshot(vm->backend, vm_id(vm), name, err);
	if (r == 0)
		vm_used(vm);
	return r;
}

int vm_snapshot_drop(struct vm *vm, const char *name, struct err *err)
{
	const struct backend_ops *ops = snapshot_ops(vm);
	int r = vm_check_open(vm, err);

	if (r == 0 && !ops)
		r = err_set(err, -ENOENT, "there is no snapshot %s", name);
	return r < 0 ? r : ops->snapshot_drop(vm->backend, vm_id(vm), name, err);
}

void vm_snapshots_each(struct vm *vm, void (*each)(void *user, const struct vm_snapshot *),
		       void *user)
{
	const struct backend_ops *ops = snapshot_ops(vm);

	if (ops && vm->fleet)
		ops->snapshots(vm->backend, vm_id(vm), each, user);
}

struct search {
	const char *name;
	struct vm_snapshot *found;
	bool there;
};

static void compare(void *user, const struct vm_snapshot *s)
{
	struct search *search = user;

	if (strcmp(s->name, search->name))
		return;
	*search->found = *s;
	search->found->name = search->name;
	search->there = true;
}

bool vm_snapshot_find(struct vm *vm, const char *name, struct vm_snapshot *found)
{
	struct search search = { .name = name, .found = found };

	vm_snapshots_each(vm, compare, &search);
	return search.there;
}
