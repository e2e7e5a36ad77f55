/*
 * One sandbox: facts from its backend, its SSH connection (the link), its jobs.
 *
 * The backend's state says whether there is a machine (enum vm_state in
 * backend.h); the link says whether we can talk to it (enum link_state). What users
 * see as status is made of both, by vm_status.
 *
 * The link is made as soon as a VM has booted, since that is the proof that it
 * runs; that of an adopted VM when it is first needed. It is let go when nothing
 * has used it for LINK_IDLE_MS. When it breaks, one attempt is made at once, while
 * requests wait; when it has fallen silent, or that attempt fails, the sandbox is
 * unreachable: requests fail at once and it is probed behind, at growing intervals.
 *
 * A machine that stands still and will go on takes its link with it (held): nobody is
 * asked for a sign of life, and neither jobs nor the disk's calls end. So it is with one that
 * is suspended, if its backend says that it will be reached at the same place.
 */
#include "vm_internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk.h"
#include "guest.h"
#include "job.h"
#include "lane.h"
#include "log.h"
#include "news.h"
#include "ssh.h"

#define CONNECT_MS 20000	/* under emulation the key exchange alone takes seconds */
#define RECONNECT_MS 8000	/* meanwhile requests wait, and its status is what it was */
/* A guest that cuts each login is not indulged: so many at once, in so long. */
#define RECONNECT_MAX 10
#define RECONNECT_SPAN_MS 10000
#define FIRST_LOGIN_MS 90000	/* after the boot, until it counts as unreachable */
#define LINK_IDLE_MS (5 * 60 * 1000)
#define PROBE_FIRST_MS 1000
#define PROBE_MAX_MS 30000

static const char *const state_names[] = {
	[VM_CREATING] = "creating", [VM_BOOTING] = "booting", [VM_UP] = "running",
	[VM_PAUSED] = "paused", [VM_STOPPED] = "stopped", [VM_DESTROYING] = "destroying",
	[VM_FAILED] = "failed",
};

static void link_connect(struct vm *, int64_t deadline_ms);
static void link_idle_check(struct loop_timer *);

/* --- life ---------------------------------------------------------------- */

struct vm *vm_ref(struct vm *vm)
{
	vm->refs++;
	return vm;
}

static void vm_free(struct vm *vm)
{
	assert(!vm->ssh && list_empty(&vm->jobs));
	wait_cancel(&vm->disk_waiter);
	disk_destroy(vm->disk);
	vm_guest_finish(vm);
	free(vm->why_down);
	free(vm->cwd);
	free(vm->env);
	free(vm->jobs_dir);
	free(vm);
}

void vm_unref(struct vm *vm)
{
	if (vm && --vm->refs == 0)
		vm_free(vm);
}

static void disk_has_news(struct waiter *w)
{
	struct vm *vm = container_of(w, struct vm, disk_waiter);

	wait_add(disk_news(vm->disk), w);
	wait_wake(&vm->news);
}

struct vm *vm_create(struct fleet *f, const struct record *r)
{
	struct vm *vm = xcalloc(1, sizeof(*vm));
	struct err err = ERR_NONE;

	vm->fleet = f;
	vm->serial = ++f->last_serial;
	vm->refs = 1;
	vm->record = *r;
	vm->state = VM_CREATING;
	vm->changed = wall_ms();
	vm->last_status = vm_status(vm);
	settings_load(vm);
	wait_init(&vm->news);
	list_init(&vm->jobs);
	list_init(&vm->queue);
	list_init(&vm->lanes);
	list_init(&vm->killer.wanted);
	list_init(&vm->killer.sent);
	list_init(&vm->killer.errands);
	vm->jobs_dir = xasprintf("%s/%s/jobs", f->vms_dir, r->id);
	if (make_dirs(vm->jobs_dir, &err) < 0)
		log_error("vm=%s %s", r->name, err.text);
	jobs_load(vm);
	life_load(vm);
	setup_load(vm);
	vm->disk = disk_create(f->loop, f->cache);
	waiter_init(&vm->disk_waiter, disk_has_news);
	wait_add(disk_news(vm->disk), &vm->disk_waiter);
	return vm;
}

