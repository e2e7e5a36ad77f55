/*
 * The files of a draft: one table of keys. A key knows how to show what a plan
 * (vm_internal.h) says of it, and how to put a written value into a plan: checking a value
 * at the write is that, on the plan of the draft as it is now, and making the sandbox is
 * all of that, one behind the other. So what the table refuses at the write it refuses at
 * the making, in the same words.
 */
#include "draft_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "facts.h"

#define SETUP_MAX (1024 * 1024)

/* --- the keys -------------------------------------------------------------------- */

struct key {
	const char *name;
	unsigned cap;		/* its backend has this; 0: any */
	enum { ONE_LINE, LINES, TEXT } form;
	int (*put)(struct fleet *, struct plan *, const char *value, struct err *);
	void (*print)(struct fleet *, const struct plan *, struct buf *out);
};

static int ask_backend(const struct plan *p, const char *key, const char *value, struct err *err)
{
	const struct backend_ops *ops = p->slot->ops;

	return ops->check ? ops->check(p->slot->backend, key, value, err) : 0;
}

static void backends_list(struct fleet *f, struct buf *out)
{
	for (unsigned i = 0; i < f->slot_count; i++)
		buf_printf(out, "%s%s", i ? ", " : "", f->slots[i].ops->name);
}

static int put_backend(struct fleet *f, struct plan *p, const char *value, struct err *err)
{
	struct slot *slot = fleet_slot(f, value);
	struct buf known = BUF_INIT;
	char *text;

	if (!slot) {
		backends_list(f, &known);
		text = buf_take_string(&known);
		err_set(err, -EINVAL, "backend is one of %s, not \"%s\"", text, value);
		free(text);
		return -EINVAL;
	}
	plan_init(f, p, slot);
	p->placed = true;	/* it was asked for: no other one will do */
	return 0;
}

static void print_backend(struct fleet *f, const struct plan *p, struct buf *out)
{
	buf_printf(out, "%s", p->slot->ops->name);
}

static struct vm *find_origin(struct fleet *f, const char *value, const char **snapshot)
{
	char name[64];
	size_t len = strcspn(value, "/");

	*snapshot = value[len] ? value + len + 1 : "";
	snprintf(name, sizeof(name), "%.*s", (int)(len < 64 ? len : 63), value);
	return fleet_find(f, name);
}

struct wanted {
	const char *name;
	bool found;
};

static void look_for_snapshot(void *user, const struct vm_snapshot *s)
{
	struct wanted *w = user;

	w->found |= !strcmp(s->name, w->name) && s->ready;
}

/* Its size is that of its origin unless the draft says something else. */
static int put_from(struct fleet *f, struct plan *p, const char *value, struct err *err)
{
	const char *snapshot;
	struct vm *vm = find_origin(f, value, &snapshot);
	struct wanted wanted = { snapshot, false };
	struct vm_spec *s = &p->record.spec;

	p->placed = true;
	if (!vm || vm_is_closed(vm))
		return err_set(err, -EINVAL,
			       "from is a sandbox, or SANDBOX/SNAPSHOT: there is no \"%s\"", value);
	if (vm->backend != p->slot->backend)
		return err_set(err, -EINVAL, "%s is a sandbox of %s, and backend is %s",
			       vm_name(vm), vm->record.backend, p->slot->ops->name);
	if (*snapshot && vm->backend->ops->snapshots)
		vm->backend->ops->snapshots(vm->backend, vm_id(vm), look_for_snapshot, &wanted);
	if (*snapshot && !wanted.found)
		return err_set(err, -EINVAL, "%s has no snapshot %s that is ready", vm_name(vm),
			       snapshot);
	memcpy(s->image, vm->record.spec.image, sizeof(s->image));
	s->cpus = vm->record.spec.cpus;
	s->memory = vm->record.spec.memory;
	s->disk = vm->record.spec.disk;
	memcpy(s->from, vm_id(vm), sizeof(s->from));
	snprintf(s->from_snapshot, sizeof(s->from_snapshot), "%s", snapshot);
	return 0;
}

static void print_nothing(struct fleet *f, const struct plan *p, struct buf *out)
{
}

static int put_image(struct fleet *f, struct plan *p, const char *value, struct err *err)
{
	struct vm_spec *s = &p->record.spec;

	if (strlen(value) >= sizeof(s->image))
		return err_set(err, -EINVAL, "an image's name has at most %zu bytes",
			       sizeof(s->image) - 1);
	snprintf(s->image, sizeof(s->image), "%s", value);
	return ask_backend(p, "image", value, err);
}

static void print_image(struct fleet *f, const struct plan *p, struct buf *out)
{
	buf_printf(out, "%s", p->record.spec.image);
}

