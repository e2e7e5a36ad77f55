/*
 * One VM of the service: what is known of it, and what the fleet is told.
 *
 * Its record's phase says which file it is in the hands of: cvm_make.c from the promise
 * until the service has made it, and from rmdir until the service has it no more; in
 * between this file follows what `ls` says, and cvm_task.c does what is asked.
 *
 * An `ls` that began before a change of ours ended says nothing about the VM that was
 * changed (changed_at). Reports go up only when something is different, since a repeated VM_UP
 * would make a login that was refused be tried again.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "exe.h"
#include "http.h"
#include "log.h"

#define BACKOFF_FIRST_MS 500
#define BACKOFF_MAX_MS 30000
#define LOGIN "exedev"		/* where the service says nothing, any user name will do */

struct cvm *cvm_add(struct exe *e, const struct cvm_record *rec)
{
	struct cvm *vm = xcalloc(1, sizeof(*vm));

	vm->exe = e;
	vm->rec = *rec;
	list_init(&vm->tasks);
	HASH_ADD_STR(e->vms, rec.id, vm);
	return vm;
}

struct cvm *cvm_find(struct exe *e, const char *id)
{
	struct cvm *vm;

	HASH_FIND_STR(e->vms, id, vm);
	return vm;
}

void cvm_free(struct cvm *vm)
{
	if (vm->unsaved)
		cvm_save(vm);
	HASH_DEL(vm->exe->vms, vm);
	loop_timer_cancel(&vm->timer);
	ask_cancel(vm->ask);
	cvm_tasks_finish(vm);
	if (vm->stats)
		buf_finish(vm->stats);
	free(vm->stats);
	free(vm->last_words);
	free(vm);
}

const char *cvm_tag(const struct cvm *vm, char out[64])
{
	snprintf(out, 64, EXE_TAG "-%.50s", vm->rec.spec.tag);
	return out;
}

int64_t cvm_backoff(unsigned tries)
{
	int64_t ms = (int64_t)BACKOFF_FIRST_MS << (tries < 6 ? tries : 6);

	return ms < BACKOFF_MAX_MS ? ms : BACKOFF_MAX_MS;
}

static void save(struct cvm *vm, bool soon)
{
	struct err err = ERR_NONE;

	vm->unsaved = false;
	if (!vm->fixed && cvm_record_save(&vm->rec, vm->exe->state_dir, soon, &err) < 0)
		log_error("vm=%s %s", vm->rec.id, err.text);
}

void cvm_save(struct cvm *vm)
{
	save(vm, false);
}

static void save_one(struct loop_timer *t)
{
	struct exe *e = container_of(t, struct exe, saver);
	struct cvm *vm, *next, *first = NULL;

	HASH_ITER(hh, e->vms, vm, next)
		if (vm->unsaved && first)
			loop_timer_set(e->loop, t, 0, save_one);
		else if (vm->unsaved)
			first = vm;
	if (first)
		save(first, true);
}

void cvm_save_soon(struct cvm *vm)
{
	vm->unsaved = true;
	if (!loop_timer_is_set(&vm->exe->saver))
		loop_timer_set(vm->exe->loop, &vm->exe->saver, 0, save_one);
}

/* --- what the fleet is told ----------------------------------------------- */

/* false: its host key is not known yet. */
static bool make_endpoint(const struct cvm *vm, bool lazy, struct endpoint *to)
{
	const struct exe *e = vm->exe;
	const struct api_vm *a = &vm->rec.vm;
	const char *key = exe_host_key(vm->exe, a->host, a->port);

	if (!key)
		return false;
	memset(to, 0, sizeof(*to));
	snprintf(to->host, sizeof(to->host), "%s", a->host);
	to->port = a->port;
	snprintf(to->user, sizeof(to->user), "%s",
		 a->user[0] ? a->user : e->login ? e->login : LOGIN);
	snprintf(to->identity, sizeof(to->identity), "%s", e->identity);
	snprintf(to->host_key, sizeof(to->host_key), "%s", key);
	snprintf(to->service, sizeof(to->service), "exe.dev");
	to->gap_ms = e->gap_ms;
	snprintf(to->stranger, sizeof(to->stranger), "complete registration");
	snprintf(to->stranger_why, sizeof(to->stranger_why), "exe.dev does not know the SSH key "
		 "%s: register it with \"ssh exe.dev\", or name another as identity",
		 strlen(e->identity) < 60 ? e->identity : "that was offered");
	to->lazy = lazy;
	to->max_connections = 1;
	to->sudo = e->sudo;
	return true;
}

void cvm_tell(struct cvm *vm, enum vm_state state, bool lazy, const struct err *err)
{
	struct exe *e = vm->exe;

	vm->up_pending = false;
	if (state == VM_UP && !make_endpoint(vm, lazy, &vm->to)) {
		vm->up_pending = true;
		vm->up_lazy = lazy;
		if (vm->told)
			return;
		state = VM_BOOTING;
	}
	vm->state = state;
	vm->told = true;
	e->events->state(e->user, vm->rec.id, state, state == VM_UP ? &vm->to : NULL, err);
}

