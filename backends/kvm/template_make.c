/*
 * Making templates (template.c says what they are): a hidden machine boots as any other
 * does -> some logins -> the guest forgets its keys -> it is saved -> its QEMU ends ->
 * its files are moved to where they belong -> they are summed up, which a child does ->
 * the folder gets its name.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "image.h"
#include "json.h"
#include "layer.h"
#include "log.h"
#include "machine.h"
#include "proc.h"
#include "qemu_args.h"
#include "template_sum.h"
#include "work.h"

#define TEMPLATES "templates"
#define MIB (1ull << 20)
#define FREEZE_MS (60 * 1000)

struct making {
	struct machine *m;
	struct proc *proc;		/* ssh, qemu-img, mv: one after the other */
	struct work *work;		/* the sums */
	unsigned step;
	struct loop_timer deadline;
	char *folder;			/* IMAGE/templates/.new-... */
	char *final;
	bool saved;
	struct err err;
	void (*done)(void *user, const char *folder, const struct err *);
	void *user;
};

/* Where one that is made of m has its files before it has its name; free it. */
static char *new_folder(const struct record *rec)
{
	return xasprintf("%s/" TEMPLATES "/.new-%s", rec->image_dir, rec->machine_id);
}

void template_discard(const struct record *rec)
{
	char *folder;

	if (!rec->image_dir[0] || !rec->machine_id[0])
		return;
	folder = new_folder(rec);
	remove_folder(folder);
	free(folder);
}

static void give_up(struct making *t, const struct err *err)
{
	if (!t->err.code && err->code)
		t->err = *err;
	loop_timer_cancel(&t->deadline);
	machine_destroy(t->m, NULL);	/* ends in gone() */
}

static void gone(struct machine *m)
{
	struct making *t = m->secret;

	proc_cancel(t->proc);
	work_cancel(t->work);
	loop_timer_cancel(&t->deadline);
	if (!t->final && t->folder)
		remove_folder(t->folder);
	m->kvm->making = NULL;
	if (!t->final && !t->err.code)
		err_set(&t->err, -ECANCELED, "it was given up");
	t->done(t->user, t->final, &t->err);
	free(t->folder);
	free(t->final);
	free(t);
}

static void run(struct making *t, const char *const argv[], proc_cb *next)
{
	struct err err;

	if (proc_run(t->m->kvm->loop, argv, STEP_MS, next, t, &t->proc, &err) < 0)
		give_up(t, &err);
}

/* --- its files, in their place --- */

static cJSON *describe(const struct making *t)
{
	const struct kvm *kvm = t->m->kvm;
	const struct record *rec = &t->m->rec;
	cJSON *j = cJSON_CreateObject();

	json_add_u64(j, "machine", QEMU_MACHINE_VERSION);
	cJSON_AddStringToObject(j, "accel", rec->accel);
	cJSON_AddStringToObject(j, "qemu", kvm->accel.qemu);
	cJSON_AddStringToObject(j, "host", kvm->accel.host);
	json_add_u64(j, "cpus", rec->spec.cpus);
	json_add_u64(j, "memory", rec->spec.memory);
	json_add_u64(j, "disk", rec->spec.disk);
	return j;
}

static void publish(struct making *t)
{
	char *all = xasprintf("%s/" TEMPLATES, t->m->rec.image_dir), *final;
	const struct record *rec = &t->m->rec;
	struct err err = ERR_NONE;

	final = xasprintf("%s/%s-%ux%lluM-%.8s", all, rec->accel, rec->spec.cpus,
			  (unsigned long long)(rec->spec.memory / MIB), rec->machine_id);
	template_checked(t->folder);
	if (rename(t->folder, final) < 0) {
		err_sys(&err, -errno, "cannot rename %s", t->folder);
		free(final);
	} else {
		sync_folder(all);
		t->final = final;
		template_retire(final, &rec->spec, rec->accel);
	}
	free(all);
	give_up(t, &err);	/* or not: the machine has done its duty */
}

static void summed(void *user, int r, const char *said)
{
	struct making *t = user;
	struct err err;

	t->work = NULL;
	if (r < 0) {
		err_set(&err, r, "%s", said);
		give_up(t, &err);
	} else {
		publish(t);
	}
}

