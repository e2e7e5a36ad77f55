/*
 * What is asked of a VM that exists: pause, tags, ports, … in order, one at a time. Each
 * may be done twice without harm, so what is unclear is asked again a few times; then, or
 * when it is refused, it is told as trouble and the VM is as `ls` says.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "exe.h"
#include "log.h"

#define TRIES_MAX 6
#define AFTER_MS 1000

static const struct op {
	const char *name;	/* as users know it: vm_trouble's operation */
	enum api_grant grant;
} ops[] = {
	[OP_RESTART] = { "restart", GRANT_RESTART },
	[OP_PAUSE] = { "pause", GRANT_PAUSE },
	[OP_RESUME] = { "resume", GRANT_RESUME },
	[OP_RENAME] = { "rename", GRANT_RENAME },
	[OP_TAG] = { "tags", GRANT_TAG },
	[OP_UNTAG] = { "tags", GRANT_TAG },
	[OP_COMMENT] = { "comment", GRANT_COMMENT },
	[OP_RESIZE] = { "resize", GRANT_RESIZE },
	[OP_PORT] = { "ports", GRANT_SHARE_PORT },
	[OP_PUBLIC] = { "visibility", GRANT_SHARE_PUBLIC },
	[OP_PRIVATE] = { "visibility", GRANT_SHARE_PRIVATE },
	[OP_STAT] = { "stat", GRANT_STAT },
	[OP_UNMARK] = { "clone", GRANT_TAG },
	[OP_CLEAN] = { "clone", GRANT_TAG },
};
static_assert(sizeof(ops) / sizeof(*ops) == OP_CLEAN + 1, "an entry an op");

static void task_free(struct cvm_task *t)
{
	list_del(&t->link);
	free(t->arg);
	free(t);
}

void cvm_tasks_finish(struct cvm *vm)
{
	while (!list_empty(&vm->tasks))
		task_free(list_entry(vm->tasks.next, struct cvm_task, link));
}

/* --- the lines ---------------------------------------------------------------------- */

/* arg is blank-separated words, each quoted on its own (tags, flags). */
static void put_words(struct buf *line, const char *arg)
{
	char *copy = xstrdup(arg), *save = NULL;

	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
		api_word(line, w);
	free(copy);
}

/* The words of a that b has not, but for our own tags. */
static char *words_without(const char *a, const char *b)
{
	char *copy = xstrdup(a), *save = NULL;
	struct buf out = BUF_INIT;

	for (char *t = strtok_r(copy, " ", &save); t; t = strtok_r(NULL, " ", &save))
		if (!api_has_tag(b, t) && strcmp(t, EXE_TAG) &&
		    strncmp(t, EXE_TAG "-", strlen(EXE_TAG) + 1))
			buf_printf(&out, "%s%s", buf_size(&out) ? " " : "", t);
	free(copy);
	return buf_take_string(&out);
}

/* The words of the task now; to be freed. "": there is nothing to do. */
static char *words_of(const struct cvm *vm, const struct cvm_task *t)
{
	if (t->op == OP_TAG)
		return words_without(t->arg, vm->rec.vm.tags);
	if (t->op == OP_UNTAG)
		return words_without(vm->rec.vm.tags, t->arg);
	return xstrdup(t->arg ? t->arg : "-");
}

/* It has the words of task t now, or has them no more. */
static void note_tags(struct cvm *vm, const struct cvm_task *t)
{
	char *words = words_of(vm, t), old[sizeof(vm->rec.vm.tags)], *save = NULL, *w;
	size_t n = strlen(vm->rec.vm.tags);

	if (t->op == OP_TAG) {
		snprintf(vm->rec.vm.tags + n, sizeof(vm->rec.vm.tags) - n, "%s%s",
			 n ? " " : "", words);
	} else {
		memcpy(old, vm->rec.vm.tags, sizeof(old));
		memset(vm->rec.vm.tags, 0, sizeof(vm->rec.vm.tags));
		n = 0;
		for (w = strtok_r(old, " ", &save); w; w = strtok_r(NULL, " ", &save))
			if (!api_has_tag(words, w))
				n += (size_t)sprintf(vm->rec.vm.tags + n, "%s%s", n ? " " : "", w);
	}
	free(words);
}