void cvm_key_came(struct cvm *vm)
{
	if (vm->up_pending)
		cvm_tell(vm, VM_UP, vm->up_lazy, NULL);
}

/* Its tags, but for our own. */
static void public_tags(const struct cvm *vm, char *out, size_t size)
{
	char copy[sizeof(vm->rec.vm.tags)], *save = NULL;
	size_t n = 0;

	out[0] = 0;
	snprintf(copy, sizeof(copy), "%s", vm->rec.vm.tags);
	for (char *t = strtok_r(copy, " ", &save); t; t = strtok_r(NULL, " ", &save))
		if (strcmp(t, EXE_TAG) && strncmp(t, EXE_TAG "-", strlen(EXE_TAG) + 1))
			n += (size_t)snprintf(out + n, size - n, "%s%s", n ? " " : "", t);
}

void cvm_tell_about(struct cvm *vm)
{
	struct exe *e = vm->exe;
	char tags[sizeof(vm->rec.vm.tags)];
	const struct vm_about about = {
		.name = vm->rec.vm.name, .tags = tags, .comment = vm->rec.vm.comment,
		.foreign = vm->rec.foreign,
	};

	public_tags(vm, tags, sizeof(tags));
	e->events->about(e->user, vm->rec.id, &about);
}

void cvm_trouble(struct cvm *vm, const char *operation, int code, const char *text)
{
	struct exe *e = vm->exe;
	struct err err;

	err_set(&err, code, "%s", text);
	e->events->trouble(e->user, vm->rec.id, operation, &err);
}

/* --- `ls` ----------------------------------------------------------------- */

/* Seen: running, paused, stopped. Expected by other clients: starting, creating, error, failed. */
static bool state_of(const char *word, enum vm_state *state)
{
	static const struct { const char *word; enum vm_state state; } words[] = {
		{ "running", VM_UP }, { "paused", VM_PAUSED }, { "stopped", VM_STOPPED },
		{ "starting", VM_BOOTING }, { "creating", VM_BOOTING }, { "error", VM_FAILED },
		{ "failed", VM_FAILED },
	};

	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (!strcmp(words[i].word, word)) {
			*state = words[i].state;
			return true;
		}
	return false;
}

static void tell_state(struct cvm *vm)
{
	enum vm_state state;
	struct endpoint to;
	struct err err;
	/* A word that is not known says nothing: the login will show what is true. */
	bool known = state_of(vm->rec.vm.status, &state);

	if (!known && vm->told && vm->state != VM_BOOTING)
		return;
	if (!known && !vm->told)
		cvm_tell(vm, VM_BOOTING, false, NULL);
	if (!known)
		state = VM_UP;
	if (state == VM_FAILED) {
		if (vm->told && vm->state == VM_FAILED)
			return;
		err_set(&err, -EIO, "exe.dev says that it is in the state \"%s\"",
			vm->rec.vm.status);
		cvm_tell(vm, VM_FAILED, false, &err);
		return;
	}
	if (vm->told && vm->state == state &&
	    (state != VM_UP || !make_endpoint(vm, vm->to.lazy, &to) ||
	     !memcmp(&to, &vm->to, sizeof(to))))
		return;
	cvm_tell(vm, state, known, NULL);
}

void cvm_forget(struct cvm *vm)
{
	struct exe *e = vm->exe;
	struct err err = ERR_NONE;
	char id[64];

	memcpy(id, vm->rec.id, sizeof(id));
	if (cvm_record_remove(&vm->rec, e->state_dir, &err) < 0)
		log_error("vm=%s %s", id, err.text);
	vm->unsaved = false;
	cvm_free(vm);
	e->events->gone(e->user, id);
}

static void lost(struct cvm *vm)
{
	struct err err;

	if (vm->rec.foreign) {
		cvm_forget(vm);
		return;
	}
	if (!vm->there && vm->state == VM_FAILED)
		return;
	vm->there = false;
	err_set(&err, -ENOENT, "exe.dev no longer has the VM %s: somebody else has removed it; "
		"rmdir forgets it", vm->rec.vm.name);
	cvm_tell(vm, VM_FAILED, false, &err);
}

/* `new` and `rename` tell less than `ls`: what they do not tell is kept. */
static void take_news(struct cvm *vm, const struct api_vm *item)
{
	struct api_vm before = vm->rec.vm;
	bool about = strcmp(before.name, item->name) || strcmp(before.tags, item->tags) ||
		     strcmp(before.comment, item->comment);

	vm->rec.vm = *item;
	if (!item->host[0]) {
		strcpy(vm->rec.vm.host, before.host);
		vm->rec.vm.port = before.port;
	}
	if (!item->user[0])
		strcpy(vm->rec.vm.user, before.user);
	if (!memcmp(&before, &vm->rec.vm, sizeof(before)))
		return;
	cvm_save_soon(vm);
	if (vm->told && about)
		cvm_tell_about(vm);
	else if (vm->told)
		vm->exe->events->changed(vm->exe->user, vm->rec.id);
}

