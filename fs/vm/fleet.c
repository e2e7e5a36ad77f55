/*
 * All sandboxes of a mount.
 *
 * Rule: the record is on disk before a backend is asked, and stays until the
 * backend has verified that nothing is left. So at the start there are three
 * kinds: records that a backend knows (adopted as reported), records that no
 * backend has heard of (the daemon died between the two steps: create is asked
 * again, or a destroying one is forgotten), and VMs without a record (taken in).
 */
#include "vm_internal.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "facts.h"
#include "log.h"

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

/* --- lookups ------------------------------------------------------------------- */

struct vm *fleet_find(struct fleet *f, const char *name)
{
	struct vm *vm;

	HASH_FIND_STR(f->vms, name, vm);
	return vm;
}

unsigned fleet_count(const struct fleet *f)
{
	return HASH_COUNT(f->vms);
}

int64_t fleet_changed(const struct fleet *f)
{
	return f->changed;
}

static int by_name(const struct vm *a, const struct vm *b)
{
	return strcmp(a->record.name, b->record.name);
}

void fleet_each(struct fleet *f, void (*each)(void *user, struct vm *), void *user)
{
	struct vm *vm, *next;

	HASH_SORT(f->vms, by_name);
	HASH_ITER(hh, f->vms, vm, next)
		each(user, vm);
}

static struct slot *slot_find(struct fleet *f, const char *name)
{
	for (unsigned i = 0; i < f->slot_count; i++)
		if (!strcmp(f->slots[i].ops->name, name))
			return &f->slots[i];
	return NULL;
}

static struct vm *vm_add(struct fleet *f, const struct record *r)
{
	struct slot *slot = slot_find(f, r->backend);
	struct vm *vm = vm_create(f, r);

	vm->backend = slot ? slot->backend : NULL;
	HASH_ADD_STR(f->vms, record.name, vm);
	f->changed = wall_ms();
	return vm;
}

/* Verified gone: the record may go, and with it the spools of its jobs. */
static void vm_remove(struct vm *vm)
{
	struct fleet *f = vm->fleet;
	struct err err = ERR_NONE;

	log_info("vm=%s gone", vm_name(vm));
	HASH_DEL(f->vms, vm);
	f->changed = wall_ms();
	vm_ref(vm);
	vm_forget(vm);
	if (store_remove(f->vms_dir, f->trash_dir, vm_name(vm), &err) < 0)
		log_error("vm=%s %s", vm_name(vm), err.text);
	vm_unref(vm);
}

/* --- events of the backends ------------------------------------------------------- */

static void on_state(void *user, const char *name, enum vm_state state,
		     const struct endpoint *to, const struct err *why)
{
	struct slot *slot = user;
	struct fleet *f = slot->fleet;
	struct vm *vm = fleet_find(f, name);
	struct err err = ERR_NONE;

	if (!vm) {
		struct record r = { .created = wall_ms() };

		if (fleet_name_check(name, &err) < 0) {
			log_warn("backend=%s reports a VM that cannot be shown: %s", slot->ops->name,
				 err.text);
			return;
		}
		snprintf(r.name, sizeof(r.name), "%s", name);
		snprintf(r.backend, sizeof(r.backend), "%s", slot->ops->name);
		if (store_write(f->vms_dir, &r, &err) < 0)
			log_error("vm=%s %s", name, err.text);
		vm = vm_add(f, &r);
		vm->adopted = true;
	}
	if (vm->backend != slot->backend) {
		log_error("vm=%s is reported by %s and belongs to %s", name, slot->ops->name,
			  vm->record.backend);
		return;
	}
	if (!vm->record.made && !vm->record.destroying) {
		vm->record.made = true;
		if (store_write(f->vms_dir, &vm->record, &err) < 0)
			log_warn("vm=%s %s", name, err.text);
	}
	vm_report(vm, state, to, why);
}

static void on_gone(void *user, const char *name)
{
	struct slot *slot = user;
	struct vm *vm = fleet_find(slot->fleet, name);

	if (vm && vm->backend == slot->backend)
		vm_remove(vm);
}

static void on_ready(void *user, bool ready, const char *why)
{
	struct slot *slot = user;

	slot->ready = ready;
	snprintf(slot->why, sizeof(slot->why), "%s", why ? why : "");
	if (!ready)
		log_warn("backend=%s unavailable: %s", slot->ops->name, slot->why);
}

