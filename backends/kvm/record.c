/* The record of a VM as JSON: see record.h. */
#include "record.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "json.h"

#define RECORD_VERSION 1

static const char *const phase_names[] = {
	[PHASE_NEW] = "new",
	[PHASE_STARTING] = "starting",
	[PHASE_RUNNING] = "running",
	[PHASE_STOPPED] = "stopped",
	[PHASE_FAILED] = "failed",
	[PHASE_DESTROYING] = "destroying",
};
static_assert(sizeof(phase_names) / sizeof(*phase_names) == PHASE_DESTROYING + 1,
	      "a name a phase");

static cJSON *snapshots_to_json(const struct record *rec)
{
	cJSON *list = cJSON_CreateArray();

	for (size_t i = 0; i < rec->snapshot_count; i++) {
		cJSON *j = cJSON_CreateObject();

		cJSON_AddStringToObject(j, "name", rec->snapshots[i].name);
		cJSON_AddStringToObject(j, "layer", rec->snapshots[i].layer);
		json_add_u64(j, "taken", (uint64_t)rec->snapshots[i].taken);
		cJSON_AddItemToArray(list, j);
	}
	return list;
}

static int snapshots_from_json(struct record *rec, const cJSON *list)
{
	const cJSON *j;

	cJSON_ArrayForEach (j, list) {
		struct record_snapshot *s = &rec->snapshots[rec->snapshot_count];

		if (rec->snapshot_count == SNAPSHOTS_MAX ||
		    json_copy(j, "name", s->name, sizeof(s->name)) ||
		    json_copy(j, "layer", s->layer, sizeof(s->layer)))
			return -1;
		s->taken = (int64_t)json_u64(j, "taken");
		rec->snapshot_count++;
	}
	return 0;
}

static void disk_to_json(const struct record *rec, cJSON *j)
{
	cJSON_AddStringToObject(j, "layer", rec->layer);
	cJSON_AddStringToObject(j, "next_layer", rec->next_layer);
	cJSON_AddStringToObject(j, "base", rec->base);
	cJSON_AddStringToObject(j, "incoming", rec->incoming);
	cJSON_AddBoolToObject(j, "cloning", rec->cloning);
	cJSON_AddStringToObject(j, "start_why", rec->start_why);
	cJSON_AddStringToObject(j, "from", rec->spec.from);
	cJSON_AddStringToObject(j, "from_snapshot", rec->spec.from_snapshot);
	cJSON_AddItemToObject(j, "snapshots", snapshots_to_json(rec));
}

/* All of it may be missing: a record of before there were layers. */
static int disk_from_json(struct record *rec, const cJSON *j)
{
	snprintf(rec->layer, sizeof(rec->layer), "%s", json_string(j, "layer"));
	snprintf(rec->next_layer, sizeof(rec->next_layer), "%s", json_string(j, "next_layer"));
	snprintf(rec->base, sizeof(rec->base), "%s", json_string(j, "base"));
	snprintf(rec->incoming, sizeof(rec->incoming), "%s", json_string(j, "incoming"));
	rec->cloning = json_bool(j, "cloning");
	snprintf(rec->start_why, sizeof(rec->start_why), "%s", json_string(j, "start_why"));
	snprintf(rec->spec.from, sizeof(rec->spec.from), "%s", json_string(j, "from"));
	snprintf(rec->spec.from_snapshot, sizeof(rec->spec.from_snapshot), "%s",
		 json_string(j, "from_snapshot"));
	return snapshots_from_json(rec, cJSON_GetObjectItemCaseSensitive(j, "snapshots"));
}

static cJSON *to_json(const struct record *rec)
{
	cJSON *j = cJSON_CreateObject();

	json_add_u64(j, "version", RECORD_VERSION);
	cJSON_AddStringToObject(j, "name", rec->name);
	cJSON_AddStringToObject(j, "shown", rec->spec.name);
	cJSON_AddStringToObject(j, "tag", rec->spec.tag);
	cJSON_AddStringToObject(j, "image", rec->spec.image);
	cJSON_AddStringToObject(j, "image_dir", rec->image_dir);
	json_add_u64(j, "cpus", rec->spec.cpus);
	json_add_u64(j, "memory", rec->spec.memory);
	json_add_u64(j, "disk", rec->spec.disk);
	cJSON_AddStringToObject(j, "machine_id", rec->machine_id);
	json_add_u64(j, "created", (uint64_t)rec->created);
	cJSON_AddStringToObject(j, "phase", phase_names[rec->phase]);
	cJSON_AddBoolToObject(j, "made", rec->made);
	cJSON_AddBoolToObject(j, "stopping", rec->stopping);
	cJSON_AddBoolToObject(j, "paused", rec->paused);
	cJSON_AddBoolToObject(j, "can_clone", rec->can_clone);
	cJSON_AddBoolToObject(j, "no_network", rec->spec.no_network);
	disk_to_json(rec, j);
	cJSON_AddStringToObject(j, "accel", rec->accel);
	cJSON_AddStringToObject(j, "accel_why", rec->accel_why);
	json_add_u64(j, "pid", (uint64_t)rec->pid);
	json_add_u64(j, "pid_start", rec->pid_start);
	json_add_u64(j, "net_pid", (uint64_t)rec->net_pid);
	json_add_u64(j, "net_start", rec->net_start);
	cJSON_AddBoolToObject(j, "qemu_network", rec->qemu_network);
	cJSON_AddStringToObject(j, "run_dir", rec->run_dir);
	cJSON_AddStringToObject(j, "boot_id", rec->boot_id);
	json_add_u64(j, "port", (uint64_t)rec->port);
	cJSON_AddBoolToObject(j, "ready", rec->ready);
	cJSON_AddNumberToObject(j, "why_code", rec->why.code);
	cJSON_AddStringToObject(j, "why", rec->why.text);
	return j;
}

