/*
 * Machines that wait for a name ([kvm] pool = N): clones of a template that run
 * and have not been told who they are. A mkdir gives one its name; another one is
 * made behind it.
 *
 * They are made like the sandbox that was made last, for nothing else tells what the
 * next one will be. As long as there is no template for that there is no pool.
 * They live in state_dir/.pool-N, and end with the daemon; those of a daemon that
 * was killed are removed when the next one starts.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "image.h"
#include "json.h"
#include "layer.h"
#include "log.h"
#include "machine.h"

#define AGAIN_MS (60 * 1000)	/* after a failure */
/* Behind what a user waits for: a machine's start, and the first commands on it. */
#define BEHIND_MS 1000

struct waiting {
	bool ready;		/* it waits for its name, and for nothing else */
};

static void fill(struct loop_timer *);

void pool_check(struct kvm *kvm)
{
	if (kvm->pool && !loop_timer_is_set(&kvm->pool_fill))
		loop_timer_set(kvm->loop, &kvm->pool_fill, BEHIND_MS, fill);
}

static void later(struct kvm *kvm)
{
	loop_timer_set(kvm->loop, &kvm->pool_fill, AGAIN_MS, fill);
}

static void state(struct machine *m, enum vm_state what, const struct err *err)
{
	/* Up without a name: it was reset, and has booted as nobody. */
	if (what == VM_FAILED || what == VM_STOPPED || what == VM_UP) {
		log_warn("a machine of the pool has %s: %s", what == VM_UP ? "restarted" : "ended",
			 err && err->code ? err->text : "");
		machine_destroy(m, NULL);
		later(m->kvm);
	}
}

static void word(struct machine *m, enum identity_word what)
{
}

static void arrived(struct machine *m)
{
	struct waiting *w = m->secret;

	w->ready = true;
	loop_timer_cancel(&m->deadline);
	loop_timer_set(m->kvm->loop, &m->kvm->pool_fill, 0, fill);
}

static void gone(struct machine *m)
{
	free(m->secret);
	m->secret = NULL;
}

static const struct hidden pool_machine = {
	.state = state, .word = word, .arrived = arrived, .gone = gone,
};

/* --- filling ------------------------------------------------------------------------ */

static bool like(const struct machine *m, const struct vm_spec *spec, const char *image_dir)
{
	return m->rec.spec.cpus == spec->cpus && m->rec.spec.memory == spec->memory &&
	       m->rec.spec.disk == spec->disk && m->rec.spec.no_network == spec->no_network &&
	       !strcmp(m->rec.image_dir, image_dir);
}

/* How many there are, and whether one is still being made; those of another kind go. */
static unsigned count(struct kvm *kvm, bool *busy)
{
	struct machine *m, *next;
	unsigned n = 0;

	*busy = false;
	HASH_ITER (hh, kvm->machines, m, next) {
		struct waiting *w = m->secret;

		if (m->hidden != &pool_machine || m->state == VM_DESTROYING)
			continue;
		if (!like(m, &kvm->pool_spec, kvm->pool_image)) {
			machine_destroy(m, NULL);
			continue;
		}
		n++;
		*busy = *busy || !w->ready;
	}
	return n;
}

static bool somebody_waits(struct kvm *kvm)
{
	for (struct machine *m = kvm->machines; m; m = m->hh.next)
		if (!m->hidden && (m->state == VM_CREATING || m->state == VM_BOOTING))
			return true;
	return false;
}

static int add_one(struct kvm *kvm, const struct image *image, const char *template)
{
	char *name = xasprintf(".pool-%llu", (unsigned long long)++kvm->last_hidden);
	struct machine *m = machine_new(kvm, name);
	struct err err;
	int r;

	free(name);
	m->rec.spec = kvm->pool_spec;
	m->hidden = &pool_machine;
	m->secret = xcalloc(1, sizeof(struct waiting));
	snprintf(m->rec.image_dir, sizeof(m->rec.image_dir), "%s", image->dir);
	snprintf(m->rec.base, sizeof(m->rec.base), "%s", template);
	snprintf(m->rec.incoming, sizeof(m->rec.incoming), "%s", template);
	template_accel(template, m->rec.accel);
	template_check(kvm, template);
	r = machine_record(m, &err);
	if (r < 0) {
		log_warn("the pool cannot be filled: %s", err.text);
		free(m->secret);
		machine_free(m);
		return r;
	}
	machine_ask(m, TODO_MAKE);
	return 0;
}