void vm_touch(struct vm *vm)
{
	const char *status = vm_status(vm), *was;

	if (status != vm->last_status) {
		was = vm->last_status;
		vm->last_status = status;
		vm->changed = wall_ms();
		news_status(vm, was);
	}
	wait_wake(&vm->news);
}

/* Nothing of what its backend keeps for us is wanted. (One that is closed keeps nothing.) */
static void release(struct vm *vm)
{
	vm->kept = false;
	if (!vm->fleet->closing && vm->backend && vm->backend->ops->release)
		vm->backend->ops->release(vm->backend, vm_id(vm));
}

/* Close the connection: jobs are lost, calls of the disk are answered. */
static void link_close(struct vm *vm, enum link_state next)
{
	struct ssh *ssh = vm->ssh;

	if (vm->kept)
		release(vm);
	vm->ssh = NULL;
	vm->link = next;
	loop_timer_cancel(&vm->retry);
	if (ssh) {
		names_recall(vm);
		disk_detach(vm->disk);
		ssh_destroy(ssh);
	}
	lane_main_down(vm);
	if (next == LINK_NONE)
		lanes_close(vm);	/* no machine, or another one */
}

void vm_forget(struct vm *vm)
{
	vm_ref(vm);
	link_close(vm, LINK_NONE);
	jobs_forget(vm);
	vm->fleet = NULL;
	wait_wake(&vm->news);
	vm_unref(vm);
	vm_unref(vm);
}

void vm_detach(struct vm *vm)
{
	link_close(vm, LINK_NONE);
	jobs_leave(vm);
	life_save(vm);
	vm->fleet = NULL;
	wait_wake(&vm->news);
	vm_unref(vm);
}

/* --- the link --------------------------------------------------------------- */

static bool link_allowed(const struct vm *vm)
{
	return !vm_is_closed(vm) && vm->state == VM_UP && vm->has_endpoint;
}

static void link_up(void *user)
{
	struct vm *vm = user;

	log_info("vm=%s connected, %s", vm_name(vm), ssh_server_version(vm->ssh));
	vm->link = LINK_UP;
	vm->attempts = 0;
	vm->seen_up = true;
	if (vm->error.code == -EHOSTDOWN)
		vm->error = ERR_NONE;	/* it has gone by */
	vm->last_used = loop_now(vm->fleet->loop);
	loop_timer_set(vm->fleet->loop, &vm->retry, LINK_IDLE_MS, link_idle_check);
	lane_main_up(vm);
	disk_attach(vm->disk, vm->ssh, vm->to.sudo);
	names_lend(vm);
	vm_ref(vm);
	vm_touch(vm);
	killer_go(vm);
	setup_begin(vm);
	jobs_pump(vm);
	vm_unref(vm);
}

static void probe(struct loop_timer *t)
{
	struct vm *vm = container_of(t, struct vm, retry);
	enum link_state was = vm->link;

	link_connect(vm, CONNECT_MS);
	if (was == LINK_DOWN)
		vm->link = LINK_DOWN;	/* nobody waits for a probe */
}

void vm_link_probe(struct vm *vm)
{
	if (vm->link != LINK_DOWN || vm->ssh)
		return;
	vm->attempts = 0;
	probe(&vm->retry);
}

static void link_retry(struct vm *vm, enum link_state meanwhile)
{
	int64_t ms = PROBE_FIRST_MS << (vm->attempts < 5 ? vm->attempts : 5);

	vm->link = meanwhile;
	vm->attempts++;
	loop_timer_set(vm->fleet->loop, &vm->retry, ms < PROBE_MAX_MS ? ms : PROBE_MAX_MS, probe);
}

static void note_why_down(struct vm *vm, const struct err *why)
{
	free(vm->why_down);
	vm->why_down = xstrdup(why->text);
}