static int phase_from(const char *name, enum phase *phase)
{
	for (int p = 0; p <= PHASE_DESTROYING; p++) {
		if (!strcmp(phase_names[p], name)) {
			*phase = (enum phase)p;
			return 0;
		}
	}
	return -EBADMSG;
}

static int from_json(struct record *rec, const cJSON *j)
{
	const cJSON *code = cJSON_GetObjectItemCaseSensitive(j, "why_code");
	int r = 0;

	r |= json_u64(j, "version") == RECORD_VERSION ? 0 : -1;
	r |= json_copy(j, "name", rec->name, sizeof(rec->name));
	r |= json_copy(j, "tag", rec->spec.tag, sizeof(rec->spec.tag));
	r |= json_copy(j, "image", rec->spec.image, sizeof(rec->spec.image));
	r |= json_copy(j, "image_dir", rec->image_dir, sizeof(rec->image_dir));
	r |= json_copy(j, "machine_id", rec->machine_id, sizeof(rec->machine_id));
	r |= phase_from(json_string(j, "phase"), &rec->phase);
	rec->spec.cpus = (unsigned)json_u64(j, "cpus");
	rec->spec.memory = json_u64(j, "memory");
	rec->spec.disk = json_u64(j, "disk");
	rec->created = (int64_t)json_u64(j, "created");
	rec->made = json_bool(j, "made");
	rec->stopping = json_bool(j, "stopping");
	rec->paused = json_bool(j, "paused");
	rec->can_clone = json_bool(j, "can_clone");
	rec->spec.no_network = json_bool(j, "no_network");
	snprintf(rec->spec.name, sizeof(rec->spec.name), "%s", json_string(j, "shown"));
	r |= disk_from_json(rec, j);
	snprintf(rec->accel, sizeof(rec->accel), "%s", json_string(j, "accel"));
	snprintf(rec->accel_why, sizeof(rec->accel_why), "%s", json_string(j, "accel_why"));
	rec->pid = (pid_t)json_u64(j, "pid");
	rec->pid_start = json_u64(j, "pid_start");
	rec->net_pid = (pid_t)json_u64(j, "net_pid");
	rec->net_start = json_u64(j, "net_start");
	/* A record of before there was such a process knows of none. */
	rec->qemu_network = !cJSON_HasObjectItem(j, "net_start") || json_bool(j, "qemu_network");
	snprintf(rec->run_dir, sizeof(rec->run_dir), "%s", json_string(j, "run_dir"));
	snprintf(rec->boot_id, sizeof(rec->boot_id), "%s", json_string(j, "boot_id"));
	rec->port = (int)json_u64(j, "port");
	rec->ready = json_bool(j, "ready");
	rec->why.code = cJSON_IsNumber(code) ? code->valueint : 0;
	snprintf(rec->why.text, sizeof(rec->why.text), "%s", json_string(j, "why"));
	return r ? -EBADMSG : 0;
}

int record_save(const struct record *rec, const char *dir, struct err *err)
{
	char *path = xasprintf("%s/vm.json", dir);
	cJSON *j = to_json(rec);
	int r = json_save(path, j, err);

	cJSON_Delete(j);
	free(path);
	return r;
}

int record_load(struct record *rec, const char *dir, struct err *err)
{
	char *path = xasprintf("%s/vm.json", dir);
	cJSON *j = json_load(path, err);
	int r;

	memset(rec, 0, sizeof(*rec));
	r = j ? from_json(rec, j) : err ? err->code : -EIO;
	if (j && r < 0)
		err_set(err, r, "%s is damaged", path);
	cJSON_Delete(j);
	free(path);
	return r;
}
