/* What users, and its backend, note of a sandbox: its name, tags, comment, protect. */
#include "vm_internal.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
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

/* --- what is a good one -------------------------------------------------------- */

static int tag_check(const char *tag, struct err *err)
{
	size_t good = strspn(tag,
			     "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

	if (tag[good] || tag[0] == '.' || strlen(tag) > 63)
		return err_set(err, -EINVAL,
			       "a tag is made of letters, digits and . _ -, not beginning "
			       "with a dot, at most 63 of them, not \"%s\"",
			       tag);
	return 0;
}

static bool has_word(const char *words, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = words; (p = strstr(p, word)); p += len)
		if ((p == words || p[-1] == ' ') && (!p[len] || p[len] == ' '))
			return true;
	return false;
}

int notes_parse_tags(const char *value, char out[RECORD_TAGS_MAX], struct err *err)
{
	char *copy = xstrdup(value), *save = NULL;
	size_t len = 0;
	int r = 0;

	out[0] = 0;
	for (char *t = strtok_r(copy, " \t\n,", &save); t && r == 0;
	     t = strtok_r(NULL, " \t\n,", &save)) {
		r = tag_check(t, err);
		if (r < 0 || has_word(out, t))
			continue;
		if (len + strlen(t) + 2 > RECORD_TAGS_MAX)
			r = err_set(err, -EINVAL, "the tags have at most %d bytes together",
				    RECORD_TAGS_MAX - 1);
		else
			len += (size_t)sprintf(out + len, "%s%s", len ? " " : "", t);
	}
	free(copy);
	return r;
}

int notes_parse_comment(const char *value, char out[RECORD_COMMENT_MAX], struct err *err)
{
	if (strlen(value) >= RECORD_COMMENT_MAX)
		return err_set(err, -EINVAL, "a comment has at most %d bytes",
			       RECORD_COMMENT_MAX - 1);
	for (const char *p = value; *p; p++)
		if (iscntrl((unsigned char)*p))
			return err_set(err, -EINVAL, "a comment is one line of text");
	strcpy(out, value);
	return 0;
}

/* --- as files ---------------------------------------------------------------------- */

const char *vm_tags(const struct vm *vm) { return vm->record.tags; }
const char *vm_comment(const struct vm *vm) { return vm->record.comment; }
bool vm_protected(const struct vm *vm) { return vm->record.protect; }

static int annotate(struct vm *vm, const struct record *r, struct err *err)
{
	int result = 0;

	if (!vm->fleet)
		return err_set(err, -ESTALE, "the sandbox is gone");
	if (vm->backend && vm->backend->ops->annotate)
		result = vm->backend->ops->annotate(vm->backend, vm_id(vm), r->tags, r->comment,
						    err);
	return result < 0 ? result : vm_update(vm, r, err);
}

int vm_set_tags(struct vm *vm, const char *value, struct err *err)
{
	struct record r = vm->record;
	int result = notes_parse_tags(value, r.tags, err);

	return result < 0 ? result : annotate(vm, &r, err);
}

int vm_set_comment(struct vm *vm, const char *value, struct err *err)
{
	struct record r = vm->record;
	int result = notes_parse_comment(value, r.comment, err);

	return result < 0 ? result : annotate(vm, &r, err);
}

int vm_set_protect(struct vm *vm, const char *value, struct err *err)
{
	struct record r = vm->record;

	if (strcmp(value, "0") && strcmp(value, "1"))
		return err_set(err, -EINVAL, "protect is 0 or 1, not \"%s\"", value);
	r.protect = value[0] == '1';
	return vm_update(vm, &r, err);
}

bool vm_has_tag(const struct vm *vm, const char *tag)
{
	return has_word(vm->record.tags, tag);
}

void vm_tags_each(const struct vm *vm, void (*each)(void *user, const char *tag), void *user)
{
	char copy[RECORD_TAGS_MAX], *save = NULL;

	memcpy(copy, vm->record.tags, sizeof(copy));
	for (char *t = strtok_r(copy, " ", &save); t; t = strtok_r(NULL, " ", &save))
		each(user, t);
}
