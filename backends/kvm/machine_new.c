/*
 * How a machine begins: made by a user, taken up from what was recorded, or only to be
 * removed; and how it is let go. What it does between is in machine.c.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "buf.h"
#include "err.h"
#include "image.h"
#include "json.h"
#include "log.h"
#include "machine.h"

struct machine *machine_find(struct kvm *kvm, const char *name)
{
	struct machine *m;

	HASH_FIND_STR(kvm->machines, name, m);
	return m;
}

struct machine *machine_new(struct kvm *kvm, const char *name)
{
	struct machine *m = xcalloc(1, sizeof(*m));

	m->kvm = kvm;
	m->dir = xasprintf("%s/%s", kvm->state_dir, name);
	snprintf(m->rec.name, sizeof(m->rec.name), "%s", name);
	return m;
}

void machine_free(struct machine *m)
{
	struct machine *other, *next;

	freeze_cancel(m);
	run_let_go(m);
	run_release(m);
	uplink_let_go(m);
	make_cancel(m);
	ports_free(m);
	HASH_ITER (hh, m->kvm->machines, other, next)
		if (other->cloned_from == m)
			other->cloned_from = NULL;
	loop_later_cancel(&m->later);
	if (machine_find(m->kvm, m->rec.name) == m)
		HASH_DEL(m->kvm->machines, m);
	free(m->workshop);
	free(m->dir);
	free(m);
}

static void set_machine_id(struct record *rec)
{
	uint8_t id[16];

	if (getrandom(id, sizeof(id), 0) != (ssize_t)sizeof(id))
		abort();
	id[6] = (id[6] & 0x0f) | 0x40;	/* so that it is a valid UUID too */
	id[8] = (id[8] & 0x3f) | 0x80;
	for (size_t i = 0; i < sizeof(id); i++)
		snprintf(rec->machine_id + 2 * i, 3, "%02x", id[i]);
}

int machine_record(struct machine *m, struct err *err)
{
	struct kvm *kvm = m->kvm;
	int r = 0;

	m->rec.created = (int64_t)time(NULL);
	m->rec.phase = PHASE_NEW;
	set_machine_id(&m->rec);
	if (mkdir(m->dir, 0700) < 0)
		r = err_sys(err, -errno, "cannot make the folder %s", m->dir);
	if (r == 0)
		r = record_save(&m->rec, m->dir, err);
	if (r == 0 && (r = sync_folder(kvm->state_dir)) < 0)
		err_sys(err, r, "cannot write to %s", kvm->state_dir);
	if (r < 0) {
		if (r != -EEXIST)
			make_remove(kvm, m->rec.name, NULL);
		return r;
	}
	HASH_ADD_STR(kvm->machines, rec.name, m);
	m->state = VM_CREATING;
	return 0;
}

/* From a template if there is one that fits, else by a boot. */
static void choose_start(struct machine *m, const struct image *image)
{
	char *template = template_find(m->kvm, image, &m->rec.spec, m->rec.start_why,
				       sizeof(m->rec.start_why));

	if (template) {
		snprintf(m->rec.base, sizeof(m->rec.base), "%s", template);
		snprintf(m->rec.incoming, sizeof(m->rec.incoming), "%s", template);
		template_accel(template, m->rec.accel);
		template_check(m->kvm, template);
	}
	free(template);
}

int machine_create(struct kvm *kvm, const char *name, const struct vm_spec *spec,
		   const struct image *image, struct err *err)
{
	struct machine *m = machine_new(kvm, name);
	int r;

	m->rec.spec = *spec;
	snprintf(m->rec.image_dir, sizeof(m->rec.image_dir), "%s", image->dir);
	if (!spec->from[0])
		choose_start(m, image);
	r = machine_record(m, err);
	if (r < 0) {
		machine_free(m);
		return r;
	}
	machine_ask(m, TODO_MAKE);
	return 0;
}

void machine_adopt(struct kvm *kvm, const char *name)
{
	struct machine *m = machine_new(kvm, name);
	struct err err;

	if (record_load(&m->rec, m->dir, &err) < 0 || strcmp(m->rec.name, name)) {
		/* Nothing is known of it but that it is there; it can be destroyed. */
		snprintf(m->rec.name, sizeof(m->rec.name), "%s", name);
		err_set(&m->rec.why, -EIO, "its record %s/vm.json is damaged", m->dir);
		log_error("vm=%s %s", name, m->rec.why.text);
		m->rec.phase = PHASE_FAILED;
		m->rec.made = false;
		m->damaged = true;
	}
	run_find_sockets(m);
	HASH_ADD_STR(kvm->machines, rec.name, m);
	m->state = VM_CREATING;
	machine_ask(m, TODO_ADOPT);
}

static void discarded_state(struct machine *m, enum vm_state state, const struct err *err)
{
	if (state == VM_FAILED)
		log_warn("vm=%s cannot be removed: %s", m->rec.name, err ? err->text : "");
}

static void discarded(struct machine *m)
{
}

static const struct hidden discard = { .state = discarded_state, .gone = discarded };

void machine_discard(struct kvm *kvm, const char *name)
{
	struct machine *m = machine_new(kvm, name);

	record_load(&m->rec, m->dir, NULL);
	snprintf(m->rec.name, sizeof(m->rec.name), "%s", name);
	run_find_sockets(m);
	template_discard(&m->rec);
	m->rec.phase = PHASE_DESTROYING;
	m->hidden = &discard;
	HASH_ADD_STR(kvm->machines, rec.name, m);
	m->state = VM_DESTROYING;
	machine_ask(m, TODO_DESTROY);
}