static void on_trouble(void *user, const char *id, const char *operation, const struct err *why)
{
	struct slot *slot = user;
	struct vm *vm = fleet_find(slot->fleet, id);

	if (vm && vm->backend == slot->backend)
		vm_set_error(vm, operation, id, why);
}

static void on_changed(void *user, const char *id)
{
	struct slot *slot = user;
	struct vm *vm = fleet_find(slot->fleet, id);

	if (vm && vm->backend == slot->backend)
		vm_touch(vm);
}

static const struct backend_events fleet_events = {
	.state = on_state, .gone = on_gone, .ready = on_ready,
	.trouble = on_trouble, .changed = on_changed,
};

/* --- start ------------------------------------------------------------------------------ */

static void load_each(void *user, const struct record *r)
{
	struct fleet *f = user;

	if (fleet_name_check(r->name, NULL) == 0)
		vm_add(f, r)->adopted = true;
}

static void load_bad(void *user, const char *name, const char *why)
{
	struct fleet *f = user;
	char *path = xasprintf("%s/%s/record.json", f->vms_dir, name);
	bool missing = access(path, F_OK) < 0 && errno == ENOENT;

	free(path);
	/* Killed before the record was written: its mkdir has not been answered. */
	if (missing && store_remove(f->vms_dir, f->trash_dir, name, NULL) == 0)
		return;
	log_error("vm=%s its record cannot be used: %s", name, why);
}

/* What a backend has not heard of is asked of it again. */
static void reconcile_one(struct vm *vm)
{
	const struct backend_ops *ops = vm->backend->ops;
	struct err err = ERR_NONE;
	int r;

	if (vm->record.made && !vm->record.destroying)
		r = err_set(&err, -ENOENT, "backend %s no longer knows it: its machine and disk are "
			    "gone; rmdir forgets it", ops->name);
	else if (vm->record.destroying)
		r = ops->destroy(vm->backend, vm_name(vm), &err);
	else
		r = ops->create(vm->backend, vm_name(vm), &vm->record.spec, &err);
	if (vm->record.destroying && r == -ENOENT)
		vm_remove(vm);
	else if (r < 0 && r != -EEXIST)
		vm_report(vm, VM_FAILED, NULL, &err);
}

static void reconcile(struct loop_later *l)
{
	struct fleet *f = container_of(l, struct fleet, reconcile);
	struct vm *vm, *next;

	if (f->vms)
		log_info("%u sandboxes were there before", HASH_COUNT(f->vms));
	HASH_ITER(hh, f->vms, vm, next) {
		struct err err = ERR_NONE;

		if (!vm->backend) {
			err_set(&err, -ENODEV, "its backend %s is not configured", vm->record.backend);
			vm_report(vm, VM_FAILED, NULL, &err);
		} else if (!vm->reported || vm->record.destroying) {
			reconcile_one(vm);
		}
	}
}

static const char *slot_get(const struct backend_conf *conf, const char *key)
{
	struct slot *slot = conf->opaque;

	return slot->fleet->get ? slot->fleet->get(slot->fleet->user, slot->ops->name, key) : NULL;
}

static int slot_open(struct fleet *f, struct slot *slot, const char *name, struct err *err)
{
	int r;

	slot->fleet = f;
	slot->ops = backend_find(name);
	if (!slot->ops)
		return err_set(err, -EINVAL, "there is no backend %s in this sbxfs", name);
	slot->ready = true;
	slot->state_dir = xasprintf("%s/%s", f->state_dir, name);
	slot->run_dir = xasprintf("%s/%s", f->run_dir, name);
	slot->conf = (struct backend_conf){
		.state_dir = slot->state_dir, .run_dir = slot->run_dir, .data_dir = f->data_dir,
		.get = slot_get, .opaque = slot,
	};
	r = make_dirs(slot->state_dir, err);
	if (r == 0)
		r = make_dirs(slot->run_dir, err);
	if (r == 0)
		r = slot->ops->open(&slot->backend, f->loop, &slot->conf, &fleet_events, slot, err);
	return r;
}

