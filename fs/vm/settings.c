/*
 * Defaults of new jobs: cwd, env, timeout. Each is a file beside the record, so that it
 * outlives the daemon; one that is not there is as at first.
 */
#include "vm_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "facts.h"
#include "flush.h"

#define SETTING_MAX (1024 * 1024)

static char *path_of(const struct vm *vm, const char *name)
{
	return xasprintf("%s/%s/%s", vm->fleet->vms_dir, vm_id(vm), name);
}

static int save(struct vm *vm, const char *name, const char *value, struct err *err)
{
	char *path;
	int r;

	if (!vm->fleet)
		return err_set(err, -ESTALE, "the sandbox is gone");
	path = path_of(vm, name);
	r = write_file(path, value, (unsigned)strlen(value), false, err);
	free(path);
	return r;
}

static char *load(struct vm *vm, const char *name)
{
	char *path = path_of(vm, name), *value = read_file(path, SETTING_MAX);

	free(path);
	return value ? value : xstrdup("");
}

void settings_load(struct vm *vm)
{
	char *text = load(vm, "timeout");

	vm->cwd = load(vm, "cwd");
	vm->env = load(vm, "env");
	if (duration_parse(text, &vm->timeout_ms) < 0)
		vm->timeout_ms = vm->fleet->jobs.timeout_ms;
	free(text);
}

static int set_text(struct vm *vm, const char *name, char **field, const char *value,
		    struct err *err)
{
	int r = save(vm, name, value, err);

	if (r < 0)
		return r;
	free(*field);
	*field = xstrdup(value);
	return 0;
}

int vm_set_cwd(struct vm *vm, const char *value, struct err *err)
{
	return set_text(vm, "cwd", &vm->cwd, value, err);
}

int vm_set_env(struct vm *vm, const char *value, struct err *err)
{
	return set_text(vm, "env", &vm->env, value, err);
}

uint64_t vm_timeout(const struct vm *vm)
{
	return vm->timeout_ms;
}

int vm_set_timeout(struct vm *vm, uint64_t ms, struct err *err)
{
	struct buf text = BUF_INIT;
	char *value;
	int r;

	duration_print(&text, ms);
	value = buf_take_string(&text);
	r = save(vm, "timeout", value, err);
	free(value);
	if (r == 0)
		vm->timeout_ms = ms;
	return r;
}
