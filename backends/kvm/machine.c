/*
 * A VM's states: what was asked of it, what it has come to, and how that is
 * reported. Asking (machine_start and the like) writes the record, sets todo
 * and returns; the work goes on from the loop, in make.c and run.c, and ends
 * in one of machine_made, _failed, _stopped, _gone, or in VM_UP.
 */
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"
#include "endpoint.h"
#include "err.h"
#include "image.h"
#include "json.h"
#include "layer.h"
#include "log.h"
#include "proc.h"
#include "process.h"

static const char *const state_words[] = {
	[VM_CREATING] = "being created",
	[VM_BOOTING] = "booting",
	[VM_UP] = "running",
	[VM_PAUSED] = "paused",
	[VM_STOPPED] = "stopped",
	[VM_DESTROYING] = "being destroyed",
	[VM_FAILED] = "failed",
};
_Static_assert(sizeof(state_words) / sizeof(*state_words) == VM_FAILED + 1, "words a state");

struct machine *machine_find(struct kvm *kvm, const char *name)
{
	struct machine *m;

	HASH_FIND_STR(kvm->machines, name, m);
	return m;
}

char *machine_path(const struct machine *m, const char *file)
{
	return xasprintf("%s/%s", m->dir, file);
}

char *machine_disk(const struct machine *m)
{
	if (!m->rec.layer[0])
		return machine_path(m, FILE_DISK);
	return layer_file(m->kvm, m->rec.layer, LAYER_DISK);
}

void machine_node(const struct machine *m, char node[24])
{
	snprintf(node, 24, "%s%s", m->rec.layer[0] ? "layer-" : "disk", m->rec.layer);
}

char *machine_read(const struct machine *m, const char *file)
{
	char *path = machine_path(m, file), *text = NULL;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = -1;

	free(path);
	if (fd < 0)
		return NULL;
	text = xcalloc(1, 8192);
	n = read(fd, text, 8191);
	close(fd);
	if (n > 0)
		return text;
	free(text);
	return NULL;
}

char *machine_socket(const struct machine *m, const char *end)
{
	return xasprintf("%s.%s", m->rec.name, end);
}

bool machine_kvm(const struct machine *m)
{
	return !strcmp(m->rec.accel, "kvm");
}

void machine_console_end(const struct machine *m, char *said, size_t size)
{
	char *path = machine_path(m, FILE_CONSOLE);

	if (!machine_panicked(m, said, size))
		last_words(path, said, size);
	free(path);
}

bool machine_panicked(const struct machine *m, char *said, size_t size)
{
	char *path = machine_path(m, FILE_CONSOLE);
	bool found;

	found = words_behind(path, m->console_from, "Kernel panic - not syncing: ", said, size);
	free(path);
	return found;
}

void machine_mark_console(struct machine *m)
{
	char *path = machine_path(m, FILE_CONSOLE);
	struct stat st;

	m->console_from = stat(path, &st) == 0 ? st.st_size : 0;
	free(path);
}

int machine_save(struct machine *m)
{
	struct err err;
	int r = record_save(&m->rec, m->dir, &err);

	if (r < 0)
		log_error("vm=%s %s", m->rec.name, err.text);
	return r;
}

/* --- reports ----------------------------------------------------------------- */

/* "ssh-ed25519 AAAA... comment" without the comment. */
static void take_host_key(struct endpoint *ep, const char *line)
{
	size_t type = strcspn(line, " "), key = line[type] ? strcspn(line + type + 1, " \n") : 0;

	snprintf(ep->host_key, sizeof(ep->host_key), "%.*s", (int)(type + 1 + key), line);
}

static void fill_endpoint(const struct machine *m, struct endpoint *ep)
{
	char *key = machine_read(m, FILE_HOST_KEY ".pub");

	*ep = (struct endpoint){ .port = m->rec.port ? m->rec.port : (int)uplink_kept(m) };
	strcpy(ep->host, "127.0.0.1");
	snprintf(ep->user, sizeof(ep->user), "%s", m->user);
	snprintf(ep->identity, sizeof(ep->identity), "%s/%s", m->dir, FILE_CLIENT_KEY);
	if (key)
		take_host_key(ep, key);
	free(key);
}

void machine_report(struct machine *m, enum vm_state state, const struct err *err)
{
	struct kvm *kvm = m->kvm;
	bool reached = state == VM_UP ||
		       ((state == VM_STOPPED || state == VM_BOOTING) && uplink_kept(m));
	struct endpoint ep;

	m->state = state;
	log_debug("vm=%s is %s%s%s", m->rec.name, state_words[state], err && err->code ? ": " : "",
		 err && err->code ? err->text : "");
	if (m->hidden) {
		m->hidden->state(m, state, err);
		return;
	}
	if (reached)
		fill_endpoint(m, &ep);
	kvm->events->state(kvm->user, m->rec.name, state, reached ? &ep : NULL,
			   err && err->code ? err : NULL);
}