bool cvm_heeds(const struct cvm *vm, int64_t began)
{
	/* The answer to what was asked of it leads on. */
	return !vm->ask && !cvm_new_name(vm) && vm->changed_at < began && began >= vm->look_after;
}

void cvm_listed(struct cvm *vm, const struct api_vm *item, int64_t began)
{
	bool first = !vm->told;

	if (!cvm_heeds(vm, began)) {
		/* Somebody else wanted this one, earlier. */
		if (vm->look_after && !vm->ask && !cvm_new_name(vm))
			exe_list(vm->exe, vm->look_after - clock_ms() + 1);
		return;
	}
	vm->look_after = 0;
	if (item)
		vm->there = true;
	switch (vm->rec.phase) {
	case CVM_NEW:
		cvm_make_listed(vm, item);
		break;
	case CVM_DESTROYING:
		cvm_destroy_listed(vm, item);
		break;
	case CVM_FAILED:
		break;
	case CVM_MADE:
		if (!item) {
			lost(vm);
			break;
		}
		take_news(vm, item);
		tell_state(vm);
		if (first && vm->told)
			cvm_tell_about(vm);
		cvm_clean_tags(vm);
		break;
	}
}

/* --- after a start of the daemon ------------------------------------------ */

void cvm_resume(struct cvm *vm)
{
	switch (vm->rec.phase) {
	case CVM_NEW:
		/* It may have been asked for a moment ago, by the daemon that died. */
		vm->unclear_at = clock_ms();
		vm->look_after = 1;
		cvm_tell(vm, VM_CREATING, false, NULL);
		break;
	case CVM_MADE:
		/* Not claimed until it was seen; the first `ls` is on its way. */
		vm->there = true;
		cvm_tell(vm, VM_BOOTING, false, NULL);
		break;
	case CVM_FAILED:
		cvm_tell(vm, VM_FAILED, false, &vm->rec.why);
		break;
	case CVM_DESTROYING:
		vm->unclear_at = clock_ms();
		cvm_tell(vm, VM_DESTROYING, false, NULL);
		cvm_destroy(vm);
		break;
	}
}

void cvm_unlisted(struct cvm *vm)
{
	/* The way to the service is blocked; the way to the VM may be open: its login proves it. */
	if (vm->rec.phase == CVM_MADE && vm->state == VM_BOOTING && !vm->up_pending && !vm->ask &&
	    vm->rec.vm.host[0])
		cvm_tell(vm, VM_UP, false, NULL);
	if (vm->rec.phase == CVM_NEW || vm->rec.phase == CVM_DESTROYING)
		exe_list(vm->exe, cvm_backoff(vm->exe->listing_failures));
}

/* --- info ----------------------------------------------------------------- */

static void line(struct buf *out, const char *key, const char *value)
{
	if (value[0])
		buf_printf(out, "%s \"%s\"\n", key, value);
}

static void number(struct buf *out, const char *key, int64_t value)
{
	if (value)
		buf_printf(out, "%s %lld\n", key, (long long)value);
}

/* What waits for its turn looks dead otherwise: nothing happens, and nothing has failed. */
static void hold(const struct cvm *vm, struct buf *out)
{
	int64_t ms = vm->exe->http ? http_held(vm->exe->http) : 0;
	bool waits = ask_is_waiting(vm->ask) || (vm->look_after && !vm->ask);

	if (ms > 0 && waits)
		buf_printf(out, "waits_for \"exe.dev has had too many requests: the next in %lld "
			   "s\"\n", (long long)(ms + 999) / 1000);
}

void cvm_info(const struct cvm *vm, struct buf *out)
{
	const struct api_vm *a = &vm->rec.vm;

	line(out, "image", a->image[0] ? a->image : vm->rec.spec.image);
	number(out, "cpus", a->cpus ? a->cpus : (int64_t)vm->rec.spec.cpus);
	number(out, "memory", a->memory ? a->memory : (int64_t)vm->rec.spec.memory);
	number(out, "disk", a->disk ? a->disk : (int64_t)vm->rec.spec.disk);
	line(out, "vm_name", a->name);
	line(out, "provider_status", a->status);
	line(out, "region", a->region);
	line(out, "region_display", a->region_display);
	line(out, "https_url", a->https_url);
	number(out, "proxy_port", a->proxy_port);
	line(out, "visibility", a->proxy_share);
	line(out, "created_at", a->created);
	line(out, "last_answer", vm->last_words ? vm->last_words : "");
	hold(vm, out);
	if (vm->stats && buf_size(vm->stats))
		buf_put(out, buf_peek(vm->stats), buf_size(vm->stats));
}
