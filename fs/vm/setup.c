/*
 * setup: the script that a draft had for its sandbox. It runs once, as job 0, before all
 * other jobs, which wait for its end; how it ends does not matter to them.
 *
 *   PENDING -> STARTED -> DONE
 *
 * STARTED is on disk before the guest is asked, so it never runs twice; what a daemon
 * that died had started is lost, like any job. One that was cancelled because the
 * sandbox could not run it is still PENDING, and tried when it can.
 */
#include "job_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "facts.h"
#include "flush.h"
#include "log.h"

static void save(struct vm *vm, enum setup_state state)
{
	struct err err = ERR_NONE;

	vm->record.setup = state;
	if (vm_save(vm, &err) < 0)
		log_warn("vm=%s %s", vm_label(vm), err.text);
	if (state == SETUP_STARTED)
		flush_now();
}

static void tell_failure(struct vm *vm, struct job *j)
{
	struct buf status = BUF_INIT;
	struct err err;
	char *text;

	job_status_print(j, &status);
	text = buf_take_string(&status);
	text[strcspn(text, "\n")] = 0;
	err_set(&err, -EIO, "its setup failed: %s; what it wrote is in jobs/0", text);
	vm_set_error(vm, "setup", "jobs/0", &err);
	free(text);
}

static bool succeeded(const struct job *j)
{
	return j->result == RESULT_EXITED && j->status == 0;
}

void setup_load(struct vm *vm)
{
	struct job *j = job_find(vm, "0");

	if (vm->record.setup != SETUP_STARTED)
		return;
	save(vm, SETUP_DONE);
	if (j && !succeeded(j))
		tell_failure(vm, j);
}

static char *script_of(const struct vm *vm)
{
	char *path = xasprintf("%s/%s/setup", vm->fleet->vms_dir, vm_id(vm)), *text;

	text = read_file(path, JOB_TEXT_MAX);
	free(path);
	return text;
}

static void submit(struct vm *vm, struct job *j, const char *script)
{
	size_t len = strlen(script);
	struct err err = ERR_NONE;
	ssize_t n = job_text_write(j, script, len, 0, &err);

	if (n < 0) {
		vm_set_error(vm, "setup", "", &err);
		job_discard(j, err.text);
		return;
	}
	vm->setup = j;
	job_submit(j);
}

void setup_begin(struct vm *vm)
{
	struct job *before = job_find(vm, "0");
	char *script;
	struct err err = ERR_NONE;
	struct job *j;

	if (vm->record.setup != SETUP_PENDING || vm->setup || vm_is_closed(vm))
		return;
	if (before)
		job_remove(before, NULL);
	script = script_of(vm);
	if (!script) {
		err_set(&err, -EIO, "its setup script cannot be read");
		vm_set_error(vm, "setup", "", &err);
		save(vm, SETUP_DONE);
	} else if (job_make(vm, "0", false, &j, &err) < 0) {
		vm_set_error(vm, "setup", "", &err);
	} else {
		submit(vm, j, script);
		job_unref(j);
	}
	free(script);
}

bool setup_holds(const struct vm *vm, const struct job *j)
{
	return vm->record.setup == SETUP_PENDING ? j != vm->setup : vm->setup && j != vm->setup;
}

void setup_started(struct job *j)
{
	if (j == j->vm->setup)
		save(j->vm, SETUP_STARTED);
}

void setup_ended(struct job *j)
{
	struct vm *vm = j->vm;
	bool cannot = vm->state == VM_FAILED || vm->link == LINK_DOWN || vm_is_closed(vm) ||
		      vm->fleet->closing;

	if (j != vm->setup)
		return;
	vm->setup = NULL;
	if (j->result == RESULT_CANCELLED && vm->record.setup == SETUP_PENDING && cannot)
		return;
	save(vm, SETUP_DONE);
	if (!succeeded(j))
		tell_failure(vm, j);
}

void setup_facts(struct vm *vm, struct facts *f)
{
	struct job *j = job_find(vm, "0");
	struct buf status = BUF_INIT;
	char *text;

	if (vm->record.setup == SETUP_NONE)
		return;
	if (j)
		job_status_print(j, &status);
	else
		buf_printf(&status, "%s", vm->record.setup == SETUP_DONE ? "done" : "pending");
	text = buf_take_string(&status);
	text[strcspn(text, "\n")] = 0;
	facts_text(f, "setup", text);
	free(text);
}