static void link_lost(struct vm *vm, const struct err *why)
{
	/* A login that was refused, or the key, will be refused again. */
	bool final = why->code == -EKEYREJECTED || why->code == -EACCES;
	bool booting = !vm->seen_up && vm->state == VM_UP && why->code != -ETIME &&
		       wall_ms() - vm->booted < FIRST_LOGIN_MS;

	if (!booting || final)
		note_why_down(vm, why);
	if (final) {
		/*
		 * Somebody else's machine, or none of ours. Not asked again until there are news.
		 */
		vm->link = LINK_DOWN;
		vm_set_error(vm, "connect", "", why);
		jobs_cancel_queued(vm, why->text);
	} else if (booting) {
		log_debug("vm=%s not yet: %s", vm_name(vm), why->text);
		loop_timer_set(vm->fleet->loop, &vm->retry, PROBE_FIRST_MS, probe);
		vm->link = LINK_CONNECTING;
		return;		/* its status has not changed */
	} else {
		if (vm->link != LINK_DOWN) {
			struct err shown = *why;

			shown.code = -EHOSTDOWN;
			vm_set_error(vm, "connect", "", &shown);
			/*
			 * Whoever waits for them is to know; nothing runs hours later by
			 * surprise.
			 */
			jobs_cancel_queued(vm, why->text);
		}
		link_retry(vm, LINK_DOWN);
	}
	vm_touch(vm);
}

static bool may_reconnect(struct vm *vm)
{
	if (clock_ms() - vm->first_cut > RECONNECT_SPAN_MS) {
		vm->first_cut = clock_ms();
		vm->cuts = 0;
	}
	return vm->cuts < RECONNECT_MAX;
}

static void link_down(void *user, const struct err *why)
{
	struct vm *vm = user;
	bool was_up = vm->link == LINK_UP;
	/* Cut: perhaps only the connection is gone. Silence (-ETIMEDOUT) needs no second try. */
	bool at_once = was_up && why->code == -EHOSTDOWN && !vm->leaving && may_reconnect(vm);
	struct err copy = *why;
	enum link_state before = vm->link;

	vm_ref(vm);
	log_debug("vm=%s link down: %s", vm_name(vm), why->text);
	link_close(vm, before);
	if (!link_allowed(vm) || (vm->leaving && before != LINK_DOWN))
		vm->link = LINK_NONE;	/* until there are news of it */
	else if (!at_once)
		link_lost(vm, &copy);
	if (link_allowed(vm) && at_once) {
		vm->cuts++;
		link_connect(vm, RECONNECT_MS);
	}
	wait_wake(&vm->news);
	vm_unref(vm);
}

static const struct ssh_events link_events = { .up = link_up, .down = link_down };

static void link_connect(struct vm *vm, int64_t deadline_ms)
{
	assert(!vm->ssh);
	loop_timer_cancel(&vm->retry);
	vm->link = LINK_CONNECTING;
	vm->ssh = ssh_create(vm->fleet->loop, &vm->to, deadline_ms, &link_events, vm);
}

static void link_idle_check(struct loop_timer *t)
{
	struct vm *vm = container_of(t, struct vm, retry);
	int64_t left = vm->last_used + LINK_IDLE_MS - loop_now(vm->fleet->loop);

	if (lanes_busy(vm) || disk_in_use(vm->disk) || left > 0 || vm->state == VM_PAUSED ||
	    vm->kept) {
		loop_timer_set(vm->fleet->loop, t, left > 0 ? left : LINK_IDLE_MS, link_idle_check);
		return;
	}
	log_debug("vm=%s link idle: closed", vm_name(vm));
	link_close(vm, LINK_IDLE);
}

bool vm_link_wanted(struct vm *vm)
{
	if (vm->link == LINK_IDLE && link_allowed(vm))
		link_connect(vm, CONNECT_MS);
	/* (A link that is being lost answers those who wait, and some ask again at once.) */
	return vm->state == VM_UP && vm->link == LINK_UP && vm->ssh && ssh_is_up(vm->ssh);
}

