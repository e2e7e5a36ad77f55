/*
 * The verbs of ctl: one table. A verb is asked of the backend and answered when it
 * was accepted; what became of it shows in status, or is told as trouble.
 */
#include "vm_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "facts.h"
#include "job.h"

struct verb {
	const char *name;
	unsigned cap;		/* 0: it needs none */
	/* args: what stands behind the verb; NULL when it takes none */
	int (*run)(struct vm *, const struct backend_ops *, char *args, struct err *);
	const char *usage;	/* of a verb with arguments */
};

int vm_check_open(struct vm *vm, struct err *err)
{
	if (!vm->fleet)
		return err_set(err, -ESTALE, "the sandbox is gone");
	if (vm->record.destroying)
		return err_set(err, -EBUSY, "the sandbox is being destroyed");
	if (vm->record.trashed)
		return err_set(err, -EBUSY, "the sandbox lies in the trash: mv brings it back");
	if (!vm->backend)
		return err_set(err, -ENODEV, "its backend %s is not configured",
			       vm->record.backend);
	return 0;
}

/* --- start, stop, … ------------------------------------------------------------- */

/* A stopped one takes no memory. */
static int admit_start(struct vm *vm, struct err *err)
{
	struct fleet_usage more = { .memory = vm->record.spec.memory };

	if (vm_takes_memory(vm) || vm->record.foreign)
		return 0;
	return limits_admit(vm->fleet, vm->backend, vm_name(vm), &more, err);
}

/* Whoever stops one that is on its way back from the trash does not want it started. */
static void not_back(struct vm *vm)
{
	vm->record.revive = false;
	vm_save(vm, NULL);
}

static int run_start(struct vm *vm, const struct backend_ops *ops, char *args, struct err *err)
{
	int r;

	if (vm->state != VM_STOPPED && vm->state != VM_FAILED) {
		vm->start_again |= vm->leaving;
		vm_link_probe(vm);	/* for the rest it runs already */
		return 0;
	}
	r = admit_start(vm, err);
	if (r == 0)
		r = ops->start(vm->backend, vm_id(vm), err);
	vm->starting |= r == 0;
	return r;
}

/*
 * What runs is about to end, or to be suspended, by a verb that returned r. Until its backend says
 * that it has, or that it has not (vm_trouble), no job is started that would be lost with it, a
 * connection that ends is no surprise, and start means: afterwards.
 */
static int leave(struct vm *vm, int r)
{
	vm->leaving |= r == 0 && vm->state != VM_STOPPED && vm->state != VM_FAILED;
	return r;
}

static int run_stop(struct vm *vm, const struct backend_ops *ops, char *args, struct err *err)
{
	int r;

	if (vm->record.revive)
		not_back(vm);
	if (vm->state == VM_STOPPED && !vm->starting)
		return 0;
	r = ops->stop(vm->backend, vm_id(vm), err);
	if (r == 0)
		vm->start_again = false;
	return leave(vm, r);
}

static int run_restart(struct vm *vm, const struct backend_ops *ops, char *args, struct err *err)
{
	int r = admit_start(vm, err);

	if (r == 0)
		r = ops->restart(vm->backend, vm_id(vm), err);
	vm->starting |= r == 0 && (vm->state == VM_STOPPED || vm->state == VM_FAILED);
	return leave(vm, r);
}

/* Its state does not count while it is about to be the other one. */
static int run_pause(struct vm *vm, const struct backend_ops *ops, char *args, struct err *err)
{
	int r = vm->state == VM_PAUSED && !vm->turning ? 0 :
		ops->pause(vm->backend, vm_id(vm), err);

	if (r == 0)
		vm->turning = vm->state != VM_PAUSED;
	return r;
}

static int run_resume(struct vm *vm, const struct backend_ops *ops, char *args, struct err *err)
{
	int r = vm->state == VM_UP && !vm->turning ? 0 :
		ops->resume(vm->backend, vm_id(vm), err);

	if (r == 0)
		vm->turning = vm->state != VM_UP;
	return r;
}

static int run_suspend(struct vm *vm, const struct backend_ops *ops, char *args, struct err *err)
{
	if (vm->state == VM_STOPPED)
		return 0;
	return leave(vm, ops->suspend(vm->backend, vm_id(vm), err));
}