/* A stage that is begun again forgets what came behind it. */
void machine_stage(struct machine *m, enum stage stage)
{
	for (int later = stage; later < STAGES; later++)
		m->stages[later] = 0;
	m->stages[stage] = clock_ms();
}

static void print_stages(const struct machine *m, struct buf *out)
{
	static const char *const names[] = {
		[STAGE_FILES] = "files", [STAGE_QEMU] = "qemu", [STAGE_STATE] = "state",
		[STAGE_UP] = "guest",
	};
	int64_t before = m->stages[STAGE_ASKED];

	if (!before || !m->stages[STAGE_UP])
		return;
	buf_printf(out, "start_ms");
	for (int stage = STAGE_FILES; stage < STAGES; stage++) {
		if (!m->stages[stage])
			continue;
		buf_printf(out, " %s=%lld", names[stage], (long long)(m->stages[stage] - before));
		before = m->stages[stage];
	}
	buf_printf(out, "\n");
}

void machine_changed(struct machine *m)
{
	if (!m->hidden)
		m->kvm->events->changed(m->kvm->user, m->rec.name);
}

void machine_still(struct machine *m, bool still)
{
	if (!m->hidden)
		m->kvm->events->still(m->kvm->user, m->rec.name, still);
}

void machine_trouble(struct machine *m, const char *operation, const struct err *err)
{
	log_warn("vm=%s %s: %s", m->rec.name, operation, err->text);
	if (!m->hidden)
		m->kvm->events->trouble(m->kvm->user, m->rec.name, operation, err);
}

void machine_made(struct machine *m)
{
	machine_stage(m, STAGE_FILES);
	m->rec.made = true;
	m->origin[0] = '\0';
	m->rec.phase = PHASE_STARTING;
	machine_save(m);
	machine_report(m, VM_BOOTING, NULL);
	run_start(m);
}

static void settle(struct machine *m, enum phase phase, const struct err *why)
{
	freeze_settle_dead(m);
	m->rec.phase = phase;
	m->rec.stopping = m->rec.ready = m->rec.paused = m->rec.cloning = false;
	m->rec.pid = m->rec.net_pid = 0;
	m->rec.port = 0;
	m->rec.why = why ? *why : ERR_NONE;
	machine_save(m);
}

void machine_failed(struct machine *m, const struct err *why)
{
	settle(m, PHASE_FAILED, why);
	machine_report(m, VM_FAILED, why);
}

void machine_stopped(struct machine *m, const struct err *why)
{
	settle(m, PHASE_STOPPED, why);
	machine_report(m, VM_STOPPED, why);
}

void machine_gone(struct machine *m)
{
	struct kvm *kvm = m->kvm;
	char name[sizeof(m->rec.name)];
	const struct hidden *hidden = m->hidden;
	struct err err;

	strcpy(name, m->rec.name);
	if (make_remove(kvm, name, &err) < 0) {
		machine_report(m, VM_FAILED, &err);
		return;
	}
	if (hidden)
		hidden->gone(m);
	machine_free(m);
	layers_collect(kvm);
	if (!hidden)
		kvm->events->gone(kvm->user, name);
}

/* --- what was asked, from the loop ------------------------------------------- */

static void make(struct machine *m)
{
	if (m->rec.spec.from[0] && !m->origin[0])
		snapshot_origin(m);
	else
		make_files(m);
}

static void adopt(struct machine *m)
{
	switch (m->rec.phase) {
	case PHASE_NEW:
		machine_report(m, VM_CREATING, NULL);
		make(m);
		break;
	case PHASE_STARTING:
		if (!run_adopt(m)) {
			machine_report(m, VM_BOOTING, NULL);
			run_start(m);
		}
		break;
	case PHASE_RUNNING:
		if (!run_adopt(m))
			run_ended_unseen(m);
		break;
	case PHASE_STOPPED:
		if (run_is_over(m))
			machine_report(m, VM_STOPPED, &m->rec.why);
		break;
	case PHASE_FAILED:
		machine_report(m, VM_FAILED, &m->rec.why);
		break;
	case PHASE_DESTROYING:
		machine_report(m, VM_DESTROYING, NULL);
		run_destroy(m);
		break;
	}
}