void vm_used(struct vm *vm)
{
	if (!vm->fleet)
		return;
	vm->last_used = loop_now(vm->fleet->loop);
	life_used(vm);
}

int vm_disk(struct vm *vm, struct disk **disk)
{
	if (!vm->fleet)
		return -ESTALE;
	if (vm_is_closed(vm))
		return -EHOSTDOWN;
	if (vm->state == VM_CREATING || vm->state == VM_BOOTING)
		return -EAGAIN;
	if (vm->state != VM_UP || vm->link == LINK_DOWN)
		return -EHOSTDOWN;
	vm->last_used = loop_now(vm->fleet->loop);
	if (!vm_link_wanted(vm))
		return -EAGAIN;
	*disk = vm->disk;
	return disk_ready(vm->disk);
}

/* --- news from the backend ------------------------------------------------------ */

void vm_close(struct vm *vm, const char *why)
{
	link_close(vm, LINK_NONE);
	jobs_cancel_queued(vm, why);
	vm_touch(vm);
}

void vm_reopen(struct vm *vm)
{
	if (vm->link == LINK_NONE && link_allowed(vm))
		vm->link = LINK_IDLE;
	jobs_pump(vm);
	vm_touch(vm);
}

bool vm_is_closed(const struct vm *vm)
{
	return !vm->fleet || vm->record.destroying || vm->record.trashed;
}

void vm_still(struct vm *vm, bool still)
{
	if (vm->state == VM_UP && vm->link == LINK_UP)
		lanes_hold(vm, still);
}

static void now_up(struct vm *vm, const struct endpoint *to, bool adopted)
{
	bool moved = memcmp(&vm->to, to, sizeof(*to));

	vm->to = *to;
	vm->has_endpoint = true;
	if (vm->ssh && !moved) {
		vm->kept = false;
		lanes_hold(vm, false);
		jobs_pump(vm);
		return;
	}
	link_close(vm, LINK_NONE);
	vm->link = LINK_IDLE;
	if (vm_is_closed(vm))
		return;
	if (adopted) {
		vm->seen_up = true;	/* it ran before: no boot to wait for */
		jobs_pump(vm);
	} else {
		vm->seen_up = false;
		vm_guest_changed(vm);
		vm->attempts = 0;
		link_connect(vm, CONNECT_MS);
	}
}

/* It will be where it was. */
static bool comes_back(const struct vm *vm, const struct endpoint *to)
{
	return to && vm->ssh && !vm_is_closed(vm) && !memcmp(&vm->to, to, sizeof(*to));
}

void vm_report(struct vm *vm, enum vm_state state, const struct endpoint *to,
	       const struct err *why)
{
	bool first = !vm->reported, adopted;
	bool start = vm->start_again && state == VM_STOPPED;
	enum vm_state before = vm->state;
	struct err err = ERR_NONE;

	/* One that has been up for long has proved it already. */
	adopted = state == VM_UP && ((first && vm->adopted) || (to && to->lazy));
	vm_ref(vm);
	vm->reported = true;
	vm->starting = vm->turning = false;
	if (state != VM_PAUSED)		/* which is no end of it */
		vm->leaving = vm->start_again = false;
	vm->state = state;
	if (state == VM_STOPPED || state == VM_FAILED) {
		vm->stop_asked = 0;
		vm->stop_taken = false;
	}
	/* A fleet that is found as it was left is no news. */
	if (before != state || why)
		log_line(first && vm->adopted ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO,
			 "vm=%s its backend says %s%s%s", vm_name(vm), state_names[state],
			 why ? ": " : "", why ? why->text : "");
	if (state == VM_UP && to) {
		vm->booted = wall_ms();
		now_up(vm, to, adopted);
	} else if (vm->link == LINK_UP && (state == VM_PAUSED || comes_back(vm, to))) {
		lanes_hold(vm, true);	/* its jobs stand still with it, and are not lost */
		vm->kept = state != VM_PAUSED;
		vm->has_endpoint &= !vm->kept;
	} else {
		link_close(vm, LINK_NONE);
		if (to)
			release(vm);
		vm->has_endpoint = false;
		if (vm->error.code == -EHOSTDOWN)
			vm->error = ERR_NONE;	/* the link broke because of this */
	}
	if (state == VM_FAILED || (state == VM_STOPPED && why && why->code))
		vm_set_error(vm, "boot", "", why);
	else if (state == VM_PAUSED && why && why->code)
		vm_set_error(vm, "pause", "", why);
	if (state == VM_FAILED && why)
		note_why_down(vm, why);
	if (state == VM_FAILED)
		jobs_cancel_queued(vm, why ? why->text : "the sandbox failed");
	if (state == VM_UP)
		ports_ask(vm);
	if (state != VM_FAILED)
		setup_begin(vm);
	if (start && !vm_is_closed(vm) && vm_start(vm, &err) < 0)
		vm_set_error(vm, "start", "", &err);
	vm_touch(vm);
	if (vm->record.trashed || vm->record.revive)
		life_attend(vm);
	vm_unref(vm);
}

