/*
 * The fleet: one `ls` for all, every refresh_ms and after each change of our own, and what
 * it says to each VM.
 *
 * Whose is it? A VM of ours has its name and its random tag. One that has the name and not
 * the tag was made by somebody else in the meantime, unless it is known to have been created
 * when ours was (somebody took the tag off). One that has the tag and another name, and is the only
 * one, was renamed. All others are shown as found, protected, as far as `show` says.
 *
 * One odd answer must not end a fleet: where more than half of it is missing at once, what
 * the answer lacks counts only when a later one lacks most of it as well.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "exe.h"
#include "log.h"

#define SOON_MS 100
#define FAILED_MAX 3
#define CONFIRM_MS 5000		/* or refresh, where that is less */

struct tomb {
	struct list link;
	char name[64];
	int64_t when;
};

struct items {
	struct item {
		struct api_vm vm;
		struct cvm *owner;
	} *list;
	size_t count, room;
};

static void start_listing(struct loop_timer *);

void exe_list(struct exe *e, int64_t ms)
{
	if (!e->control)
		return;
	e->listing_wanted = true;
	if (e->listing)
		return;
	if (!loop_timer_is_set(&e->refresh) || e->refresh.when > clock_ms() + ms)
		loop_timer_set(e->loop, &e->refresh, ms, start_listing);
}

/* --- what was removed meanwhile ---------------------------------------------------- */

void exe_bury(struct exe *e, const char *name)
{
	struct tomb *t = xcalloc(1, sizeof(*t));

	snprintf(t->name, sizeof(t->name), "%s", name);
	t->when = clock_ms();
	list_add_tail(&e->tombs, &t->link);
}

static bool is_buried(const struct exe *e, const char *name)
{
	list_for_each(t, &e->tombs, struct tomb, link)
		if (t->when >= e->listing_began && !strcmp(t->name, name))
			return true;
	return false;
}

static void forget_tombs(struct exe *e, int64_t before)
{
	list_for_each_safe(t, &e->tombs, struct tomb, link)
		if (t->when < before) {
			list_del(&t->link);
			free(t);
		}
}

/* --- whose is it? ---------------------------------------------------------------------- */

static void take_item(void *user, const struct api_vm *vm)
{
	struct items *all = user;

	if (all->count == all->room) {
		all->room = all->room ? all->room * 2 : 64;
		all->list = xrealloc(all->list, all->room * sizeof(*all->list));
	}
	all->list[all->count++] = (struct item){ .vm = *vm };
}

static bool is_it(const struct cvm *vm, const struct api_vm *item)
{
	char tag[64];
	const char *created = vm->rec.vm.created;

	if (strcmp(vm->rec.vm.name, item->name))
		return false;
	if (vm->rec.foreign)
		return !created[0] || !item->created[0] || !strcmp(created, item->created);
	return api_has_tag(item->tags, cvm_tag(vm, tag)) ||
	       (created[0] && !strcmp(created, item->created));
}

static struct item *find_item(struct items *all, const struct cvm *vm)
{
	for (size_t i = 0; i < all->count; i++)
		if (!all->list[i].owner && is_it(vm, &all->list[i].vm))
			return &all->list[i];
	return NULL;
}

static struct item *item_of(const struct items *all, const struct cvm *owner)
{
	for (size_t i = 0; i < all->count; i++)
		if (all->list[i].owner == owner)
			return &all->list[i];
	return NULL;
}

/* Another name, the same tag, and nobody else has that tag (a copy made by hand would). */
static struct item *find_renamed(struct items *all, const struct cvm *vm)
{
	struct item *found = NULL;
	char tag[64];

	if (vm->rec.foreign || vm->rec.phase == CVM_NEW)
		return NULL;
	for (size_t i = 0; i < all->count; i++)
		if (!all->list[i].owner && api_has_tag(all->list[i].vm.tags, cvm_tag(vm, tag))) {
			if (found)
				return NULL;
			found = &all->list[i];
		}
	return found;
}

/* --- VMs that were found ------------------------------------------------------------------ */

static bool is_shown(const struct exe *e, const struct api_vm *vm)
{
	switch (e->show) {
	case SHOW_ALL:
		return true;
	case SHOW_OWN:
		return api_has_tag(vm->tags, EXE_TAG);
	case SHOW_TAG:
		return api_has_tag(vm->tags, e->show_tag);
	}
	return false;
}

/* A VM whose making, or rename, is under way may be listed before its answer has come. */
static bool is_being_made(struct exe *e, const struct api_vm *item)
{
	struct cvm *vm, *next;

	HASH_ITER(hh, e->vms, vm, next) {
		const char *name = vm->rec.phase == CVM_NEW ? vm->rec.vm.name : cvm_new_name(vm);

		if (name && !strcmp(name, item->name))
			return true;
	}
	return false;
}

