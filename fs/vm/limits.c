/*
 * [limits]: may this be made, started or enlarged?
 *
 * What counts is what is promised (the memory and disk that a sandbox was made with), not
 * what it takes at the moment: so a limit that holds now holds whatever the guests
 * do. A sandbox in the trash counts with its disk, and with its memory until its
 * backend has told that it is stopped; one that is being destroyed from there, no more.
 */
#include "vm_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "facts.h"
#include "news.h"

bool vm_takes_memory(const struct vm *vm)
{
	if (vm->state == VM_DESTROYING)
		return !vm->takes_none;
	/* What has failed has no machine any more, or never had one. */
	if (vm->state == VM_STOPPED || vm->state == VM_FAILED)
		return vm->starting || vm->record.revive;
	return true;
}

void limits_usage(struct fleet *f, const struct backend *of, struct fleet_usage *u)
{
	struct vm *vm, *next;

	memset(u, 0, sizeof(*u));
	HASH_ITER(hh, f->vms, vm, next) {
		const struct vm_spec *s = &vm->record.spec;
		bool trashed = vm->record.trashed;

		/* Somebody else's machines are no part of this fleet. */
		if (vm->backend != of || vm->record.foreign)
			continue;
		u->sandboxes += !trashed;
		if (!(trashed && vm->record.destroying))
			u->disk += s->disk;
		if (vm_takes_memory(vm))
			u->memory += s->memory;
	}
}

static int beyond_size(const char *key, uint64_t limit, uint64_t used, uint64_t wanted,
		       const char *backend, struct err *err)
{
	struct buf text = BUF_INIT;
	char *s;

	if (!limit || wanted == 0 || (wanted <= limit && used <= limit - wanted))
		return 0;
	size_print(&text, wanted);
	buf_printf(&text, " more of %s, ", key);
	size_print(&text, used);
	buf_printf(&text, " are taken by the sandboxes of %s, and [limits] %s = ", backend, key);
	size_print(&text, limit);
	s = buf_take_string(&text);
	err_set(err, -EDQUOT, "%s", s);
	free(s);
	return -EDQUOT;
}

/* which: the limit that it is about. */
static int check(struct fleet *f, const struct backend *backend, const struct fleet_usage *more,
		 const char **which, struct err *err)
{
	const char *name = backend->ops->name;
	struct fleet_usage u;
	int r;

	limits_usage(f, backend, &u);
	*which = "sandboxes";
	if (f->limits.sandboxes && more->sandboxes && u.sandboxes >= f->limits.sandboxes)
		return err_set(err, -EDQUOT,
			       "%u sandboxes of %s are there, and [limits] sandboxes = %u",
			       u.sandboxes, name, f->limits.sandboxes);
	*which = "memory";
	r = beyond_size("memory", f->limits.memory, u.memory, more->memory, name, err);
	if (r < 0)
		return r;
	*which = "disk";
	return beyond_size("disk", f->limits.disk, u.disk, more->disk, name, err);
}

bool limits_disk_is_low(struct fleet *f)
{
	struct statvfs st;

	return f->limits.free && statvfs(f->state_dir, &st) == 0 &&
	       (uint64_t)st.f_bavail * st.f_frsize < f->limits.free;
}

static int check_free(struct fleet *f, const struct backend *backend, struct err *err)
{
	struct buf floor = BUF_INIT;
	char *text;

	if (!(backend->ops->caps & BACKEND_CAP_LOCAL) || !limits_disk_is_low(f))
		return 0;
	size_print(&floor, f->limits.free);
	text = buf_take_string(&floor);
	err_set(err, -ENOSPC, "the disk of %s has less than [limits] free = %s left: the sandboxes "
		"that are there need it%s", f->state_dir, text,
		trash_oldest(f, NULL) ? "; the trash is being emptied, try again" : "");
	free(text);
	trash_pressure(f);
	return -ENOSPC;
}

/* Would it do to empty the trash? */
static bool trash_is_in_the_way(struct fleet *f, const struct backend *backend,
				const struct fleet_usage *more)
{
	uint64_t in_trash = 0;
	struct fleet_usage u, other = *more;
	const char *which;
	struct vm *vm, *next;

	HASH_ITER(hh, f->vms, vm, next)
		if (vm->backend == backend && vm->record.trashed && !vm->record.destroying &&
		    !vm->record.foreign)
			in_trash += vm->record.spec.disk;
	other.disk = 0;
	limits_usage(f, backend, &u);
	return in_trash > 0 && check(f, backend, &other, &which, NULL) == 0 &&
	       u.disk - in_trash + more->disk <= f->limits.disk;
}

int limits_admit(struct fleet *f, const struct backend *backend, const char *name,
		 const struct fleet_usage *more, struct err *err)
{
	struct err why = ERR_NONE;
	const char *which = "free";
	struct vm *oldest;
	int r = more->disk ? check_free(f, backend, &why) : 0;

	if (r == 0)
		r = check(f, backend, more, &which, &why);
	/* The trash makes room: the oldest first. */
	while (r == -EDQUOT && trash_is_in_the_way(f, backend, more)) {
		oldest = trash_oldest(f, backend);
		if (trash_drop(oldest, "its disk is needed", NULL) < 0)
			break;
		r = check(f, backend, more, &which, &why);
	}
	if (r < 0) {
		news_limit(f, which, name, why.text);
		err_set(err, r, "%s", why.text);
	}
	return r;
}