static int run_restore(struct vm *vm, const struct backend_ops *ops, char *args, struct err *err)
{
	int r = admit_start(vm, err);	/* it may run afterwards */

	return r < 0 ? r : leave(vm, ops->restore(vm->backend, vm_id(vm), args, err));
}

/* --- resize ------------------------------------------------------------------------ */

static int resize_word(struct vm_spec *to, const char *word, struct err *err)
{
	const char *value = strchr(word, '=');
	unsigned long n;
	char *end;

	if (value && !strncmp(word, "memory=", 7) && size_parse_large(value + 1, &to->memory) == 0)
		return 0;
	if (value && !strncmp(word, "disk=", 5) && size_parse_large(value + 1, &to->disk) == 0)
		return 0;
	if (value && !strncmp(word, "cpus=", 5)) {
		n = strtoul(value + 1, &end, 10);
		if (end != value + 1 && !*end && n >= 1 && n <= 255) {
			to->cpus = (unsigned)n;
			return 0;
		}
	}
	return err_set(err, -EINVAL, "resize takes cpus=4, memory=2G or disk=20G, or several of "
		       "them, not \"%s\"", word);
}

static int admit_growth(struct vm *vm, const struct vm_spec *to, struct err *err)
{
	const struct vm_spec *is = &vm->record.spec;
	struct fleet_usage more = { 0 };

	if (to->memory > is->memory && vm_takes_memory(vm))
		more.memory = to->memory - is->memory;
	if (to->disk > is->disk)
		more.disk = to->disk - is->disk;
	if (vm->record.foreign)
		return 0;
	return limits_admit(vm->fleet, vm->backend, vm_name(vm), &more, err);
}

/* The fields of to that are larger, or all that are not 0. */
static void note_size(struct vm_spec *spec, const struct vm_spec *to, bool larger)
{
	if (to->memory && (!larger || to->memory > spec->memory))
		spec->memory = to->memory;
	if (to->disk && (!larger || to->disk > spec->disk))
		spec->disk = to->disk;
	if (to->cpus && (!larger || to->cpus > spec->cpus))
		spec->cpus = to->cpus;
}

static int run_resize(struct vm *vm, const struct backend_ops *ops, char *args, struct err *err)
{
	struct vm_spec to = { 0 };
	struct record before = vm->record;
	char *save = NULL;
	int r = 0;

	for (char *w = strtok_r(args, " \t", &save); w && r == 0; w = strtok_r(NULL, " \t", &save))
		r = resize_word(&to, w, err);
	if (r == 0)
		r = admit_growth(vm, &to, err);
	if (r < 0)
		return r;
	/* The record never says less than is so: what grows is noted before, what shrinks after. */
	note_size(&vm->record.spec, &to, true);
	r = vm_save(vm, err);
	if (r == 0)
		r = ops->resize(vm->backend, vm_id(vm), to.cpus, to.memory, to.disk, err);
	if (r < 0) {
		vm->record = before;
		vm_save(vm, NULL);
		return r;
	}
	vm->before = before.spec;
	note_size(&vm->record.spec, &to, false);
	vm_touch(vm);
	return vm_save(vm, err);
}

/* What was to end it has failed. */
static void stay(struct vm *vm)
{
	vm->leaving = vm->start_again = false;
	if (vm->link == LINK_DOWN)
		jobs_cancel_queued(vm, vm->why_down ? vm->why_down : "the sandbox is unreachable");
	if (!vm_is_closed(vm))
		vm_reopen(vm);
}

void vm_trouble(struct vm *vm, const char *operation, const struct err *why)
{
	struct err err = ERR_NONE;

	vm->starting = vm->turning = false;
	vm->stop_asked = 0;
	vm->stop_taken = false;
	if (vm->leaving)
		stay(vm);
	if (vm->record.revive)
		life_attend(vm);
	if (!strcmp(operation, "resize") && vm->before.memory) {
		vm->record.spec.cpus = vm->before.cpus;
		vm->record.spec.memory = vm->before.memory;
		vm->record.spec.disk = vm->before.disk;
		if (vm_save(vm, &err) < 0)
			vm_set_error(vm, operation, "", &err);
	}
	vm_set_error(vm, operation, "", why);
	vm_touch(vm);
}

