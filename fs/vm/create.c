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

#include "flush.h"
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
				       "a sandbox's name is made of a-z, 0-9 and -, not \"%s\"",
				       name);
	if (!islower((unsigned char)name[0]))
		return err_set(err, -EINVAL,
			       "a sandbox's name begins with a letter a-z, not \"%s\"", name);
	if (name[strlen(name) - 1] == '-')
		return err_set(err, -EINVAL, "a sandbox's name does not end in a dash: \"%s\"",
			       name);
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

int fleet_name_free(struct fleet *f, struct backend *backend, const char *name, struct err *err)
{
	int r = fleet_name_check(name, err);

	if (r == 0 && fleet_find(f, name))
		r = err_set(err, -EEXIST, "there is a sandbox %s already", name);
	if (r == 0 && backend && backend->ops->check_name)
		r = backend->ops->check_name(backend, name, err);
	return r;
}

/* --- create ------------------------------------------------------------------- */

static void defaults_of_backend(struct fleet *f, struct slot *slot, struct plan *p)
{
	const char *image = slot->ops->default_image;

	p->record.spec = slot->ops->own_sizes ? f->given : f->defaults;
	/* [defaults] image is one of the backend that makes sandboxes unless told otherwise. */
	if (image && (slot != &f->slots[0] || !f->given.image[0]))
		snprintf(p->record.spec.image, sizeof(p->record.spec.image), "%s", image);
}

void plan_init(struct fleet *f, struct plan *p, struct slot *slot)
{
	memset(p, 0, sizeof(*p));
	p->slot = slot ? slot : &f->slots[0];
	defaults_of_backend(f, p->slot, p);
	p->record.ttl = f->ttl;
	p->record.idle = f->idle;
}

static int write_texts(struct fleet *f, const struct plan *p, struct err *err)
{
	const struct { const char *name, *text; } texts[] = {
		{ "env", p->env }, { "setup", p->setup },
	};
	int r = 0;

	for (size_t i = 0; i < 2 && r == 0; i++)
		if (texts[i].text && *texts[i].text) {
			char *path = xasprintf("%s/%s/%s", f->vms_dir, p->record.id, texts[i].name);

			r = write_file(path, texts[i].text, (unsigned)strlen(texts[i].text), true,
				       err);
			free(path);
		}
	return r;
}

static int admit(struct fleet *f, const struct plan *p, const char *name, struct err *err)
{
	const struct vm_spec *s = &p->record.spec;
	struct fleet_usage more = { .sandboxes = 1, .memory = s->memory, .disk = s->disk };

	if (!p->slot->ready)
		return err_set(err, -ENODEV, "backend %s is unavailable: %s", p->slot->ops->name,
			       p->slot->why);
	return limits_admit(f, p->slot->backend, name, &more, err);
}

/* What was filled in for the first backend is not asked of another one that knows better. */
static void forget_sizes(const struct fleet *f, struct vm_spec *s)
{
	if (s->cpus == f->defaults.cpus)
		s->cpus = f->given.cpus;
	if (s->memory == f->defaults.memory)
		s->memory = f->given.memory;
	if (s->disk == f->defaults.disk)
		s->disk = f->given.disk;
}

/* What the limits refuse the default backend may still be made by another one. */
static int place(struct fleet *f, struct plan *p, const char *name, struct err *err)
{
	int r = admit(f, p, name, err);
	struct err why = err ? *err : ERR_NONE;

	if ((r != -EDQUOT && r != -ENOSPC) || p->placed || !f->overflow || f->overflow == p->slot)
		return r;
	snprintf(p->record.placed, sizeof(p->record.placed), "not %s: %.200s", p->slot->ops->name,
		 why.text);
	if (f->overflow->ops->default_image)
		snprintf(p->record.spec.image, sizeof(p->record.spec.image), "%s",
			 f->overflow->ops->default_image);
	if (f->overflow->ops->own_sizes)
		forget_sizes(f, &p->record.spec);
	p->slot = f->overflow;
	r = fleet_name_free(f, p->slot->backend, name, err);
	return r < 0 ? r : admit(f, p, name, err);
}