/* In a child. */
static int write_sums(const void *arg, const int *fds, char said[WORK_SAID_MAX])
{
	const struct making *t = arg;
	cJSON *about = describe(t);
	int r = template_sum_write(t->folder, about, said, WORK_SAID_MAX);

	cJSON_Delete(about);
	return r;
}

static void compute_sums(struct making *t)
{
	struct err err;

	if (work_start(t->m->kvm->loop, write_sums, t, NULL, 0, summed, t, &t->work, &err) < 0)
		give_up(t, &err);
}

static bool step_ended(struct making *t, const char *name, int status, const char *said)
{
	struct err err;

	t->proc = NULL;
	if (proc_explain(&err, name, status, said) == 0)
		return true;
	give_up(t, &err);
	return false;
}

static void moved(void *user, int status, const char *out, const char *said)
{
	if (step_ended(user, "mv", status, said))
		compute_sums(user);
}

static void converted(void *user, int status, const char *out, const char *said)
{
	struct making *t = user;
	char *ram = layer_file(t->m->kvm, t->m->rec.layer, LAYER_RAM);
	char *state = layer_file(t->m->kvm, t->m->rec.layer, LAYER_STATE);
	const char *argv[] = { "mv", "-t", t->folder, ram, state, NULL };

	if (step_ended(t, "qemu-img", status, said))
		run(t, argv, moved);
	free(state);
	free(ram);
}

static void collect_files(struct making *t)
{
	char *all = xasprintf("%s/" TEMPLATES, t->m->rec.image_dir), *to;
	char *from = machine_disk(t->m);
	struct image *image = xcalloc(1, sizeof(*image));
	struct err err;
	int r = image_load(image, t->m->rec.image_dir, &err);

	t->folder = new_folder(&t->m->rec);
	to = xasprintf("%s/" LAYER_DISK, t->folder);
	if (r == 0 && ((mkdir(all, 0700) < 0 && errno != EEXIST) || mkdir(t->folder, 0700) < 0))
		r = err_sys(&err, -errno, "cannot make the folder %s", t->folder);
	if (r < 0) {
		give_up(t, &err);
	} else {
		const char *argv[] = { "qemu-img", "convert", "-O", "qcow2", "-F", "qcow2",
				       "-B", image->disk, from, to, NULL };

		run(t, argv, converted);
	}
	free(to);
	free(image);
	free(from);
	free(all);
}

/* --- the machine --- */

static void sent(struct machine *m)
{
}

static void saved(struct machine *m, const struct err *err)
{
	struct making *t = m->secret;

	if (err->code) {
		give_up(t, err);
		return;
	}
	t->saved = true;
	run_end(m, AFTER_STOP);
}

static void not_frozen(struct loop_timer *timer)
{
	struct making *t = container_of(timer, struct making, deadline);
	struct err err;

	err_set(&err, -ETIMEDOUT, "the guest cannot be made a template of: its identity service "
		"does not answer");
	give_up(t, &err);
}

static void word(struct machine *m, enum identity_word what)
{
	struct making *t = m->secret;
	struct err err;

	if (what != IDENTITY_FROZEN || !loop_timer_is_set(&t->deadline))
		return;
	loop_timer_cancel(&t->deadline);
	m->op = OP_TEMPLATE;
	strcpy(m->save_to, m->rec.layer);
	if (save_start(m, m->rec.layer, sent, saved, &err) < 0)
		give_up(t, &err);
}

static void freeze(struct making *t)
{
	loop_timer_set(t->m->kvm->loop, &t->deadline, FREEZE_MS, not_frozen);
	if (t->m->port)
		identity_send(t->m->port, "freeze");
}

/*
 * What the first users of a machine do, so that what it takes is in its memory: the
 * shell and its programs, a second login by the same way, SFTP.
 */
static const char *const warm_up[] = {
	"true", "bash -lc 'ls -la / >/dev/null; cat /etc/passwd; id; ps ax; df' >/dev/null",
	"python3 -c 'import json, os, subprocess'; true", "true", "sftp", "true",
};

static void warm(struct making *);

