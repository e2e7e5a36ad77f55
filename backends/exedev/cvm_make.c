/*
 * A VM comes to be, and goes.
 *
 *	made:	 `new` (or for a clone: tag the source, `cp`) -> answer -> MADE
 *		 refused -> FAILED, with the service's own words
 *		 nothing was sent -> again, later
 *		 unclear -> wait for an `ls` that began afterwards: there, with our tag -> MADE;
 *		 not there -> `new` again. Names are unique, and all of them carry the same random
 *		 tag: so whichever of them is run late, there is one VM, and it is ours. "That
 *		 name is taken" may then be ourselves: it is looked for until nothing sent earlier
 *		 can still be running (settle_ms), and only then believed.
 *
 *	removed: `ls` (whose is it by now?) -> `rm` -> `ls` without it -> gone. While a `new` may
 *		 still be run, not there is not yet gone.
 *
 * A clone has the tags of its source, so the source is given our random tag before and
 * relieved of it afterwards (rec.marked): that is how the copy is known for ours.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "exe.h"
#include "log.h"

#define LOOK_MS 200
#define LOOK_LATE_MS 2000
#define NEW_MAX 8		/* times that it is asked for, when all that comes is unclear */
#define AFTER_MS 1000		/* the `ls` after a change: others may follow */

static void make_timer(struct loop_timer *);
static void destroy_timer(struct loop_timer *);

static void remember(struct cvm *vm, const char *text)
{
	free(vm->last_words);
	vm->last_words = *text ? xstrdup(text) : NULL;
}

/* Only an `ls` that begins from now on counts. */
static void look(struct cvm *vm, int64_t ms)
{
	vm->look_after = clock_ms() + ms;
	exe_list(vm->exe, ms + 1);
}

/* --- made ------------------------------------------------------------------------------ */

static void make_failed(struct cvm *vm, int code, const char *text)
{
	err_set(&vm->rec.why, code, "%s", text);
	vm->rec.phase = CVM_FAILED;
	vm->unclear_at = 0;
	cvm_save(vm);
	cvm_tell(vm, VM_FAILED, false, &vm->rec.why);
	if (vm->rec.marked)
		cvm_do(vm, OP_UNMARK, NULL);
}

static void made(struct cvm *vm, const struct api_vm *a)
{
	char name[64];

	memcpy(name, vm->rec.vm.name, sizeof(name));
	vm->rec.vm = *a;
	if (!vm->rec.vm.host[0])
		snprintf(vm->rec.vm.host, sizeof(vm->rec.vm.host), "%s.exe.xyz", a->name);
	vm->rec.phase = CVM_MADE;
	vm->there = true;
	loop_timer_cancel(&vm->timer);
	vm->unclear_at = vm->look_after = 0;
	vm->tries = 0;
	remember(vm, "");
	cvm_save_soon(vm);	/* without it the next mount finds it by its tag */
	cvm_tell(vm, VM_UP, false, NULL);
	if (strcmp(name, a->name))
		cvm_tell_about(vm);
	if (vm->rec.marked)
		cvm_do(vm, OP_UNMARK, NULL);
	exe_list(vm->exe, AFTER_MS);
	cvm_tasks_go(vm);
}

static bool was_taken(const struct api_answer *a)
{
	return a->verdict == API_REFUSED && a->code == -EEXIST;
}

/* `new` or `cp` has been answered, or not. */
static void make_answered(void *user, const struct api_answer *a, bool not_sent)
{
	struct cvm *vm = user;
	struct api_vm got;
	bool told = a->verdict == API_OK && api_vm_of(a->json, &got);

	vm->ask = NULL;
	vm->changed_at = clock_ms();
	vm->taken = was_taken(a);
	remember(vm, a->text);
	if (told && !strcmp(got.name, vm->rec.vm.name) && vm->rec.phase == CVM_NEW) {
		made(vm, &got);
		return;
	}
	if (a->verdict != API_REFUSED && !not_sent)
		vm->unclear_at = clock_ms();
	if (vm->rec.phase == CVM_DESTROYING) {
		cvm_destroy(vm);
	} else if (not_sent) {
		if (vm->tries == 0)
			cvm_trouble(vm, "create", -EAGAIN, a->text);
		loop_timer_set(vm->exe->loop, &vm->timer, cvm_backoff(vm->tries++), make_timer);
	} else if (a->verdict == API_REFUSED && !(vm->taken && vm->unclear_at)) {
		make_failed(vm, a->code, a->text);
	} else {
		look(vm, LOOK_MS);
	}
}