/* --- the table ----------------------------------------------------------------------- */

static int run_killall(struct vm *vm, const struct backend_ops *ops, char *args, struct err *err)
{
	return jobs_kill_all(vm, err);
}

static const struct verb verbs[] = {
	{ "start", BACKEND_CAP_STOP, run_start, NULL },
	{ "stop", BACKEND_CAP_STOP, run_stop, NULL },
	{ "restart", BACKEND_CAP_RESTART, run_restart, NULL },
	{ "pause", BACKEND_CAP_PAUSE, run_pause, NULL },
	{ "resume", BACKEND_CAP_PAUSE, run_resume, NULL },
	{ "suspend", BACKEND_CAP_SUSPEND, run_suspend, NULL },
	{ "killall", 0, run_killall, NULL },
	{ "restore", BACKEND_CAP_SNAPSHOT, run_restore, "restore SNAPSHOT" },
	{ "resize", BACKEND_CAP_RESIZE, run_resize, "resize cpus=4 memory=2G disk=20G" },
};

static bool offered(const struct vm *vm, const struct verb *verb)
{
	return !verb->cap || (vm_caps(vm) & verb->cap);
}

void vm_verbs_print(const struct vm *vm, struct buf *out)
{
	const char *blank = "";

	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (offered(vm, &verbs[i])) {
			buf_printf(out, "%s%s", blank, verbs[i].name);
			blank = " ";
		}
}

static const struct verb *verb_find(const char *name)
{
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (!strcmp(verbs[i].name, name))
			return &verbs[i];
	return NULL;
}

static int unknown(struct vm *vm, const char *name, struct err *err)
{
	struct buf known = BUF_INIT;
	char *text;

	vm_verbs_print(vm, &known);
	text = buf_take_string(&known);
	err_set(err, -EINVAL, "ctl knows %s, not \"%s\"", text, name);
	free(text);
	return -EINVAL;
}

static int verb_run(struct vm *vm, const struct verb *verb, char *args, struct err *err)
{
	int r = vm_check_open(vm, err);

	if (r < 0)
		return r;
	if (!offered(vm, verb))
		return err_set(err, -ENOSYS, "backend %s cannot %s", vm->record.backend,
			       verb->name);
	if (!*args != !verb->usage)
		return verb->usage ?
			err_set(err, -EINVAL, "it is written as \"%s\"", verb->usage) :
			err_set(err, -EINVAL, "%s takes no arguments", verb->name);
	return verb->run(vm, vm->backend->ops, args, err);
}

int vm_verb(struct vm *vm, const char *line, struct err *err)
{
	char *copy = xstrdup(line), *args = copy + strcspn(copy, " \t");
	const struct verb *verb;
	int r;

	if (*args)
		*args++ = 0;
	args += strspn(args, " \t");
	verb = verb_find(copy);
	r = verb ? verb_run(vm, verb, args, err) : unknown(vm, copy, err);
	if (r == 0)
		vm_used(vm);	/* whoever asks for something means to go on with it */
	free(copy);
	return r;
}

int vm_start(struct vm *vm, struct err *err)
{
	char none[] = "";

	return verb_run(vm, verb_find("start"), none, err);
}

/* --- jobs that find it at rest (on_use) ---------------------------------------------- */

void vm_wake(struct vm *vm)
{
	const char *verb = vm->state == VM_STOPPED ? "start" :
			   vm->state == VM_PAUSED ? "resume" : NULL;
	struct err err = ERR_NONE;
	char none[] = "";

	if (!vm->fleet || !vm->fleet->jobs.start_on_use)
		return;
	vm->start_again |= vm->leaving;
	if (!verb || vm->starting)
		return;
	if (verb_run(vm, verb_find(verb), none, &err) < 0)
		vm_set_error(vm, verb, "", &err);
}

const char *vm_waits_for(const struct vm *vm)
{
	if (vm->state == VM_STOPPED && !vm->starting)
		return "the sandbox to be started: it is stopped (write start to its ctl)";
	if (vm->state == VM_PAUSED)
		return "the sandbox to be resumed: it is paused (write resume to its ctl)";
	return "the sandbox to run";
}