static void fill(struct loop_timer *t)
{
	struct kvm *kvm = container_of(t, struct kvm, pool_fill);
	struct image *image;
	char why[ERR_TEXT_MAX], *template;
	bool busy;

	if (!kvm->pool_image[0] || count(kvm, &busy) >= kvm->pool || busy)
		return;
	if (somebody_waits(kvm)) {
		pool_check(kvm);
		return;
	}
	image = xcalloc(1, sizeof(*image));
	if (image_load(image, kvm->pool_image, NULL) == 0) {
		template = template_find(kvm, image, &kvm->pool_spec, why, sizeof(why));
		if (template && add_one(kvm, image, template) < 0)
			later(kvm);
		free(template);
	}
	free(image);
}

/* --- taking one ------------------------------------------------------------------------ */

static int rename_socket(const struct kvm *kvm, const char *from, const char *to, const char *end)
{
	char *old = xasprintf("%s/%s.%s", kvm->run_dir, from, end);
	char *new = xasprintf("%s/%s.%s", kvm->run_dir, to, end);
	int r = rename(old, new) < 0 ? -errno : 0;

	free(new);
	free(old);
	return r;
}

/*
 * The folder's new name comes last: until then a crash leaves a machine of the pool,
 * and a name that nothing is known of.
 */
static int rename_machine(struct machine *m, const char *name, const struct vm_spec *spec)
{
	struct kvm *kvm = m->kvm;
	char old[sizeof(m->rec.name)], *dir = xasprintf("%s/%s", kvm->state_dir, name);
	int r;

	strcpy(old, m->rec.name);
	HASH_DEL(kvm->machines, m);
	m->rec.spec = *spec;
	snprintf(m->rec.name, sizeof(m->rec.name), "%s", name);
	r = machine_save(m);
	if (r == 0)
		r = rename_socket(kvm, old, name, "qmp");
	if (r == 0)
		r = rename_socket(kvm, old, name, "id");
	if (r == 0)
		r = rename_socket(kvm, old, name, "net");
	if (r == 0)
		r = rename_socket(kvm, old, name, "ctl");
	if (r == 0 && rename(m->dir, dir) < 0)
		r = -errno;
	if (r < 0) {
		snprintf(m->rec.name, sizeof(m->rec.name), "%s", old);
		free(dir);
	} else {
		sync_folder(kvm->state_dir);
		free(m->dir);
		m->dir = dir;
	}
	HASH_ADD_STR(kvm->machines, rec.name, m);
	return r;
}

static struct machine *find_ready(struct kvm *kvm, const struct vm_spec *spec,
				  const char *image_dir)
{
	struct machine *m, *next;

	HASH_ITER (hh, kvm->machines, m, next) {
		struct waiting *w = m->secret;

		if (m->hidden == &pool_machine && w->ready && m->state == VM_BOOTING && m->port &&
		    m->after == AFTER_UNASKED && like(m, spec, image_dir))
			return m;
	}
	return NULL;
}

int pool_take(struct kvm *kvm, const char *name, const struct vm_spec *spec, const char *image_dir)
{
	struct machine *m;

	if (!kvm->pool)
		return -ENOENT;
	kvm->pool_spec = *spec;
	snprintf(kvm->pool_image, sizeof(kvm->pool_image), "%s", image_dir);
	pool_check(kvm);
	m = find_ready(kvm, spec, image_dir);
	if (!m)
		return -ENOENT;
	if (rename_machine(m, name, spec) < 0) {
		machine_destroy(m, NULL);
		return -ENOENT;
	}
	free(m->secret);
	m->secret = NULL;
	m->hidden = NULL;
	m->from_pool = true;
	m->rec.created = (int64_t)(wall_ms() / 1000);
	machine_ask(m, TODO_NAMED);
	return 0;
}

void pool_close(struct kvm *kvm)
{
	struct machine *m, *next;

	loop_timer_cancel(&kvm->pool_fill);
	HASH_ITER (hh, kvm->machines, m, next) {
		char *name;

		if (!m->hidden)
			continue;
		/* What is removed here may still be open in a process that is being killed. */
		run_kill(m);
		name = xstrdup(m->rec.name);
		m->hidden->gone(m);
		machine_free(m);
		make_remove(kvm, name, NULL);
		free(name);
	}
	layers_collect(kvm);
}
