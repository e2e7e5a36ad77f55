/*
 * Drafts; see draft.h. Here is what users do to them, and what of them is on disk:
 * <state>/drafts/NAME, a JSON object of the written values. draft_keys.c knows the values.
 */
#include "draft_internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "flush.h"
#include "log.h"

#define DRAFTS_MAX 1000
#define DRAFT_LIFE_MS (24 * 3600 * 1000)

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

int draft_set(struct draft *d, const char *name, const char *value, struct err *err)
{
	cJSON *before = cJSON_Duplicate(d->values, true);
	int r = *value ? draft_check(d, name, value, err) : 0;

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
	int r = draft_plan(d, NULL, true, &p, err);

	if (r == 0)
		r = plan_make(d->fleet, &p, name, err);
	if (r == 0)
		draft_remove(d);
	return r;
}
