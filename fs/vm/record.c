/*
 * A record as JSON text, and back.
 *
 * Sizes are strings (a double has no room for all of them). What a daemon of before
 * did not write is not there, and is then as it was for it: no id but the name.
 */
#include "store.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const setup_names[] = {
	[SETUP_NONE] = "", [SETUP_PENDING] = "pending", [SETUP_STARTED] = "started",
	[SETUP_DONE] = "done",
};

/* --- print ------------------------------------------------------------------- */

static void put_text(cJSON *json, const char *key, const char *value)
{
	if (*value)
		cJSON_AddStringToObject(json, key, value);
}

static void put_size(cJSON *json, const char *key, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	cJSON_AddStringToObject(json, key, text);
}

static void put_time(cJSON *json, const char *key, int64_t ms)
{
	if (ms)
		cJSON_AddNumberToObject(json, key, (double)ms);
}

static void put_flag(cJSON *json, const char *key, bool on)
{
	if (on)
		cJSON_AddTrueToObject(json, key);
}

static void put_spec(cJSON *json, const struct vm_spec *s)
{
	put_text(json, "image", s->image);
	cJSON_AddNumberToObject(json, "cpus", s->cpus);
	put_size(json, "memory", s->memory);
	put_size(json, "disk", s->disk);
	put_text(json, "tag", s->tag);
	put_text(json, "made_as", s->name);
	put_text(json, "from", s->from);
	put_text(json, "from_snapshot", s->from_snapshot);
	put_flag(json, "no_network", s->no_network);
	put_text(json, "extra", s->extra);
}

static void put_ports(cJSON *json, const struct record *r)
{
	cJSON *list = r->port_count ? cJSON_AddArrayToObject(json, "ports") : NULL;

	for (unsigned i = 0; i < r->port_count; i++)
		cJSON_AddItemToArray(list, cJSON_CreateNumber(r->ports[i]));
}

char *store_print(const struct record *r)
{
	cJSON *json = cJSON_CreateObject();
	char *text;

	put_text(json, "id", r->id);
	put_text(json, "name", r->name);
	put_text(json, "backend", r->backend);
	put_text(json, "state", r->destroying ? "destroying" : r->made ? "made" : "promised");
	put_spec(json, &r->spec);
	put_time(json, "created", r->created);
	put_flag(json, "foreign", r->foreign);
	put_flag(json, "protect", r->protect);
	put_text(json, "tags", r->tags);
	put_text(json, "comment", r->comment);
	put_time(json, "ttl", r->ttl);
	put_time(json, "idle", r->idle);
	put_time(json, "expires", r->expires);
	put_time(json, "trashed", r->trashed);
	put_flag(json, "was_running", r->was_running);
	put_flag(json, "revive", r->revive);
	put_text(json, "setup", setup_names[r->setup]);
	put_text(json, "placed", r->placed);
	put_ports(json, r);
	text = cJSON_Print(json);
	cJSON_Delete(json);
	return text;
}

/* --- parse --------------------------------------------------------------------- */

static const char *text_of(const cJSON *json, const char *key)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, key));

	return s ? s : "";
}

static void get_text(const cJSON *json, const char *key, char *to, size_t size)
{
	snprintf(to, size, "%s", text_of(json, key));
}

static uint64_t get_size(const cJSON *json, const char *key)
{
	return strtoull(text_of(json, key), NULL, 10);
}

static int64_t get_number(const cJSON *json, const char *key)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);

	return cJSON_IsNumber(item) ? (int64_t)item->valuedouble : 0;
}

static bool get_flag(const cJSON *json, const char *key)
{
	return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, key));
}

static void get_spec(const cJSON *json, struct vm_spec *s)
{
	get_text(json, "image", s->image, sizeof(s->image));
	s->cpus = (unsigned)get_number(json, "cpus");
	s->memory = get_size(json, "memory");
	s->disk = get_size(json, "disk");
	get_text(json, "tag", s->tag, sizeof(s->tag));
	get_text(json, "made_as", s->name, sizeof(s->name));
	get_text(json, "from", s->from, sizeof(s->from));
	get_text(json, "from_snapshot", s->from_snapshot, sizeof(s->from_snapshot));
	s->no_network = get_flag(json, "no_network");
	get_text(json, "extra", s->extra, sizeof(s->extra));
}

static void get_ports(const cJSON *json, struct record *r)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(json, "ports"))
		if (cJSON_IsNumber(item) && item->valueint > 0 && item->valueint < 65536 &&
		    r->port_count < RECORD_PORTS_MAX)
			r->ports[r->port_count++] = (uint16_t)item->valueint;
}

int store_parse(const char *text, struct record *r)
{
	cJSON *json = cJSON_Parse(text);
	const char *state = text_of(json, "state"), *setup = text_of(json, "setup");

	memset(r, 0, sizeof(*r));
	get_text(json, "name", r->name, sizeof(r->name));
	get_text(json, "id", r->id, sizeof(r->id));
	if (!r->id[0])
		memcpy(r->id, r->name, sizeof(r->id));
	get_text(json, "backend", r->backend, sizeof(r->backend));
	r->destroying = !strcmp(state, "destroying");
	r->made = !strcmp(state, "made");
	get_spec(json, &r->spec);
	if (!r->spec.name[0])
		memcpy(r->spec.name, r->name, sizeof(r->spec.name));
	r->created = get_number(json, "created");
	r->foreign = get_flag(json, "foreign");
	r->protect = get_flag(json, "protect");
	get_text(json, "tags", r->tags, sizeof(r->tags));
	get_text(json, "comment", r->comment, sizeof(r->comment));
	r->ttl = get_number(json, "ttl");
	r->idle = get_number(json, "idle");
	r->expires = get_number(json, "expires");
	r->trashed = get_number(json, "trashed");
	r->was_running = get_flag(json, "was_running");
	r->revive = get_flag(json, "revive");
	for (unsigned i = SETUP_PENDING; i <= SETUP_DONE; i++)
		if (!strcmp(setup, setup_names[i]))
			r->setup = (enum setup_state)i;
	get_text(json, "placed", r->placed, sizeof(r->placed));
	get_ports(json, r);
	cJSON_Delete(json);
	return r->name[0] && r->backend[0] ? 0 : -EINVAL;
}