static char *make_line(const struct cvm *vm, const struct cvm_task *t)
{
	static const char *const verbs[] = {
		[OP_RESTART] = "restart", [OP_PAUSE] = "pause", [OP_RESUME] = "resume",
		[OP_RENAME] = "rename", [OP_TAG] = "tag", [OP_UNTAG] = "tag -d",
		[OP_COMMENT] = "comment", [OP_RESIZE] = "resize", [OP_PORT] = "share port",
		[OP_PUBLIC] = "share set-public", [OP_PRIVATE] = "share set-private",
		[OP_STAT] = "stat", [OP_UNMARK] = "tag -d", [OP_CLEAN] = "tag -d",
	};
	struct buf line = BUF_INIT;
	char tag[64];

	buf_printf(&line, "%s", verbs[t->op]);
	api_word(&line, t->op == OP_UNMARK ? vm->rec.source : vm->rec.vm.name);
	if (t->op == OP_UNMARK)
		api_word(&line, cvm_tag(vm, tag));
	else if (t->op == OP_COMMENT || t->op == OP_RENAME)
		api_word(&line, t->arg);
	else if (t->arg) {
		char *words = words_of(vm, t);

		put_words(&line, words);
		free(words);
	}
	return buf_take_string(&line);
}

/* --- done, or not ------------------------------------------------------------------------ */

static void done(struct cvm *vm, const struct cvm_task *t, const struct api_answer *a)
{
	struct exe *e = vm->exe;

	switch (t->op) {
	case OP_RESTART:
	case OP_RESUME:
		cvm_tell(vm, VM_UP, false, NULL);
		break;
	case OP_PAUSE:
		cvm_tell(vm, VM_PAUSED, false, NULL);
		break;
	case OP_RENAME:
		snprintf(vm->rec.vm.name, sizeof(vm->rec.vm.name), "%.63s", t->arg);
		cvm_save(vm);
		break;
	case OP_COMMENT:
		snprintf(vm->rec.vm.comment, sizeof(vm->rec.vm.comment), "%s", t->arg);
		break;
	case OP_PORT:
		vm->rec.vm.proxy_port = atoi(t->arg);
		break;
	case OP_PUBLIC:
		strcpy(vm->rec.vm.proxy_share, "public");
		break;
	case OP_PRIVATE:
		strcpy(vm->rec.vm.proxy_share, "private");
		break;
	case OP_UNMARK:
		vm->rec.marked = false;
		cvm_save(vm);
		break;
	case OP_STAT:
		if (!vm->stats)
			vm->stats = xcalloc(1, sizeof(*vm->stats));
		buf_clear(vm->stats);
		api_stat_lines(a->json, vm->stats);
		break;
	case OP_TAG:
	case OP_UNTAG:
	case OP_CLEAN:
		note_tags(vm, t);
		break;
	case OP_RESIZE:
		break;
	}
	e->events->changed(e->user, vm->rec.id);
}

/* What was asked for is so already: perhaps by the request whose answer was lost. */
static bool is_so(const struct cvm_task *t, const struct api_answer *a)
{
	if (a->verdict == API_OK)
		return true;
	if (a->verdict != API_REFUSED)
		return false;
	if (t->op == OP_UNMARK || t->op == OP_UNTAG || t->op == OP_CLEAN)
		return a->code == -ENOENT;
	return t->tries > 0 && a->code == -EEXIST && t->op != OP_RENAME;
}

/* What was to be private before another port comes is public still: that one does not come. */
static void drop_port(struct cvm *vm, struct cvm_task *t)
{
	struct cvm_task *next = list_entry(t->link.next, struct cvm_task, link);

	if (&next->link != &vm->tasks && next->op == OP_PORT)
		task_free(next);
}

static void give_up(struct cvm *vm, struct cvm_task *t, const struct api_answer *a)
{
	if (t->op == OP_STAT || t->op == OP_CLEAN)
		return;
	if (t->op == OP_UNMARK) {
		log_warn("vm=%s its source %s keeps the tag of the clone: %s", vm->rec.id,
			 vm->rec.source, a->text);
		vm->rec.marked = false;
		cvm_save(vm);
		return;
	}
	cvm_trouble(vm, ops[t->op].name, a->code, a->text);
	if (t->op == OP_PRIVATE)
		drop_port(vm, t);
	if (t->op == OP_RENAME || t->op == OP_TAG || t->op == OP_UNTAG || t->op == OP_COMMENT)
		cvm_tell_about(vm);	/* it is called as before */
	if (t->op == OP_RESTART && vm->state == VM_BOOTING)
		cvm_tell(vm, VM_UP, false, NULL);
}