static void go_on(struct loop_later *l)
{
	struct machine *m = container_of(l, struct machine, later);
	enum todo todo = m->todo;

	m->todo = TODO_NOTHING;
	switch (todo) {
	case TODO_NOTHING:
		break;
	case TODO_ADOPT:
		adopt(m);
		break;
	case TODO_MAKE:
		machine_report(m, VM_CREATING, NULL);
		make(m);
		break;
	case TODO_START:
		machine_report(m, VM_BOOTING, NULL);
		run_start(m);
		break;
	case TODO_STOP:
		run_stop(m);
		break;
	case TODO_RESTART:
		run_restart(m);
		break;
	case TODO_DESTROY:
		machine_report(m, VM_DESTROYING, NULL);
		run_destroy(m);		/* frees it */
		break;
	case TODO_PAUSE:
	case TODO_RESUME:
		run_pause(m, todo == TODO_PAUSE);
		break;
	case TODO_SUSPEND:
	case TODO_SNAPSHOT:
	case TODO_RESTORE:
		snapshot_go_on(m, todo);
		break;
	case TODO_NAMED:
		machine_report(m, VM_BOOTING, NULL);
		run_named(m);
		break;
	}
}

void machine_ask(struct machine *m, enum todo todo)
{
	if (todo == TODO_MAKE || todo == TODO_START || todo == TODO_NAMED)
		machine_stage(m, STAGE_ASKED);
	m->todo = todo;
	loop_later(m->kvm->loop, &m->later, go_on);
}