static void add_extra(struct cvm *vm, struct buf *line)
{
	char copy[sizeof(vm->rec.spec.extra)], *save = NULL;

	snprintf(copy, sizeof(copy), "%s", vm->rec.spec.extra);
	for (char *l = strtok_r(copy, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		char *value = l + strcspn(l, " ");

		if (*value)
			*value++ = 0;
		if (!strcmp(l, "integrations") && *value)
			api_flag(line, "integration", value);
	}
}

/* The notes that a draft has for it. */
static void add_notes(const struct cvm *vm, struct buf *line)
{
	char copy[sizeof(vm->rec.vm.tags)], *save = NULL;

	snprintf(copy, sizeof(copy), "%s", vm->rec.vm.tags);
	for (char *t = strtok_r(copy, " ", &save); t; t = strtok_r(NULL, " ", &save))
		api_flag(line, "tag", t);
	if (vm->rec.vm.comment[0])
		api_flag(line, "comment", vm->rec.vm.comment);
}

static void ask_new(struct cvm *vm)
{
	const struct vm_spec *s = &vm->rec.spec;
	struct buf line = BUF_INIT;
	char number[16], tag[64];

	api_word(&line, "new");
	api_flag(&line, "name", vm->rec.vm.name);
	api_flag(&line, "tag", EXE_TAG);
	api_flag(&line, "tag", cvm_tag(vm, tag));
	if (s->image[0])
		api_flag(&line, "image", s->image);
	if (s->cpus) {
		snprintf(number, sizeof(number), "%u", s->cpus);
		api_flag(&line, "cpu", number);
	}
	api_size(&line, "memory", s->memory);
	api_size(&line, "disk", s->disk);
	add_notes(vm, &line);
	add_extra(vm, &line);
	api_word(&line, "--no-email");
	vm->ask = exe_ask(vm->exe, GRANT_NEW, buf_take_string(&line), make_answered, vm);
}

static void ask_cp(struct cvm *vm)
{
	const struct vm_spec *s = &vm->rec.spec;
	struct buf line = BUF_INIT;
	char number[16];

	api_word(&line, "cp");
	api_word(&line, vm->rec.source);
	api_word(&line, vm->rec.vm.name);
	api_size(&line, "memory", s->memory);
	if (s->cpus) {
		snprintf(number, sizeof(number), "%u", s->cpus);
		api_flag(&line, "cpu", number);
	}
	api_size(&line, "disk", s->disk);
	vm->ask = exe_ask(vm->exe, GRANT_CP, buf_take_string(&line), make_answered, vm);
}

static void source_marked(void *user, const struct api_answer *a, bool not_sent)
{
	struct cvm *vm = user;

	vm->ask = NULL;
	remember(vm, a->text);
	if (vm->rec.phase == CVM_DESTROYING)
		cvm_destroy(vm);
	else if (a->verdict == API_OK || a->code == -EEXIST)
		ask_cp(vm);
	else if (a->verdict == API_REFUSED)
		make_failed(vm, a->code, a->text);
	else	/* a tag may be given twice */
		loop_timer_set(vm->exe->loop, &vm->timer, cvm_backoff(vm->tries++), make_timer);
}

static void mark_source(struct cvm *vm)
{
	char tag[64];
	const char *words[] = { "tag", vm->rec.source, cvm_tag(vm, tag), NULL };

	if (!vm->rec.marked) {
		vm->rec.marked = true;
		cvm_save(vm);
	}
	vm->ask = exe_ask(vm->exe, GRANT_TAG, api_line(words), source_marked, vm);
}

void cvm_make(struct cvm *vm)
{
	if (vm->ask || vm->rec.phase != CVM_NEW)
		return;
	if (!vm->told)
		cvm_tell(vm, VM_CREATING, false, NULL);
	if (vm->rec.phase != CVM_NEW)
		return;		/* removed by who heard of it */
	if (vm->rec.source[0])
		mark_source(vm);
	else
		ask_new(vm);
}

static void make_timer(struct loop_timer *t)
{
	cvm_make(container_of(t, struct cvm, timer));
}

void cvm_make_soon(struct cvm *vm)
{
	loop_timer_set(vm->exe->loop, &vm->timer, 0, make_timer);
}

void cvm_make_listed(struct cvm *vm, const struct api_vm *item)
{
	int64_t left = vm->unclear_at + vm->exe->settle_ms - clock_ms();

	if (!vm->unclear_at || loop_timer_is_set(&vm->timer))
		return;		/* not asked for yet, or about to be again */
	if (item) {
		log_info("vm=%s was made although its answer was lost", vm->rec.id);
		made(vm, item);
	} else if (!vm->taken && vm->tries < NEW_MAX) {
		loop_timer_set(vm->exe->loop, &vm->timer, cvm_backoff(vm->tries++), make_timer);
	} else if (left > 0) {
		look(vm, left < LOOK_LATE_MS ? left : LOOK_LATE_MS);
	} else {
		make_failed(vm, vm->taken ? -EEXIST : -EIO,
			    vm->last_words ? vm->last_words : "the service did not answer");
	}
}

/* --- removed --------------------------------------------------------------------------------- */

static void gone(struct cvm *vm)
{
	if (vm->rec.marked)
		cvm_do(vm, OP_UNMARK, NULL);	/* comes back here */
	else
		cvm_forget(vm);
}

static void removed(void *user, const struct api_answer *a, bool not_sent)
{
	struct cvm *vm = user;
	bool failed = a->verdict == API_REFUSED && !api_not_found(a);

	vm->ask = NULL;
	vm->changed_at = clock_ms();
	remember(vm, a->text);
	if (failed || (a->verdict == API_OK && api_rm_failed(a))) {
		struct err err;

		err_set(&err, failed ? a->code : -EIO, "exe.dev did not remove it: %s",
			failed ? a->text : "it is named among those that failed");
		cvm_tell(vm, VM_FAILED, false, &err);
		return;
	}
	if (a->verdict != API_UNCLEAR) {
		exe_bury(vm->exe, vm->rec.vm.name);
		vm->there = false;
		vm->tries = 0;
		/* Listed still: the service takes its time. (The first look is at once.) */
		look(vm, vm->removals ? cvm_backoff(vm->removals - 1) : 0);
		vm->removals++;
	} else {
		if (vm->tries == 0)
			cvm_trouble(vm, "destroy", -EAGAIN, a->text);
		look(vm, cvm_backoff(vm->tries++));
	}
}

void cvm_destroy_listed(struct cvm *vm, const struct api_vm *item)
{
	const char *words[] = { "rm", vm->rec.vm.name, NULL };
	int64_t left = vm->unclear_at ? vm->unclear_at + vm->exe->settle_ms - clock_ms() : 0;

	if (vm->state == VM_FAILED)
		return;		/* it was refused, and nobody has asked again */
	if (item) {
		/* Perhaps another name by now. */
		snprintf(vm->rec.vm.name, sizeof(vm->rec.vm.name), "%s", item->name);
		vm->ask = exe_ask(vm->exe, GRANT_RM, api_line(words), removed, vm);
	} else if (left > 0) {
		look(vm, left < 1000 ? left + 1 : 1000);
	} else {
		gone(vm);
	}
}

/* Also when something that was under way has ended. */
void cvm_destroy(struct cvm *vm)
{
	loop_timer_cancel(&vm->timer);
	if (vm->rec.phase != CVM_DESTROYING) {
		/* One that was never asked for, or was refused, needs no time to settle. */
		vm->rec.phase = CVM_DESTROYING;
		cvm_save(vm);
	}
	if (ask_is_waiting(vm->ask)) {
		ask_cancel(vm->ask);
		vm->ask = NULL;
	}
	if (vm->ask)
		return;		/* its answer leads here */
	cvm_tasks_finish(vm);
	vm->tries = vm->removals = 0;
	loop_timer_set(vm->exe->loop, &vm->timer, 0, destroy_timer);
}

static void destroy_timer(struct loop_timer *t)
{
	struct cvm *vm = container_of(t, struct cvm, timer);

	cvm_tell(vm, VM_DESTROYING, false, NULL);
	look(vm, 0);
}
