/*
 * Names below root/ are lent to the kernel, so that a walk through a tree does not ask the
 * daemon for each of them again; but what a command did must be seen by whoever looks
 * behind it. So they are lent only while no command of the sandbox runs and its link is up,
 * and called back before one starts, or when the link is gone: all of the mount at once,
 * which costs one write(2). So they are when a file gets a second name: the kernel would not notice
 * that what it was told of the first changes by the second.
 */
#include "disk.h"
#include "vm_internal.h"

void fleet_on_recall(struct fleet *f, bool (*recall)(void *user), void *user)
{
	f->recall = recall;
	f->recall_user = user;
}

static bool recall(struct fleet *f)
{
	return f->recall && f->recall(f->recall_user);
}

void names_lend(struct vm *vm)
{
	struct fleet *f = vm->fleet;

	if (!f || !vm->disk || vm->active > 0)
		return;
	/* Doing it once shows that it can be done. */
	if (!f->recall_works)
		f->recall_works = recall(f);
	disk_lend_names(vm->disk, f->recall_works);
}

void names_recall(struct vm *vm)
{
	struct fleet *f = vm->fleet;

	if (vm->disk && disk_lend_names(vm->disk, false) && f && !recall(f))
		f->recall_works = false;
}

void vm_recall_names(struct vm *vm)
{
	names_recall(vm);
	names_lend(vm);
}