static int take_lock(struct fleet *f, struct err *err)
{
	/* Of this process alone: a child that outlives it must not hold it. */
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char *path = xasprintf("%s/lock", f->state_dir), pid[32] = "";
	int r = 0, n;

	f->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (f->lock_fd < 0) {
		r = err_sys(err, -errno, "cannot open %s", path);
	} else if (fcntl(f->lock_fd, F_SETLK, &whole) < 0) {
		n = (int)read(f->lock_fd, pid, sizeof(pid) - 1);
		pid[n > 0 ? strcspn(pid, "\n") : 0] = 0;
		r = err_set(err, -EBUSY, "another sbxfs (process %s) uses %s already", pid,
			    f->state_dir);
	} else {
		n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
		if (ftruncate(f->lock_fd, 0) < 0 || write(f->lock_fd, pid, (size_t)n) != n)
			log_warn("cannot write %s: %s", path, strerror(errno));
	}
	free(path);
	return r;
}

static int open_slots(struct fleet *f, const char *const *names, struct err *err)
{
	unsigned n = 0;
	int r = 0;

	while (names[n])
		n++;
	if (n == 0)
		return err_set(err, -EINVAL, "no backend is configured");
	f->slots = xcalloc(n, sizeof(*f->slots));
	for (unsigned i = 0; i < n && r == 0; i++) {
		f->slot_count = i + 1;
		r = slot_open(f, &f->slots[i], names[i], err);
	}
	return r;
}

static void defaults_fill(struct vm_spec *s)
{
	if (!s->image[0])
		strcpy(s->image, "debian");
	if (!s->cpus)
		s->cpus = 2;
	if (!s->memory)
		s->memory = 1ull << 30;
	if (!s->disk)
		s->disk = 10ull << 30;
}

int fleet_open(struct fleet **fleet, struct loop *loop, const struct fleet_conf *conf,
	       struct err *err)
{
	struct fleet *f = xcalloc(1, sizeof(*f));
	struct vm *vm, *next;
	int r;

	f->loop = loop;
	f->lock_fd = -1;
	f->state_dir = xstrdup(conf->state_dir);
	f->run_dir = xstrdup(conf->run_dir);
	f->data_dir = xstrdup(conf->data_dir);
	f->vms_dir = xasprintf("%s/vms", conf->state_dir);
	f->trash_dir = xasprintf("%s/trash", conf->state_dir);
	f->defaults = conf->defaults;
	defaults_fill(&f->defaults);
	f->get = conf->get;
	f->user = conf->user;
	f->changed = wall_ms();
	r = make_dirs(f->vms_dir, err);
	if (r == 0)
		r = make_dirs(f->run_dir, err);
	if (r == 0)
		r = take_lock(f, err);
	if (r == 0)
		remove_tree(f->trash_dir);	/* what a daemon that was killed had no time for */
	if (r == 0)
		r = make_dirs(f->trash_dir, err);
	/* The backends' reports come later from the loop: the records are there by then. */
	if (r == 0)
		r = open_slots(f, conf->backends, err);
	if (r == 0)
		r = store_load(f->vms_dir, load_each, load_bad, f, err);
	if (r < 0) {
		fleet_close(f);
		return r;
	}
	HASH_ITER(hh, f->vms, vm, next)
		if (vm->record.destroying)
			vm_mark_destroying(vm);
	loop_later(loop, &f->reconcile, reconcile);
	*fleet = f;
	return 0;
}

void fleet_close(struct fleet *f)
{
	struct vm *vm, *next;

	if (!f)
		return;
	loop_later_cancel(&f->reconcile);
	for (unsigned i = 0; i < f->slot_count; i++)
		if (f->slots[i].backend)
			f->slots[i].ops->close(f->slots[i].backend);
	HASH_ITER(hh, f->vms, vm, next) {
		HASH_DEL(f->vms, vm);
		vm_detach(vm);
	}
	for (unsigned i = 0; i < f->slot_count; i++) {
		free(f->slots[i].state_dir);
		free(f->slots[i].run_dir);
	}
	if (f->lock_fd >= 0)
		close(f->lock_fd);
	free(f->slots);
	free(f->state_dir);
	free(f->run_dir);
	free(f->data_dir);
	free(f->vms_dir);
	free(f->trash_dir);
	free(f);
}

/* --- create and destroy -------------------------------------------------------------------- */