static int put_cpus(struct fleet *f, struct plan *p, const char *value, struct err *err)
{
	size_t digits = strspn(value, "0123456789");
	unsigned long n = strtoul(value, NULL, 10);

	if (digits == 0 || digits > 3 || value[digits] || n < 1 || n > 255)
		return err_set(err, -EINVAL, "cpus is a number from 1 to 255, not \"%s\"", value);
	p->record.spec.cpus = (unsigned)n;
	return ask_backend(p, "cpus", value, err);
}

static void print_cpus(struct fleet *f, const struct plan *p, struct buf *out)
{
	buf_printf(out, "%u", p->record.spec.cpus);
}

static int put_size(const struct plan *p, const char *key, const char *value, uint64_t limit,
		    uint64_t *size, struct err *err)
{
	struct buf text = BUF_INIT;
	char *s;

	if (size_parse_large(value, size) < 0)
		return err_set(err, -EINVAL, "%s is a size such as 512M or 10G, not \"%s\"", key,
			       value);
	if (limit && *size > limit) {
		size_print(&text, limit);
		s = buf_take_string(&text);
		err_set(err, -EINVAL, "%s is at most %s: [limits] %s", key, s, key);
		free(s);
		return -EINVAL;
	}
	return ask_backend(p, key, value, err);
}

static int put_memory(struct fleet *f, struct plan *p, const char *value, struct err *err)
{
	return put_size(p, "memory", value, f->limits.memory, &p->record.spec.memory, err);
}

static void print_memory(struct fleet *f, const struct plan *p, struct buf *out)
{
	size_print(out, p->record.spec.memory);
}

static int put_disk(struct fleet *f, struct plan *p, const char *value, struct err *err)
{
	return put_size(p, "disk", value, f->limits.disk, &p->record.spec.disk, err);
}

static void print_disk(struct fleet *f, const struct plan *p, struct buf *out)
{
	size_print(out, p->record.spec.disk);
}

static int put_env(struct fleet *f, struct plan *p, const char *value, struct err *err)
{
	unsigned line;

	if (env_check(value, &line) < 0)
		return err_set(err, -EINVAL, "env: line %u is not NAME=VALUE", line);
	p->env = value;
	return 0;
}

static int put_tags(struct fleet *f, struct plan *p, const char *value, struct err *err)
{
	return notes_parse_tags(value, p->record.tags, err);
}

static int put_comment(struct fleet *f, struct plan *p, const char *value, struct err *err)
{
	return notes_parse_comment(value, p->record.comment, err);
}

static int put_ttl(struct fleet *f, struct plan *p, const char *value, struct err *err)
{
	int r = life_parse("ttl", value, &p->record.ttl, err);

	if (r == 0 && f->limits.age && p->record.ttl > f->limits.age)
		r = err_set(err, -EINVAL, "[limits] age ends it before that");
	return r;
}

static int put_idle(struct fleet *f, struct plan *p, const char *value, struct err *err)
{
	return life_parse("idle", value, &p->record.idle, err);
}

static void print_ttl(struct fleet *f, const struct plan *p, struct buf *out)
{
	if (p->record.ttl)
		duration_print(out, (uint64_t)p->record.ttl);
}

static void print_idle(struct fleet *f, const struct plan *p, struct buf *out)
{
	if (p->record.idle)
		duration_print(out, (uint64_t)p->record.idle);
}

static int put_network(struct fleet *f, struct plan *p, const char *value, struct err *err)
{
	if (strcmp(value, "on") && strcmp(value, "off"))
		return err_set(err, -EINVAL, "network is on or off, not \"%s\"", value);
	p->record.spec.no_network = value[1] == 'f';
	p->placed |= p->record.spec.no_network;
	return 0;
}

static void print_network(struct fleet *f, const struct plan *p, struct buf *out)
{
	buf_printf(out, "%s", p->record.spec.no_network ? "off" : "on");
}

static int put_setup(struct fleet *f, struct plan *p, const char *value, struct err *err)
{
	if (strlen(value) > SETUP_MAX)
		return err_set(err, -EFBIG, "a setup script has at most %d bytes", SETUP_MAX);
	p->setup = value;
	return 0;
}

/* In the order in which they are put: what others go by comes first. */
static const struct key keys[] = {
	{ "backend", 0, ONE_LINE, put_backend, print_backend },
	{ "from", BACKEND_CAP_CLONE, ONE_LINE, put_from, print_nothing },
	{ "image", 0, ONE_LINE, put_image, print_image },
	{ "cpus", 0, ONE_LINE, put_cpus, print_cpus },
	{ "memory", 0, ONE_LINE, put_memory, print_memory },
	{ "disk", 0, ONE_LINE, put_disk, print_disk },
	{ "network", BACKEND_CAP_NETWORK, ONE_LINE, put_network, print_network },
	{ "ttl", 0, ONE_LINE, put_ttl, print_ttl },
	{ "idle", 0, ONE_LINE, put_idle, print_idle },
	{ "env", 0, LINES, put_env, print_nothing },
	{ "tags", 0, LINES, put_tags, print_nothing },
	{ "comment", 0, ONE_LINE, put_comment, print_nothing },
	{ "setup", 0, TEXT, put_setup, print_nothing },
};
#define KEY_COUNT (sizeof(keys) / sizeof(keys[0]))

