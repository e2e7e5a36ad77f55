/*
 * Names below root/ are lent to the kernel, so that a walk through a tree does not ask the
 * daemon for each of them again; but what a command did must be seen by whoever looks
 * behind it. So they are lent only while no command of the sandbox runs and its link is up,
 * and called back before one starts, or when the link is gone: all of the mount at once,
 * which costs one write(2). So they are when a file gets a second name: the kernel would not notice
 * that what it was told of the first changes by the second.
 *
 * The names on the way there, that of the sandbox and root, are lent too: they change only when a
 * sandbox goes or gets another name, and are called back then, unless it was rmdir: the
 * kernel sees to that by itself.
 */
#include "disk.h"
#include "vm_internal.h"

/* Should calling back fail one day, the kernel asks again by itself. */
#define LEND_SECONDS 1.0

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

static void recall_lent(struct fleet *f)
{
	if (f->recall_works && !recall(f))
		f->recall_works = false;
}

/*
 * The kernel then also drops the pages of whatever is looked up again: it is not told
 * to for what was lent a long time ago, nor for a sandbox that is being removed,
 * whose files are stale from now on.
 */
void names_recall(struct vm *vm)
{
	bool lent = vm->disk && disk_lend_names(vm->disk, false);

	if (lent && vm->fleet && !vm->record.destroying && !vm->record.trashed)
		recall_lent(vm->fleet);
}

void vm_recall_names(struct vm *vm)
{
	names_recall(vm);
	names_lend(vm);
}

double vm_lend_name(struct vm *vm)
{
	if (!vm->fleet || !vm->fleet->recall_works || vm->record.destroying || vm->record.trashed)
		return 0;
	vm->name_lent = true;
	return LEND_SECONDS;
}

void name_recall(struct vm *vm)
{
	if (vm->name_lent)
		recall_lent(vm->fleet);
	vm->name_lent = false;
}