static void adopt(struct exe *e, const struct api_vm *item)
{
	struct cvm_record rec = { .phase = CVM_MADE, .foreign = true, .vm = *item };
	struct err err = ERR_NONE;
	struct cvm *vm;

	/* Not its name: that may be the id of a sandbox of another backend. */
	snprintf(rec.id, sizeof(rec.id), "exe-%.59s", item->name);
	for (unsigned n = 2; cvm_find(e, rec.id); n++)
		snprintf(rec.id, sizeof(rec.id), "exe-%.52s-%ux", item->name, n);
	if (rec.id[strlen(rec.id) - 1] == '-')
		rec.id[strlen(rec.id) - 1] = 'x';
	if (cvm_record_save(&rec, e->state_dir, false, &err) < 0)
		log_error("exe.dev: %s", err.text);
	vm = cvm_add(e, &rec);
	cvm_listed(vm, item, e->listing_began);
}

static int64_t confirm_ms(const struct exe *e)
{
	return e->refresh_ms < CONFIRM_MS ? e->refresh_ms : CONFIRM_MS;
}

/* Who stands behind each item; a VM without one is not listed. */
static void find_owners(struct exe *e, struct items *all)
{
	struct cvm *vm, *next;
	struct item *item;

	HASH_ITER(hh, e->vms, vm, next) {
		item = vm->fixed ? NULL : find_item(all, vm);
		if (item)
			item->owner = vm;
	}
	HASH_ITER(hh, e->vms, vm, next) {
		item = vm->fixed || item_of(all, vm) ? NULL : find_renamed(all, vm);
		if (item)
			item->owner = vm;
	}
}

/* Is more missing than one would believe at once? */
static bool is_doubtful(struct exe *e, const struct items *all)
{
	unsigned there = 0, missing = 0;
	struct cvm *vm, *next;

	HASH_ITER(hh, e->vms, vm, next)
		if (!vm->fixed && vm->there && cvm_heeds(vm, e->listing_began)) {
			there++;
			missing += !item_of(all, vm);
		}
	if (missing * 2 <= there) {
		e->doubted = 0;
		return false;
	}
	if (e->doubted && e->listing_began >= e->doubted + confirm_ms(e))
		return false;
	if (!e->doubted) {
		log_warn("exe.dev: ls has %u of the %u VMs that there were: it is asked again in "
			 "%lld s", there - missing, there, (long long)confirm_ms(e) / 1000);
		e->doubted = e->listing_began;
	}
	return true;
}

static void compare(struct exe *e, struct items *all)
{
	struct cvm *vm, *next;
	int64_t left;
	bool doubtful;

	find_owners(e, all);
	doubtful = is_doubtful(e, all);
	HASH_ITER(hh, e->vms, vm, next) {
		const struct item *item = vm->fixed ? NULL : item_of(all, vm);

		if (item || !(vm->fixed || doubtful))
			cvm_listed(vm, item ? &item->vm : NULL, e->listing_began);
	}
	for (size_t i = 0; i < all->count; i++) {
		const struct item *item = &all->list[i];

		if (!item->owner && !is_buried(e, item->vm.name) && is_shown(e, &item->vm) &&
		    !is_being_made(e, &item->vm))
			adopt(e, &item->vm);
	}
	if (doubtful) {
		left = e->doubted + confirm_ms(e) - clock_ms();
		exe_list(e, left > 0 ? left : 0);
	}
}

/* --- `ls` ------------------------------------------------------------------------------------ */

static void listing_failed(struct exe *e, const struct api_answer *a)
{
	struct cvm *vm, *next;
	int64_t ms = cvm_backoff(e->listing_failures++);

	if (e->listing_failures == 1)
		log_warn("exe.dev: the fleet cannot be listed: %s", a->text);
	/* Once or twice without an answer is no reason to refuse a mkdir: it can wait. */
	if (a->verdict == API_REFUSED || !e->listed || e->listing_failures >= FAILED_MAX)
		exe_tell_ready(e, a->text);
	HASH_ITER(hh, e->vms, vm, next)
		cvm_unlisted(vm);
	exe_list(e, e->listing_wanted || ms > e->refresh_ms ? ms : e->refresh_ms);
}

static void listed(void *user, const struct api_answer *a, bool not_sent)
{
	struct exe *e = user;
	struct items all = { 0 };
	bool again = e->listing_wanted;

	e->listing = NULL;
	if (a->verdict != API_OK || api_vms_of(a->json, take_item, &all) < 0) {
		char text[] = "the answer to ls is no list";
		struct api_answer odd = { .verdict = API_UNCLEAR, .text = text };

		free(all.list);
		listing_failed(e, a->verdict == API_OK ? &odd : a);
		return;
	}
	e->listing_failures = 0;
	e->listed = true;
	e->listing_wanted = false;
	exe_tell_ready(e, NULL);
	compare(e, &all);
	forget_tombs(e, e->listing_began);
	free(all.list);
	if (again)
		exe_list(e, SOON_MS);
	else if (!loop_timer_is_set(&e->refresh))
		loop_timer_set(e->loop, &e->refresh, e->refresh_ms, start_listing);
}

static void start_listing(struct loop_timer *t)
{
	struct exe *e = container_of(t, struct exe, refresh);

	if (e->listing)
		return;
	e->listing_wanted = false;
	e->listing_began = clock_ms();
	e->listing = exe_ask(e, GRANT_LS, xstrdup("ls -l"), listed, e);
}

void listing_finish(struct exe *e)
{
	loop_timer_cancel(&e->refresh);
	forget_tombs(e, INT64_MAX);
}
