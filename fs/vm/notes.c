/* What users, and its backend, note of a sandbox: its name, tags, comment, protect. */
#include "vm_internal.h"

#include <stdio.h>
#include <string.h>

#include "log.h"
#include "news.h"

void vm_set_name(struct vm *vm, const char *name)
{
	struct fleet *f = vm->fleet;
	bool shown = vm->shown;

	fleet_hide_name(f, vm);
	snprintf(vm->record.name, sizeof(vm->record.name), "%s", name);
	if (shown)
		fleet_show_name(f, vm);
	vm_touch(vm);
}

void vm_learn(struct vm *vm, const struct vm_about *about)
{
	struct record was = vm->record;
	struct err err = ERR_NONE;

	if (about->foreign && !was.foreign)
		vm->record.foreign = vm->record.protect = true;
	if (about->tags)
		snprintf(vm->record.tags, sizeof(vm->record.tags), "%s", about->tags);
	if (about->comment)
		snprintf(vm->record.comment, sizeof(vm->record.comment), "%s", about->comment);
	if (about->name && strcmp(about->name, was.name) &&
	    fleet_name_check(about->name, &err) == 0 && !fleet_find(vm->fleet, about->name)) {
		vm_set_name(vm, about->name);
		news_renamed(vm, was.name);
	}
	if (!memcmp(&was, &vm->record, sizeof(was)))
		return;
	if (vm_save(vm, &err) < 0)
		log_warn("vm=%s %s", vm_name(vm), err.text);
	vm_touch(vm);
}