static void name_record(struct fleet *f, struct plan *p, const char *name)
{
	struct record *r = &p->record;

	free_text(f, name, r->id, fleet_find_id);
	snprintf(r->name, sizeof(r->name), "%s", name);
	snprintf(r->backend, sizeof(r->backend), "%s", p->slot->ops->name);
	snprintf(r->spec.name, sizeof(r->spec.name), "%s", name);
	store_new_tag(&r->spec);
	r->created = wall_ms();
	r->expires = r->ttl ? r->created + r->ttl : 0;
	r->setup = p->setup && p->setup[strspn(p->setup, " \t\r\n")] ? SETUP_PENDING : SETUP_NONE;
}

int plan_make(struct fleet *f, struct plan *p, const char *name, struct err *err)
{
	struct record *rec = &p->record;
	struct vm *vm;
	int r = fleet_name_free(f, p->slot->backend, name, err);

	if (r == 0)
		r = place(f, p, name, err);
	if (r < 0)
		return r;
	name_record(f, p, name);
	/* What an interrupted removal may have left under that id is not the new one's. */
	r = store_remove(f->vms_dir, f->trash_dir, rec->id, err);
	if (r == 0)
		r = store_write(f->vms_dir, rec, err);
	if (r == 0)
		r = write_texts(f, p, err);
	if (r == 0)
		r = p->slot->ops->create(p->slot->backend, rec->id, &rec->spec, err);
	if (r < 0) {
		store_remove(f->vms_dir, f->trash_dir, rec->id, NULL);
		return r;
	}
	vm = fleet_add(f, rec);
	news_created(vm);
	if ((*rec->tags || *rec->comment) && vm->backend->ops->annotate)
		vm->backend->ops->annotate(vm->backend, vm_id(vm), rec->tags, rec->comment, NULL);
	setup_begin(vm);
	life_soon(vm);
	return 0;
}

int fleet_create(struct fleet *f, const char *name, struct err *err)
{
	struct plan p;

	plan_init(f, &p, NULL);
	return plan_make(f, &p, name, err);
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
		r = fleet_name_free(f, vm->backend, name, err);
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

int vm_destroy(struct vm *vm, struct err *err)
{
	struct record record = vm->record;
	struct err own = ERR_NONE;
	int r;

	if (!err)
		err = &own;
	if (!vm->backend)
		return err_set(err, -ENODEV, "its backend %s is not configured",
			       vm->record.backend);
	if (vm->record.destroying && vm->state != VM_FAILED)
		return err_set(err, -EBUSY, "%s is being destroyed already", vm_name(vm));
	record.destroying = true;
	r = store_write(vm->fleet->vms_dir, &record, err);
	/* A full disk must not keep anybody from making room; the backend has a record too. */
	if (r == -ENOSPC || r == -EDQUOT)
		log_warn("vm=%s destroyed without a note of it: %s", vm_name(vm), err->text);
	else if (r < 0)
		return r;
	log_info("vm=%s destroy", vm_label(vm));
	r = vm->backend->ops->destroy(vm->backend, vm_id(vm), err);
	if (r == -EACCES || r == -EBUSY) {
		/* It may not: the sandbox is as it was. */
		if (store_write(vm->fleet->vms_dir, &vm->record, &own) < 0)
			log_error("vm=%s %s", vm_label(vm), own.text);
		return r;
	}
	vm->takes_none = !vm_takes_memory(vm);
	vm->state = VM_DESTROYING;
	vm->record.destroying = true;
	vm_close(vm, "the sandbox is being destroyed");
	if (r == -ENOENT) {
		fleet_remove(vm);	/* it never came to be */
		r = 0;
	} else if (r < 0) {
		vm_report(vm, VM_FAILED, NULL, err);
	}
	return r;
}

int vm_remove(struct vm *vm, struct err *err)
{
	return trash_takes(vm) ? trash_put(vm, err) : vm_destroy(vm, err);
}

int fleet_destroy(struct vm *vm, struct err *err)
{
	bool lent = vm->name_lent;
	int r;

	if (!vm->fleet)
		return err_set(err, -ESTALE, "the sandbox is gone");
	if (vm->record.protect && !vm->record.trashed)
		return err_set(err, -EBUSY, "%s is protected: write 0 to its file protect first",
			       vm_name(vm));
	/* The kernel has looked its name up, and drops it when we say yes. */
	vm->name_lent = false;
	/* Whoever is being destroyed, or failed at that, is not put into the trash. */
	r = vm->record.destroying ? vm_destroy(vm, err) : vm_remove(vm, err);
	if (r < 0)
		vm->name_lent = lent;
	return r;
}
