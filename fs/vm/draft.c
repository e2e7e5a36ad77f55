/*
 * Drafts; see draft.h.
 *
 * One table of keys. A key knows how to show what a plan (vm_internal.h) says of it, and
 * how to put a written value into a plan: checking a value at the write is that, on the
 * plan of the draft as it is now, and making the sandbox is all of that, one behind the
 * other. So what the table refuses at the write it refuses at the making, in the same words.
 *
 * On disk: <state>/drafts/NAME, a JSON object of the written values.
 */
#include "draft.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command.h"
#include "facts.h"
#include "log.h"
#include "vm_internal.h"

#define DRAFTS_MAX 1000
#define DRAFT_LIFE_MS (24 * 3600 * 1000)
#define SETUP_MAX (1024 * 1024)

struct draft {
	UT_hash_handle hh;
	struct fleet *fleet;
	char name[64];
	int64_t changed;
	cJSON *values;		/* what was written, by key */
};

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
		return err_set(err, -EINVAL, "from is a sandbox, or SANDBOX/SNAPSHOT: there is no \"%s\"",
			       value);
	if (vm->backend != p->slot->backend)
		return err_set(err, -EINVAL, "%s is a sandbox of %s, and backend is %s", vm_name(vm),
			       vm->record.backend, p->slot->ops->name);
	if (*snapshot && vm->backend->ops->snapshots)
		vm->backend->ops->snapshots(vm->backend, vm_id(vm), look_for_snapshot, &wanted);
	if (*snapshot && !wanted.found)
		return err_set(err, -EINVAL, "%s has no snapshot %s that is ready", vm_name(vm), snapshot);
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
		return err_set(err, -EINVAL, "an image's name has at most %zu bytes", sizeof(s->image) - 1);
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

	if (size_parse(value, size) < 0 || *size == 0)
		return err_set(err, -EINVAL, "%s is a size such as 512M or 10G, not \"%s\"", key, value);
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
		return err_set(err, -EINVAL, "the values of %s have no room: at most %zu bytes together",
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

/*
 * What it says, but for the key that is given (NULL: all). strict: what does not go together
 * is an error; else it is passed over.
 */
static int plan_of(struct draft *d, const char *without, bool strict, struct plan *p,
		   struct err *err)
{
	int r = 0;

	plan_init(d->fleet, p, NULL);
	p->placed = written(d, "image");	/* a name that only its backend knows */
	for (size_t i = 0; i < KEY_COUNT && r == 0; i++) {
		const char *value = written(d, keys[i].name);

		if (value && (!without || strcmp(without, keys[i].name)) && key_applies(&keys[i], p))
			r = keys[i].put(d->fleet, p, value, strict ? err : NULL);
		else if (value && strict && !key_applies(&keys[i], p))
			r = err_set(err, -EINVAL, "backend %s knows no %s", p->slot->ops->name, keys[i].name);
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

static bool is_extra(const struct plan *p, const char *key)
{
	for (const char *const *k = p->slot->ops->draft_keys; k && *k; k++)
		if (!strcmp(*k, key))
			return true;
	return false;
}

bool draft_has(struct draft *d, const char *name)
{
	const struct key *k = key_find(name);
	struct plan p;

	plan_of(d, NULL, false, &p, NULL);
	return k ? key_applies(k, &p) : is_extra(&p, name);
}

void draft_keys(struct draft *d, void (*each)(void *user, const char *key, bool lines), void *user)
{
	struct plan p;

	plan_of(d, NULL, false, &p, NULL);
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
		plan_of(d, NULL, false, &p, NULL);
		k->print(d->fleet, &p, out);
	}
	if (buf_size(out) > before && buf_peek(out)[buf_size(out) - 1] != '\n')
		buf_put_u8(out, '\n');
}

/* --- on disk ---------------------------------------------------------------------------- */

static char *draft_path(const struct fleet *f, const char *name)
{
	return xasprintf("%s/drafts/%s", f->state_dir, name);
}

static int draft_save(struct draft *d, struct err *err)
{
	char *path = draft_path(d->fleet, d->name), *text, *dir = draft_path(d->fleet, "");
	cJSON *json = cJSON_CreateObject();
	int r;

	cJSON_AddNumberToObject(json, "changed", (double)d->changed);
	cJSON_AddItemReferenceToObject(json, "values", d->values);
	text = cJSON_Print(json);
	r = make_dirs(dir, err);
	if (r == 0)
		r = write_file(path, text, (unsigned)strlen(text), false, err);
	cJSON_free(text);
	cJSON_Delete(json);
	free(path);
	free(dir);
	return r;
}

static struct draft *draft_add(struct fleet *f, const char *name)
{
	struct draft *d = xcalloc(1, sizeof(*d));

	d->fleet = f;
	d->changed = wall_ms();
	snprintf(d->name, sizeof(d->name), "%s", name);
	d->values = cJSON_CreateObject();
	HASH_ADD_STR(f->drafts, name, d);
	return d;
}

static void draft_free(struct draft *d)
{
	HASH_DEL(d->fleet->drafts, d);
	cJSON_Delete(d->values);
	free(d);
}

static void load_one(struct fleet *f, const char *name)
{
	char *path = draft_path(f, name), *text = read_file(path, 4 * 1024 * 1024);
	cJSON *json = text ? cJSON_Parse(text) : NULL, *values;
	const cJSON *changed = cJSON_GetObjectItemCaseSensitive(json, "changed");
	struct draft *d;

	values = cJSON_DetachItemFromObjectCaseSensitive(json, "values");
	if (cJSON_IsObject(values) && fleet_name_check(name, NULL) == 0) {
		d = draft_add(f, name);
		cJSON_Delete(d->values);
		d->values = values;
		d->changed = cJSON_IsNumber(changed) ? (int64_t)changed->valuedouble : 0;
	} else {
		cJSON_Delete(values);
		log_warn("the draft %s cannot be read and is forgotten", name);
		unlink(path);
	}
	cJSON_Delete(json);
	free(text);
	free(path);
}

void drafts_load(struct fleet *f)
{
	char *dir = draft_path(f, "");
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			load_one(f, e->d_name);
	if (d)
		closedir(d);
	free(dir);
}

void drafts_close(struct fleet *f)
{
	struct draft *d, *next;

	HASH_ITER(hh, f->drafts, d, next)
		draft_free(d);
}

void drafts_expire(struct fleet *f)
{
	struct draft *d, *next;

	HASH_ITER(hh, f->drafts, d, next)
		if (d->changed + DRAFT_LIFE_MS <= wall_ms())
			draft_remove(d);
}

int64_t drafts_due(const struct fleet *f)
{
	const struct draft *d;
	int64_t due = INT64_MAX;

	for (d = f->drafts; d; d = d->hh.next)
		if (d->changed + DRAFT_LIFE_MS < due)
			due = d->changed + DRAFT_LIFE_MS;
	return due;
}

/* --- what users do to them ------------------------------------------------------------------ */

struct draft *draft_find(struct fleet *f, const char *name)
{
	struct draft *d;

	HASH_FIND_STR(f->drafts, name, d);
	return d;
}

static int by_name(const struct draft *a, const struct draft *b)
{
	return strcmp(a->name, b->name);
}

void draft_each(struct fleet *f, void (*each)(void *user, struct draft *), void *user)
{
	struct draft *d, *next;

	HASH_SORT(f->drafts, by_name);
	HASH_ITER(hh, f->drafts, d, next)
		each(user, d);
}

const char *draft_name(const struct draft *d)
{
	return d->name;
}

int64_t draft_changed(const struct draft *d)
{
	return d->changed;
}

static int name_check(struct fleet *f, const char *name, struct err *err)
{
	int r = fleet_name_check(name, err);

	if (r == 0 && draft_find(f, name))
		r = err_set(err, -EEXIST, "there is a draft %s already", name);
	return r;
}

int draft_create(struct fleet *f, const char *name, struct err *err)
{
	struct draft *d;
	int r = name_check(f, name, err);

	if (r == 0 && HASH_COUNT(f->drafts) >= DRAFTS_MAX)
		r = err_set(err, -EDQUOT, "there are %d drafts already", DRAFTS_MAX);
	if (r < 0)
		return r;
	d = draft_add(f, name);
	r = draft_save(d, err);
	if (r < 0)
		draft_free(d);
	else
		life_look(f);
	return r;
}

void draft_remove(struct draft *d)
{
	char *path = draft_path(d->fleet, d->name);

	unlink(path);
	free(path);
	draft_free(d);
}

int draft_rename(struct draft *d, const char *name, struct err *err)
{
	struct fleet *f = d->fleet;
	char *from = draft_path(f, d->name), *to = draft_path(f, name);
	int r = name_check(f, name, err);

	if (r == 0 && rename(from, to) < 0)
		r = err_sys(err, -errno, "cannot rename %s", from);
	if (r == 0) {
		HASH_DEL(f->drafts, d);
		snprintf(d->name, sizeof(d->name), "%s", name);
		HASH_ADD_STR(f->drafts, name, d);
	}
	free(from);
	free(to);
	return r;
}

static int value_check(struct draft *d, const char *name, const char *value, struct err *err)
{
	const struct key *k = key_find(name);
	struct plan p;

	if (strchr(value, '\n') && (!k || k->form == ONE_LINE))
		return err_set(err, -EINVAL, "%s is one line", name);
	plan_of(d, name, false, &p, NULL);
	if (k)
		return k->put(d->fleet, &p, value, err);
	return put_extra(&p, name, value, err);
}

int draft_set(struct draft *d, const char *name, const char *value, struct err *err)
{
	cJSON *before = cJSON_Duplicate(d->values, true);
	int r = *value ? value_check(d, name, value, err) : 0;

	if (r == 0) {
		cJSON_DeleteItemFromObjectCaseSensitive(d->values, name);
		if (*value)
			cJSON_AddStringToObject(d->values, name, value);
		d->changed = wall_ms();
		r = draft_save(d, err);
		if (r < 0) {
			cJSON_Delete(d->values);
			d->values = before;
			return r;
		}
	}
	cJSON_Delete(before);
	return r;
}

int draft_make(struct draft *d, const char *name, struct err *err)
{
	struct plan p;
	int r = plan_of(d, NULL, true, &p, err);

	if (r == 0)
		r = plan_make(d->fleet, &p, name, err);
	if (r == 0)
		draft_remove(d);
	return r;
}
