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
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk.h"
#include "events.h"
#include "facts.h"
#include "log.h"
#include "news.h"

#define CACHE_DEFAULT (64u * 1024 * 1024)

/* --- lookups ------------------------------------------------------------------- */

struct vm *fleet_find(struct fleet *f, const char *name)
{
	struct vm *vm;

	HASH_FIND(hh_name, f->by_name, name, strlen(name), vm);
	return vm;
}

struct vm *fleet_find_id(struct fleet *f, const char *id)
{
	struct vm *vm;

	HASH_FIND_STR(f->vms, id, vm);
	return vm;
}

unsigned fleet_count(const struct fleet *f)
{
	return HASH_CNT(hh_name, f->by_name);
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

	HASH_SRT(hh_name, f->by_name, by_name);
	HASH_ITER(hh_name, f->by_name, vm, next)
		each(user, vm);
}

void fleet_show_name(struct fleet *f, struct vm *vm)
{
	HASH_ADD_KEYPTR(hh_name, f->by_name, vm->record.name, strlen(vm->record.name), vm);
	vm->shown = true;
	f->changed = wall_ms();
}

void fleet_hide_name(struct fleet *f, struct vm *vm)
{
	if (vm->shown)
		HASH_DELETE(hh_name, f->by_name, vm);
	vm->shown = false;
	f->changed = wall_ms();
	name_recall(vm);
}

struct slot *fleet_slot(struct fleet *f, const char *name)
{
	for (unsigned i = 0; i < f->slot_count; i++)
		if (!strcmp(f->slots[i].ops->name, name))
			return &f->slots[i];
	return NULL;
}

struct vm *fleet_add(struct fleet *f, const struct record *r)
{
	struct slot *slot = fleet_slot(f, r->backend);
	struct vm *vm = vm_create(f, r);

	vm->backend = slot ? slot->backend : NULL;
	HASH_ADD_STR(f->vms, record.id, vm);
	if (!r->trashed)
		fleet_show_name(f, vm);
	return vm;
}

/* Verified gone: the record may go, and with it the spools of its jobs. */
void fleet_remove(struct vm *vm)
{
	struct fleet *f = vm->fleet;
	struct err err = ERR_NONE;

	news_destroyed(vm);
	HASH_DEL(f->vms, vm);
	fleet_hide_name(f, vm);
	vm_ref(vm);
	vm_forget(vm);
	if (store_remove(f->vms_dir, f->trash_dir, vm_id(vm), &err) < 0)
		log_error("vm=%s %s", vm_name(vm), err.text);
	vm_unref(vm);
}

/* --- events of the backends ------------------------------------------------------- */

/* A VM that only its backend knew. Its id is its name, if that is free. */
static struct vm *take_in(struct slot *slot, const char *id)
{
	struct fleet *f = slot->fleet;
	struct record r = { .created = wall_ms() };
	struct err err = ERR_NONE;
	struct vm *vm;

	if (fleet_name_check(id, &err) < 0) {
		log_warn("backend=%s reports a VM that cannot be shown: %s", slot->ops->name,
			 err.text);
		return NULL;
	}
	snprintf(r.id, sizeof(r.id), "%s", id);
	fleet_free_name(f, id, r.name);
	memcpy(r.spec.name, r.name, sizeof(r.spec.name));
	snprintf(r.backend, sizeof(r.backend), "%s", slot->ops->name);
	if (store_write(f->vms_dir, &r, &err) < 0)
		log_error("vm=%s %s", r.name, err.text);
	vm = fleet_add(f, &r);
	vm->adopted = true;
	news_adopted(vm);
	return vm;
}

static void on_state(void *user, const char *id, enum vm_state state,
		     const struct endpoint *to, const struct err *why)
{
	struct slot *slot = user;
	struct vm *vm = fleet_find_id(slot->fleet, id);
	struct err err = ERR_NONE;

	if (!vm)
		vm = take_in(slot, id);
	if (!vm)
		return;
	if (vm->backend != slot->backend) {
		log_error("vm=%s is reported by %s and belongs to %s", id, slot->ops->name,
			  vm->record.backend);
		return;
	}
	if (!vm->record.made && !vm->record.destroying) {
		vm->record.made = true;
		/* Many may be told of at once; and after a crash they will be again. */
		if (store_write_soon(slot->fleet->vms_dir, &vm->record, &err) < 0)
			log_warn("vm=%s %s", vm_name(vm), err.text);
	}
	vm_report(vm, state, to, why);
}

/* Whom the backend means, if he is its own. */
static struct vm *vm_of(struct slot *slot, const char *id)
{
	struct vm *vm = fleet_find_id(slot->fleet, id);

	return vm && vm->backend == slot->backend ? vm : NULL;
}

static void on_gone(void *user, const char *id)
{
	struct vm *vm = vm_of(user, id);

	if (vm)
		fleet_remove(vm);
}

static void on_ready(void *user, bool ready, const char *why)
{
	struct slot *slot = user;

	slot->ready = ready;
	snprintf(slot->why, sizeof(slot->why), "%s", why ? why : "");
	if (!ready)
		log_warn("backend=%s unavailable: %s", slot->ops->name, slot->why);
}

static void on_about(void *user, const char *id, const struct vm_about *about)
{
	struct vm *vm = vm_of(user, id);

	if (vm)
		vm_learn(vm, about);
}

static void on_trouble(void *user, const char *id, const char *operation, const struct err *why)
{
	struct vm *vm = vm_of(user, id);

	if (vm)
		vm_trouble(vm, operation, why);
}