void machine_look_again(struct machine *m)
{
	machine_ask(m, m->rec.phase == PHASE_DESTROYING ? TODO_DESTROY : TODO_ADOPT);
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

/* --- asking ------------------------------------------------------------------ */

int machine_refuse(const struct machine *m, const char *what, struct err *err)
{
	bool runs = m->state == VM_UP || m->state == VM_PAUSED;

	/* What its state does not tell. */
	if (runs && m->rec.stopping)
		return err_set(err, -EBUSY, "cannot %s %s: it is being stopped", what, m->rec.name);
	if (runs && !run_reachable(m))
		return err_set(err, -EBUSY, "cannot %s %s now: its QEMU ends, or does not answer "
			       "yet", what, m->rec.name);
	return err_set(err, -EBUSY, "cannot %s %s: it is %s", what, m->rec.name,
		       state_words[m->state]);
}

int machine_busy(const struct machine *m, const char *what, struct err *err)
{
	static const char *const doing[] = {
		[OP_NONE] = "", [OP_SNAPSHOT] = "a snapshot is being taken",
		[OP_RESTORE] = "a snapshot is being restored",
		[OP_SUSPEND] = "it is being suspended",
		[OP_ORIGIN] = "it is being cloned", [OP_TEMPLATE] = "a template is made of it",
	};

	return m->op == OP_NONE ? 0 :
		err_set(err, -EBUSY, "cannot %s %s now: %s", what, m->rec.name, doing[m->op]);
}

int machine_occupied(const struct machine *m, const char *what, struct err *err)
{
	if (m->todo != TODO_NOTHING)
		return err_set(err, -EBUSY, "cannot %s %s: it has something else to do", what,
			       m->rec.name);
	return machine_busy(m, what, err);
}

int machine_start(struct machine *m, struct err *err)
{
	struct record before = m->rec;
	int r;

	if (m->state != VM_STOPPED && m->state != VM_FAILED)
		return machine_refuse(m, "start", err);
	if (machine_busy(m, "start", err) < 0)
		return -EBUSY;
	if (m->rec.phase == PHASE_DESTROYING || !m->rec.image_dir[0])
		return err_set(err, -EBUSY, "cannot start %s: all it can do is be destroyed",
			       m->rec.name);
	if (m->rec.made && run_check_start(m, err) < 0)
		return err->code;
	m->rec.phase = m->rec.made ? PHASE_STARTING : PHASE_NEW;
	m->rec.why = ERR_NONE;
	r = record_save(&m->rec, m->dir, err);
	if (r < 0) {
		m->rec = before;
		return r;
	}
	m->no_kvm = ERR_NONE;
	m->no_kvm_ms = 0;
	m->crashed = false;
	m->state = m->rec.made ? VM_BOOTING : VM_CREATING;
	machine_ask(m, m->rec.made ? TODO_START : TODO_MAKE);
	return 0;
}

static bool runs(const struct machine *m)
{
	return m->state == VM_BOOTING || m->state == VM_UP || m->state == VM_PAUSED;
}

int machine_stop(struct machine *m, struct err *err)
{
	if (!runs(m))
		return machine_refuse(m, "stop", err);
	if (machine_busy(m, "stop", err) < 0)
		return -EBUSY;
	m->rec.stopping = true;
	machine_save(m);
	machine_ask(m, TODO_STOP);
	return 0;
}

int machine_restart(struct machine *m, struct err *err)
{
	if (m->state == VM_STOPPED || m->state == VM_FAILED)
		return machine_start(m, err);
	if (!runs(m) || m->rec.stopping)
		return machine_refuse(m, "restart", err);
	if (machine_busy(m, "restart", err) < 0)
		return -EBUSY;
	if (m->state == VM_BOOTING && !m->alive)
		return 0;		/* it has not been started yet, and will be */
	machine_ask(m, TODO_RESTART);
	return 0;
}

/* Is all that it has to do to pause, or to go on? */
static bool turns(const struct machine *m)
{
	return m->todo == TODO_PAUSE || m->todo == TODO_RESUME;
}

/* Either takes back the other one that is under way. */
int machine_pause(struct machine *m, struct err *err)
{
	bool resumes = m->state == VM_PAUSED &&
		       (m->todo == TODO_RESUME ||
			(!m->rec.paused && !loop_timer_is_set(&m->full)));

	if ((m->state != VM_UP && !resumes) || m->rec.stopping || !run_reachable(m))
		return machine_refuse(m, "pause", err);
	if (!turns(m) && machine_occupied(m, "pause", err) < 0)
		return -EBUSY;
	machine_ask(m, TODO_PAUSE);
	return 0;
}

int machine_resume(struct machine *m, struct err *err)
{
	bool pauses = m->state == VM_UP && (m->todo == TODO_PAUSE || m->rec.paused);

	if ((m->state != VM_PAUSED && !pauses) || m->rec.stopping || !run_reachable(m))
		return machine_refuse(m, "resume", err);
	if (!turns(m) && machine_occupied(m, "resume", err) < 0)
		return -EBUSY;
	machine_ask(m, TODO_RESUME);
	return 0;
}

int machine_destroy(struct machine *m, struct err *err)
{
	struct err why;

	if (m->state == VM_DESTROYING)
		return machine_refuse(m, "destroy", err);
	/* A full disk must not stand in the way: what follows makes room. */
	m->rec.phase = PHASE_DESTROYING;
	machine_save(m);
	make_cancel(m);
	err_set(&why, -ECANCELED, "it is being destroyed");
	snapshot_abandon(m, &why);
	m->state = VM_DESTROYING;
	machine_ask(m, TODO_DESTROY);
	return 0;
}

/* Where it came from, and what becomes of it when it is started. */
static void machine_start_info(const struct machine *m, struct buf *out)
{
	const struct record *rec = &m->rec;

	if (rec->spec.from[0])
		buf_printf(out, "cloned_from \"%s%s%s\"\n", rec->spec.from,
			   rec->spec.from_snapshot[0] ? "/" : "", rec->spec.from_snapshot);
	if (rec->base[0] && !rec->start_why[0])
		buf_printf(out, "start template %s\n", strrchr(rec->base, '/') + 1);
	else if (!rec->spec.from[0] || rec->start_why[0])
		buf_printf(out, "start boot\n");
	if (m->from_pool)
		buf_printf(out, "from_pool yes\n");
	if (rec->start_why[0])
		buf_printf(out, "start_why %s\n", rec->start_why);
	if (m->state == VM_STOPPED && rec->incoming[0])
		buf_printf(out, "suspended yes\n");
	if (rec->snapshot_count)
		buf_printf(out, "snapshots %zu\n", rec->snapshot_count);
}

void machine_info(const struct machine *m, struct buf *out)
{
	const struct record *rec = &m->rec;

	buf_printf(out, "image %s\nimage_dir %s\ncpus %u\nmemory %llu\ndisk %llu\n",
		   rec->spec.image, rec->image_dir, rec->spec.cpus,
		   (unsigned long long)rec->spec.memory, (unsigned long long)rec->spec.disk);
	buf_printf(out, "created %lld\nmachine_id %s\n", (long long)rec->created, rec->machine_id);
	if (rec->accel[0])
		buf_printf(out, "accel %s\n", rec->accel);
	if (rec->accel_why[0])
		buf_printf(out, "accel_why %s\n", rec->accel_why);
	machine_start_info(m, out);
	print_stages(m, out);
	if (m->alive)
		buf_printf(out, "pid %d\n", (int)m->child.pid);
	if (uplink_alive(m))
		buf_printf(out, "net_pid %d\n", (int)uplink_pid(m));
	cost_print(m, out);
	if (loop_timer_is_set(&m->full))
		buf_printf(out, "paused_why the host's disk is full\n");
}