int fleet_create(struct fleet *f, const char *name, struct err *err)
{
	struct slot *slot = &f->slots[0];
	struct record r = { .created = wall_ms(), .spec = f->defaults };
	int result = fleet_name_check(name, err);

	if (result < 0)
		return result;
	if (fleet_find(f, name))
		return err_set(err, -EEXIST, "there is a sandbox %s already", name);
	if (!slot->ready)
		return err_set(err, -ENODEV, "backend %s is unavailable: %s", slot->ops->name,
			       slot->why);
	snprintf(r.name, sizeof(r.name), "%s", name);
	snprintf(r.backend, sizeof(r.backend), "%s", slot->ops->name);
	snprintf(r.spec.name, sizeof(r.spec.name), "%s", name);
	store_new_tag(&r.spec);
	/* What an interrupted removal may have left under that name is not the new one's. */
	result = store_remove(f->vms_dir, f->trash_dir, name, err);
	if (result < 0)
		return result;
	result = store_write(f->vms_dir, &r, err);
	if (result == 0)
		result = slot->ops->create(slot->backend, name, &r.spec, err);
	if (result < 0) {
		store_remove(f->vms_dir, f->trash_dir, name, NULL);
		return result;
	}
	log_info("vm=%s created by backend %s, image %s", name, slot->ops->name, r.spec.image);
	vm_add(f, &r);
	return 0;
}

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
	r = vm->backend->ops->destroy(vm->backend, name, err);
	if (r == -ENOENT) {
		vm_remove(vm);	/* it never came to be */
		r = 0;
	} else if (r < 0) {
		vm_report(vm, VM_FAILED, NULL, err);
	}
	return r;
}

/* --- what is shown ---------------------------------------------------------------------------- */

static void caps_print(const struct backend *backend, struct buf *out)
{
	static const struct { unsigned cap; const char *name; } caps[] = {
		{ BACKEND_CAP_STOP, "stop" }, { BACKEND_CAP_RESTART, "restart" },
		{ BACKEND_CAP_CONSOLE, "console" }, { BACKEND_CAP_PAUSE, "pause" },
		{ BACKEND_CAP_SUSPEND, "suspend" }, { BACKEND_CAP_SNAPSHOT, "snapshot" },
		{ BACKEND_CAP_CLONE, "clone" }, { BACKEND_CAP_PORTS, "ports" },
		{ BACKEND_CAP_RESIZE, "resize" }, { BACKEND_CAP_KEEP, "keep" },
		{ BACKEND_CAP_NETWORK, "network" },
	};
	const char *comma = " caps=";

	for (size_t i = 0; i < sizeof(caps) / sizeof(caps[0]); i++)
		if (backend->caps & caps[i].cap) {
			buf_printf(out, "%s%s", comma, caps[i].name);
			comma = ",";
		}
}

void fleet_backends_print(struct fleet *f, struct buf *out)
{
	for (unsigned i = 0; i < f->slot_count; i++) {
		struct slot *s = &f->slots[i];

		buf_printf(out, "%s %s", s->ops->name, s->ready ? "ready" : "unavailable");
		if (!s->ready)
			buf_printf(out, " \"%s\"", s->why);
		caps_print(s->backend, out);
		if (s->ops->describe) {
			buf_printf(out, " ");
			s->ops->describe(s->backend, out);
		}
		buf_printf(out, "\n");
	}
}

void fleet_note_error(struct fleet *f, const char *operation, const char *path,
		      const struct err *err)
{
	struct failure *slot = &f->failures[f->failure_count++ % 100];

	slot->when = wall_ms();
	snprintf(slot->operation, sizeof(slot->operation), "%s", operation);
	snprintf(slot->path, sizeof(slot->path), "%s", path);
	for (char *p = slot->path; *p; p++)	/* names are a guest's or a stranger's choice */
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	snprintf(slot->text, sizeof(slot->text), "%s", err->text);
}

void fleet_errors_print(struct fleet *f, struct buf *out)
{
	unsigned first = f->failure_count > 100 ? f->failure_count - 100 : 0;

	for (unsigned i = first; i < f->failure_count; i++) {
		const struct failure *e = &f->failures[i % 100];

		time_print(out, e->when);
		buf_printf(out, " %s %s %s\n", e->operation, e->path, e->text);
	}
}