static void on_still(void *user, const char *id, bool still)
{
	struct vm *vm = vm_of(user, id);

	if (vm)
		vm_still(vm, still);
}

static void on_changed(void *user, const char *id)
{
	struct vm *vm = vm_of(user, id);

	if (vm)
		vm_touch(vm);
}

static const struct backend_events backend_news = {
	.state = on_state, .gone = on_gone, .ready = on_ready,
	.about = on_about, .trouble = on_trouble, .still = on_still, .changed = on_changed,
};

/* --- start ------------------------------------------------------------------------------ */

static void load_each(void *user, const struct record *r)
{
	struct fleet *f = user;
	struct record free_name = *r;

	if (fleet_name_check(r->id, NULL) < 0 || fleet_name_check(r->name, NULL) < 0)
		return;
	if (!r->trashed)
		fleet_free_name(f, r->name, free_name.name);
	fleet_add(f, &free_name)->adopted = true;
}

static void load_bad(void *user, const char *id, const char *why)
{
	struct fleet *f = user;
	char *path = xasprintf("%s/%s/record.json", f->vms_dir, id);
	bool missing = access(path, F_OK) < 0 && errno == ENOENT;

	free(path);
	/* Killed before the record was written: its mkdir has not been answered. */
	if (missing && store_remove(f->vms_dir, f->trash_dir, id, NULL) == 0)
		return;
	log_error("vm=%s its record cannot be used: %s", id, why);
}

/* What a backend has not heard of is asked of it again. */
static void reconcile_one(struct vm *vm)
{
	const struct backend_ops *ops = vm->backend->ops;
	struct err err = ERR_NONE;
	int r;

	/* It was found, not made: as one of exe.dev's hosts that is taken out of the configuration. */
	if (vm->record.foreign && vm->record.made && !vm->record.destroying) {
		fleet_remove(vm);
		return;
	}
	if (vm->record.made && !vm->record.destroying)
		r = err_set(&err, -ENOENT,
			    "backend %s no longer knows it: its machine and disk are "
			    "gone; rmdir forgets it",
			    ops->name);
	else if (vm->record.destroying)
		r = ops->destroy(vm->backend, vm_id(vm), &err);
	else
		r = ops->create(vm->backend, vm_id(vm), &vm->record.spec, &err);
	if (vm->record.destroying && r == -ENOENT)
		fleet_remove(vm);
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
			err_set(&err, -ENODEV, "its backend %s is not configured",
				vm->record.backend);
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
		r = slot->ops->open(&slot->backend, f->loop, &slot->conf, &backend_news, slot, err);
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
	f->caller_uid = (uid_t)-1;
	f->state_dir = xstrdup(conf->state_dir);
	f->run_dir = xstrdup(conf->run_dir);
	f->data_dir = xstrdup(conf->data_dir);
	f->vms_dir = xasprintf("%s/vms", conf->state_dir);
	f->trash_dir = xasprintf("%s/trash", conf->state_dir);
	f->given = f->defaults = conf->defaults;
	defaults_fill(&f->defaults);
	f->cache = disk_cache_create(loop, conf->cache ? (size_t)conf->cache : CACHE_DEFAULT);
	f->jobs = conf->jobs;
	f->limits = conf->limits;
	f->ttl = conf->ttl;
	f->idle = conf->idle;
	f->get = conf->get;
	f->user = conf->user;
	f->changed = wall_ms();
	r = make_dirs(f->vms_dir, err);
	if (r == 0)
		r = make_dirs(f->run_dir, err);
	if (r == 0)
		r = take_lock(f, err);
	if (r == 0)
		r = make_dirs(f->trash_dir, err);
	if (r == 0)
		trash_empty(f->trash_dir);	/* what a daemon that was killed had no time for */
	f->same_boot = r == 0 && jobs_same_boot(f->state_dir);
	if (r == 0)
		r = events_open(&f->events, f->state_dir, err);
	/* The backends' reports come later from the loop: the records are there by then. */
	if (r == 0)
		r = open_slots(f, conf->backends, err);
	if (conf->overflow)
		f->overflow = fleet_slot(f, conf->overflow);
	if (r == 0)
		r = store_load(f->vms_dir, load_each, load_bad, f, err);
	if (r < 0) {
		fleet_close(f);
		return r;
	}
	HASH_ITER(hh, f->vms, vm, next)
		if (vm->record.destroying)
			vm_close(vm, "the sandbox is being destroyed");
	news_start(f);
	loop_later(loop, &f->reconcile, reconcile);
	drafts_load(f);
	life_start(f);
	*fleet = f;
	return 0;
}

void fleet_close(struct fleet *f)
{
	struct vm *vm, *next;

	if (!f)
		return;
	loop_later_cancel(&f->reconcile);
	f->closing = true;
	life_stop(f);
	drafts_close(f);
	for (unsigned i = 0; i < f->slot_count; i++)
		if (f->slots[i].backend)
			f->slots[i].ops->close(f->slots[i].backend);
	HASH_ITER(hh, f->vms, vm, next) {
		HASH_DEL(f->vms, vm);
		fleet_hide_name(f, vm);
		vm_detach(vm);
	}
	news_stop(f);
	events_close(f->events);
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
	disk_cache_unref(f->cache);
	free(f);
}

/* --- who asks, what happens ------------------------------------------------------------------- */

void fleet_caller(struct fleet *f, uid_t uid, pid_t thread)
{
	f->caller_uid = uid;
	f->caller_thread = thread;
	events_caller(f->events, uid, thread);
}

struct events *fleet_events(struct fleet *f)
{
	return f->events;
}