static void retry(struct loop_timer *t)
{
	cvm_tasks_go(container_of(t, struct cvm, timer));
}

static void answered(void *user, const struct api_answer *a, bool not_sent)
{
	struct cvm *vm = user;
	struct cvm_task *t = list_entry(vm->tasks.next, struct cvm_task, link);
	bool again = (a->verdict == API_UNCLEAR || api_not_ready(a)) && t->tries < TRIES_MAX;

	vm->ask = NULL;
	vm->changed_at = clock_ms();
	if (vm->rec.phase == CVM_DESTROYING && t->op != OP_UNMARK) {
		cvm_destroy(vm);
		return;
	}
	/* A rename whose answer was lost is a VM that the old name does not know. */
	if (t->op == OP_RENAME && t->tries > 0 && api_not_found(a))
		done(vm, t, a);
	else if (is_so(t, a))
		done(vm, t, a);
	else if (again) {
		loop_timer_set(vm->exe->loop, &vm->timer, cvm_backoff(t->tries++), retry);
		return;
	} else
		give_up(vm, t, a);
	if (t->op != OP_STAT)
		exe_list(vm->exe, AFTER_MS);
	task_free(t);
	if (vm->rec.phase == CVM_DESTROYING)
		cvm_destroy(vm);
	else
		cvm_tasks_go(vm);
}

/* Its words, which depend on what was done before it, may have become none. */
static bool is_idle(const struct cvm *vm, const struct cvm_task *t)
{
	char *words = words_of(vm, t);
	bool none = !*words;

	free(words);
	return none && t->op != OP_COMMENT;
}

void cvm_tasks_go(struct cvm *vm)
{
	struct cvm_task *t;

	if (vm->ask || loop_timer_is_set(&vm->timer) || vm->rec.phase == CVM_NEW)
		return;
	for (;;) {
		if (list_empty(&vm->tasks))
			return;
		t = list_entry(vm->tasks.next, struct cvm_task, link);
		if (!is_idle(vm, t))
			break;
		task_free(t);
	}
	if (t->op == OP_RESTART && t->tries == 0)
		cvm_tell(vm, VM_BOOTING, false, NULL);
	vm->ask = exe_ask(vm->exe, ops[t->op].grant, make_line(vm, t), answered, vm);
}

const char *cvm_new_name(const struct cvm *vm)
{
	const struct cvm_task *t;

	if (list_empty(&vm->tasks))
		return NULL;
	t = list_entry(vm->tasks.next, struct cvm_task, link);
	return t->op == OP_RENAME && (vm->ask || t->tries > 0) ? t->arg : NULL;
}

void cvm_do(struct cvm *vm, enum cvm_op op, const char *arg)
{
	struct cvm_task *t = xcalloc(1, sizeof(*t));

	t->op = op;
	t->arg = arg ? xstrdup(arg) : NULL;
	list_add_tail(&vm->tasks, &t->link);
	/* Later: this may be an op, from which no event may come. */
	if (!vm->ask && !loop_timer_is_set(&vm->timer))
		loop_timer_set(vm->exe->loop, &vm->timer, 0, retry);
}

void cvm_clean_tags(struct cvm *vm)
{
	char copy[sizeof(vm->rec.vm.tags)], own[64], *save = NULL, *text;
	struct buf strange = BUF_INIT;

	if (vm->rec.foreign || !vm->rec.source[0] || !list_empty(&vm->tasks))
		return;
	cvm_tag(vm, own);
	snprintf(copy, sizeof(copy), "%s", vm->rec.vm.tags);
	for (char *t = strtok_r(copy, " ", &save); t; t = strtok_r(NULL, " ", &save))
		if (!strncmp(t, EXE_TAG "-", strlen(EXE_TAG) + 1) && strcmp(t, own))
			buf_printf(&strange, "%s%s", buf_size(&strange) ? " " : "", t);
	text = buf_take_string(&strange);
	if (*text)
		cvm_do(vm, OP_CLEAN, text);
	free(text);
}