/* --- what is shown ---------------------------------------------------------------------- */

const char *vm_name(const struct vm *vm) { return vm->record.name; }
const char *vm_id(const struct vm *vm) { return vm->record.id; }
uint64_t vm_serial(const struct vm *vm) { return vm->serial; }
bool vm_gone(const struct vm *vm) { return !vm->fleet; }
unsigned vm_caps(const struct vm *vm) { return vm->backend ? vm->backend->caps : 0; }
struct wait_list *vm_news(struct vm *vm) { return &vm->news; }
int64_t vm_created(const struct vm *vm) { return vm->record.created; }
int64_t vm_changed(const struct vm *vm) { return vm->changed; }
int64_t vm_active(const struct vm *vm) { return vm->active > 0 ? wall_ms() : vm->active_at; }
const char *vm_error(const struct vm *vm) { return vm->error.text; }
const char *vm_cwd(const struct vm *vm) { return vm->cwd; }
const char *vm_env(const struct vm *vm) { return vm->env; }

const char *vm_status(const struct vm *vm)
{
	if (vm->record.destroying && vm->state != VM_FAILED)
		return "destroying";
	if (vm->state == VM_UP && vm->link == LINK_DOWN)
		return "unreachable";
	if (vm->state == VM_UP && !vm->seen_up)
		return "booting";	/* nobody has logged in yet */
	return state_names[vm->state];
}

void vm_set_error(struct vm *vm, const char *operation, const char *path, const struct err *err)
{
	char name[96], *where;

	if (vm->record.trashed)
		vm_trash_name(vm, name);
	else
		snprintf(name, sizeof(name), "%s", vm_name(vm));
	where = xasprintf("%s%s%s%s", vm->record.trashed ? ".sbxfs/trash/" : "", name,
			  *path ? "/" : "", path);
	if (err)
		vm->error = *err;
	else
		err_set(&vm->error, -EIO, "failed, and its backend did not say why");
	if (vm->fleet)
		fleet_note_error(vm->fleet, operation, where, &vm->error);
	log_debug("vm=%s %s: %s", vm_name(vm), operation, vm->error.text);
	free(where);
}

int vm_save(struct vm *vm, struct err *err)
{
	return store_write(vm->fleet->vms_dir, &vm->record, err);
}

int vm_update(struct vm *vm, const struct record *r, struct err *err)
{
	int result;

	if (!vm->fleet)
		return err_set(err, -ESTALE, "the sandbox is gone");
	assert(!strcmp(r->name, vm->record.name));
	result = store_write(vm->fleet->vms_dir, r, err);
	if (result < 0)
		return result;
	vm->record = *r;
	vm_touch(vm);
	life_soon(vm);
	return 0;
}

int vm_console(struct vm *vm)
{
	if (!vm->backend || !vm->backend->ops->console)
		return -ENOENT;
	return vm->backend->ops->console(vm->backend, vm_id(vm));
}