static void warmed(void *user, int status, const char *out, const char *said)
{
	struct making *t = user;

	/* SFTP ends as soon as nobody speaks it, in error. */
	if (!strcmp(warm_up[t->step], "sftp") || step_ended(t, "ssh", status, said)) {
		t->proc = NULL;
		t->step++;
		warm(t);
	}
}

static void warm(struct making *t)
{
	bool more = t->step < sizeof(warm_up) / sizeof(*warm_up);
	bool sftp = more && !strcmp(warm_up[t->step], "sftp");
	char *key = machine_path(t->m, FILE_CLIENT_KEY);
	char *port = xasprintf("%d", t->m->rec.port), *to = xasprintf("%s@127.0.0.1", t->m->user);
	const char *argv[] = {
		"ssh", "-F", "/dev/null", "-i", key, "-p", port, "-o", "IdentitiesOnly=yes",
		"-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o",
		"UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
		"-o", "KexAlgorithms=curve25519-sha256", sftp ? "-s" : "-T", to,
		more ? warm_up[t->step] : "", NULL
	};

	if (more)
		run(t, argv, warmed);
	else
		freeze(t);
	free(to);
	free(port);
	free(key);
}

static void state(struct machine *m, enum vm_state what, const struct err *err)
{
	struct making *t = m->secret;
	struct err why;

	if (what == VM_UP && !t->proc && !t->saved && !loop_timer_is_set(&t->deadline)) {
		warm(t);
	} else if (what == VM_STOPPED && t->saved) {
		collect_files(t);
	} else if (what == VM_FAILED || what == VM_STOPPED) {
		err_set(&why, -EIO, "%s", err && err->code ? err->text : "the machine has ended");
		give_up(t, &why);
	}
}

static const struct hidden template_machine = { .state = state, .word = word, .gone = gone };

int template_make(struct kvm *kvm, const struct image *image, const struct vm_spec *spec,
		  void (*done)(void *user, const char *folder, const struct err *), void *user,
		  struct err *err)
{
	char *name = xasprintf(".template-%llu", (unsigned long long)++kvm->last_hidden);
	struct making *t = xcalloc(1, sizeof(*t));
	struct machine *m = machine_new(kvm, name);
	int r;

	m->rec.spec = *spec;
	strcpy(m->rec.spec.name, "template");
	m->rec.spec.from[0] = '\0';
	snprintf(m->rec.image_dir, sizeof(m->rec.image_dir), "%s", image->dir);
	m->hidden = &template_machine;
	m->secret = t;
	t->m = m;
	t->done = done;
	t->user = user;
	r = machine_record(m, err);
	if (r < 0) {
		machine_free(m);
		free(t);
	} else {
		kvm->making = m;
		machine_ask(m, TODO_MAKE);
	}
	free(name);
	return r;
}

/* --- in the background ---------------------------------------------------------------- */

static void made_like(void *user, const char *folder, const struct err *err)
{
	struct kvm *kvm = user;

	if (err->code) {
		log_warn("no template could be made: %s", err->text);
		kvm->template_failures++;
		return;
	}
	log_info("a template was made: %s", folder);
	pool_check(kvm);
}

/* It is a machine more for a while: not where that one would not fit. */
static bool memory_for(const struct vm_spec *spec)
{
	struct sysinfo si;

	return sysinfo(&si) ||
	       ((uint64_t)si.freeram + si.bufferram) * si.mem_unit > spec->memory / 2;
}

void template_make_like(const struct machine *m)
{
	struct kvm *kvm = m->kvm;
	struct image *image;
	char why[ERR_TEXT_MAX], *there;
	struct err err;

	if (m->hidden || !m->rec.can_clone || !kvm->templates || kvm->making ||
	    kvm->template_failures > 2 || m->rec.base[0] || m->rec.spec.from[0] ||
	    !memory_for(&m->rec.spec))
		return;
	image = xcalloc(1, sizeof(*image));
	if (image_load(image, m->rec.image_dir, NULL) == 0) {
		there = template_find(kvm, image, &m->rec.spec, why, sizeof(why));
		if (!there && access(image->dir, W_OK) == 0 &&
		    template_make(kvm, image, &m->rec.spec, made_like, kvm, &err) < 0)
			log_warn("no template could be made: %s", err.text);
		free(there);
	}
	free(image);
}
