/* Layers of disks, and which of them are needed: see layer.h. */
#include "layer.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "json.h"
#include "log.h"
#include "machine.h"

#define LAYERS ".layers"

char *layer_folder(const struct kvm *kvm, const char *id)
{
	return xasprintf("%s/" LAYERS "/%s", kvm->state_dir, id);
}

char *layer_file(const struct kvm *kvm, const char *id, const char *file)
{
	return xasprintf("%s/" LAYERS "/%s/%s", kvm->state_dir, id, file);
}

static void new_id(char id[LAYER_ID])
{
	uint8_t random[(LAYER_ID - 1) / 2];

	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		abort();
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(id + 2 * i, 3, "%02x", random[i]);
}

static int make_folder(const char *path)
{
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

int layer_make(struct kvm *kvm, const char *parent, char id[LAYER_ID], struct err *err)
{
	char *all = xasprintf("%s/" LAYERS, kvm->state_dir), *folder, *file;
	cJSON *j = cJSON_CreateObject();
	int r;

	new_id(id);
	folder = layer_folder(kvm, id);
	file = layer_file(kvm, id, "layer.json");
	cJSON_AddStringToObject(j, "parent", parent);
	r = make_folder(all);
	if (r == 0)
		r = make_folder(folder);
	if (r < 0)
		err_sys(err, r, "cannot make the folder %s", folder);
	else
		r = json_save(file, j, err);
	if (r == 0)
		sync_folder(all);
	cJSON_Delete(j);
	free(file);
	free(folder);
	free(all);
	return r;
}

static bool layer_has(const struct kvm *kvm, const char *id, const char *name)
{
	char *file = layer_file(kvm, id, name);
	bool there = access(file, F_OK) == 0;

	free(file);
	return there;
}

bool layer_has_state(const struct kvm *kvm, const char *id)
{
	return layer_has(kvm, id, LAYER_STATE);
}

int layer_set_machine(const char *folder, unsigned version, struct err *err)
{
	char *file = xasprintf("%s/" LAYER_SAVED, folder);
	cJSON *j = cJSON_CreateObject();
	int r;

	json_add_u64(j, "machine", version);
	r = json_save(file, j, err);
	cJSON_Delete(j);
	free(file);
	return r;
}

static unsigned machine_in(const char *folder, const char *name)
{
	char *file = xasprintf("%s/%s", folder, name);
	cJSON *j = json_load(file, NULL);
	unsigned version = (unsigned)json_u64(j, "machine");

	cJSON_Delete(j);
	free(file);
	return version;
}

unsigned layer_machine(const char *folder)
{
	unsigned version = machine_in(folder, LAYER_SAVED);

	if (!version)
		version = machine_in(folder, "template.json");
	return version ? version : 1;
}

uint64_t layer_size(const struct kvm *kvm, const char *id)
{
	static const char *const files[] = { LAYER_DISK, LAYER_RAM, LAYER_STATE };
	uint64_t size = 0;

	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
		char *file = layer_file(kvm, id, files[i]);
		struct stat st;

		if (stat(file, &st) == 0)
			size += (uint64_t)st.st_blocks * 512;
		free(file);
	}
	return size;
}

/* --- garbage -------------------------------------------------------------------- */

struct found {
	char id[LAYER_ID], parent[LAYER_ID];
	bool damaged;			/* its parent is not known */
	bool disk, state;		/* needed */
	UT_hash_handle hh;
};

static struct found *find(struct found *all, const char *id)
{
	struct found *f;

	HASH_FIND_STR(all, id, f);
	return f;
}

static struct found *find_all(const struct kvm *kvm, DIR *d)
{
	struct found *all = NULL, *f;
	struct dirent *entry;

	while ((entry = readdir(d))) {
		char *file;
		cJSON *j;

		if (strlen(entry->d_name) != LAYER_ID - 1)
			continue;
		f = xcalloc(1, sizeof(*f));
		snprintf(f->id, sizeof(f->id), "%s", entry->d_name);
		file = layer_file(kvm, f->id, "layer.json");
		j = json_load(file, NULL);
		snprintf(f->parent, sizeof(f->parent), "%s", json_string(j, "parent"));
		f->damaged = !j && layer_has(kvm, f->id, LAYER_DISK);
		cJSON_Delete(j);
		free(file);
		HASH_ADD_STR(all, id, f);
	}
	return all;
}

/* The disk of a layer lies over those of all its parents. */
static void need_disk(struct found *all, const char *id)
{
	for (struct found *f = find(all, id); f && !f->disk; f = find(all, f->parent))
		f->disk = true;
}

static void need_state(struct found *all, const char *id)
{
	struct found *f = find(all, id);

	if (f)
		f->state = true;
}

static void need(const struct machine *m, struct found *all)
{
	const char *saved = strrchr(m->rec.incoming, '/');

	need_disk(all, m->rec.layer);
	need_disk(all, m->rec.next_layer);
	need_disk(all, m->making);
	need_disk(all, m->origin);
	need_state(all, m->origin);
	need_disk(all, m->save_to);
	need_state(all, m->save_to);
	if (saved)
		need_state(all, saved + 1);
	for (size_t i = 0; i < m->rec.snapshot_count; i++) {
		need_disk(all, m->rec.snapshots[i].layer);
		need_state(all, m->rec.snapshots[i].layer);
	}
}

static void remove_file(const struct kvm *kvm, const char *id, const char *name)
{
	char *file = layer_file(kvm, id, name);

	unlink(file);
	free(file);
}

static void remove_unneeded(const struct kvm *kvm, const struct found *f)
{
	char *folder;

	if (!f->state) {
		remove_file(kvm, f->id, LAYER_STATE);
		remove_file(kvm, f->id, LAYER_SAVED);
		remove_file(kvm, f->id, LAYER_RAM);
		remove_file(kvm, f->id, LAYER_STATE ".new");
		remove_file(kvm, f->id, LAYER_RAM ".new");
	}
	if (f->disk)
		return;
	folder = layer_folder(kvm, f->id);
	if (remove_folder(folder) < 0)
		log_warn("cannot remove the disk %s: %s", folder, strerror(errno));
	free(folder);
}

void layers_collect(struct kvm *kvm)
{
	char *folder = xasprintf("%s/" LAYERS, kvm->state_dir);
	struct found *all, *f, *next;
	struct machine *m, *m_next;
	DIR *d = opendir(folder);
	bool sure = true;

	free(folder);
	if (!d)
		return;
	all = find_all(kvm, d);
	closedir(d);
	HASH_ITER (hh, kvm->machines, m, m_next) {
		need(m, all);
		sure = sure && !m->damaged;
	}
	for (f = all; f; f = f->hh.next)
		sure = sure && !(f->damaged && f->disk);
	HASH_ITER (hh, all, f, next) {
		if (sure)
			remove_unneeded(kvm, f);
		HASH_DEL(all, f);
		free(f);
	}
}