/* A key that only its backend knows. */
static int put_extra(struct plan *p, const char *key, const char *value, struct err *err)
{
	struct vm_spec *s = &p->record.spec;
	size_t len = strlen(s->extra);
	int r = ask_backend(p, key, value, err);

	if (r < 0)
		return r;
	if (len + strlen(key) + strlen(value) + 3 > sizeof(s->extra))
		return err_set(err, -EINVAL,
			       "the values of %s have no room: at most %zu bytes together",
			       p->slot->ops->name, sizeof(s->extra) - 1);
	sprintf(s->extra + len, "%s %s\n", key, value);
	p->placed = true;
	return 0;
}

/* --- a draft as a plan ------------------------------------------------------------------ */

static const char *written(const struct draft *d, const char *key)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(d->values, key));
}

static bool key_applies(const struct key *k, const struct plan *p)
{
	return !k->cap || (p->slot->backend->caps & k->cap);
}

int draft_plan(struct draft *d, const char *without, bool strict, struct plan *p, struct err *err)
{
	int r = 0;

	plan_init(d->fleet, p, NULL);
	p->placed = written(d, "image");	/* a name that only its backend knows */
	for (size_t i = 0; i < KEY_COUNT && r == 0; i++) {
		const char *value = written(d, keys[i].name);

		if (value && (!without || strcmp(without, keys[i].name)) &&
		    key_applies(&keys[i], p))
			r = keys[i].put(d->fleet, p, value, strict ? err : NULL);
		else if (value && strict && !key_applies(&keys[i], p))
			r = err_set(err, -EINVAL, "backend %s knows no %s", p->slot->ops->name,
				    keys[i].name);
		if (!strict)
			r = 0;
	}
	for (const char *const *k = p->slot->ops->draft_keys; k && *k && r == 0; k++) {
		const char *value = written(d, *k);

		if (value && (!without || strcmp(without, *k)))
			r = put_extra(p, *k, value, strict ? err : NULL);
		if (!strict)
			r = 0;
	}
	return r;
}

static const struct key *key_find(const char *name)
{
	for (size_t i = 0; i < KEY_COUNT; i++)
		if (!strcmp(keys[i].name, name))
			return &keys[i];
	return NULL;
}

static bool is_extra(const struct backend_ops *ops, const char *key)
{
	for (const char *const *k = ops->draft_keys; k && *k; k++)
		if (!strcmp(*k, key))
			return true;
	return false;
}

bool draft_has(struct draft *d, const char *name)
{
	const struct key *k = key_find(name);
	struct plan p;

	draft_plan(d, NULL, false, &p, NULL);
	return k ? key_applies(k, &p) : is_extra(p.slot->ops, name);
}

/* Taken for somebody's backup, "off" in network would make a machine that has one. */
int draft_name_free(struct draft *d, const char *name, struct err *err)
{
	bool known = key_find(name);
	struct plan p;

	for (unsigned i = 0; i < d->fleet->slot_count && !known; i++)
		known = is_extra(d->fleet->slots[i].ops, name);
	if (!known)
		return 0;
	draft_plan(d, NULL, false, &p, NULL);
	return err_set(err, -EINVAL, "backend %s knows no %s", p.slot->ops->name, name);
}

void draft_keys(struct draft *d, void (*each)(void *user, const char *key, bool lines), void *user)
{
	struct plan p;

	draft_plan(d, NULL, false, &p, NULL);
	for (size_t i = 0; i < KEY_COUNT; i++)
		if (key_applies(&keys[i], &p))
			each(user, keys[i].name, keys[i].form != ONE_LINE);
	for (const char *const *k = p.slot->ops->draft_keys; k && *k; k++)
		each(user, *k, false);
}

void draft_print(struct draft *d, const char *name, struct buf *out)
{
	const struct key *k = key_find(name);
	const char *value = written(d, name);
	size_t before = buf_size(out);
	struct plan p;

	if (value) {
		buf_printf(out, "%s", value);
	} else if (k) {
		draft_plan(d, NULL, false, &p, NULL);
		k->print(d->fleet, &p, out);
	}
	if (buf_size(out) > before && buf_peek(out)[buf_size(out) - 1] != '\n')
		buf_put_u8(out, '\n');
}

int draft_check(struct draft *d, const char *name, const char *value, struct err *err)
{
	const struct key *k = key_find(name);
	struct plan p;

	if (strchr(value, '\n') && (!k || k->form == ONE_LINE))
		return err_set(err, -EINVAL, "%s is one line", name);
	draft_plan(d, name, false, &p, NULL);
	if (k)
		return k->put(d->fleet, &p, value, err);
	return put_extra(&p, name, value, err);
}
