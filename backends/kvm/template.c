/*
 * Templates: machines that have booted, that have been used a little so that all is
 * warm, and that were then saved. A new machine of the same size begins there.
 *
 * A template is a folder BUILD/templates/NAME of an image's build, with ram, state,
 * disk.qcow2 (over the image's) and template.json, which says what it is good for. It
 * is made beside, as .new-*, and gets its name when it is complete. The disks of
 * machines lie over its disk, so that stays as long as the build.
 *
 * They are made in template_make.c.
 */
#include <cjson/cJSON.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "image.h"
#include "json.h"
#include "layer.h"
#include "machine.h"

#define TEMPLATES "templates"
#define MIB (1ull << 20)

/* --- finding ------------------------------------------------------------------------ */

static cJSON *load_template(const char *folder)
{
	char *path = xasprintf("%s/template.json", folder);
	cJSON *j = json_load(path, NULL);

	free(path);
	return j;
}

uint64_t template_disk(const char *folder)
{
	cJSON *j = load_template(folder);
	uint64_t size = json_u64(j, "disk");

	cJSON_Delete(j);
	return size;
}

void template_accel(const char *folder, char accel[8])
{
	cJSON *j = load_template(folder);

	snprintf(accel, 8, "%s", json_string(j, "accel"));
	cJSON_Delete(j);
}

void template_spoil(const char *folder)
{
	char *path = xasprintf("%s/template.json", folder);

	unlink(path);
	free(path);
}

/* QEMU can map a file privately only where it may write to it. */
static bool usable(const char *folder)
{
	char *ram = xasprintf("%s/" LAYER_RAM, folder);
	char *state = xasprintf("%s/" LAYER_STATE, folder);
	bool good = access(ram, R_OK | W_OK) == 0 && access(state, R_OK) == 0;

	free(state);
	free(ram);
	return good;
}

static bool fits(const cJSON *j, const char *accel, const struct vm_spec *spec)
{
	return !strcmp(json_string(j, "accel"), accel) && json_u64(j, "cpus") == spec->cpus &&
	       json_u64(j, "memory") == spec->memory && json_u64(j, "disk") <= spec->disk;
}

/* What a state was saved by must take it in again; KVM also shows the host's own CPU. */
static bool same_qemu(const struct kvm *kvm, const cJSON *j)
{
	bool kvm_used = !strcmp(json_string(j, "accel"), "kvm");

	return !strcmp(json_string(j, "qemu"), kvm->accel.qemu) &&
	       (!kvm_used || !strcmp(json_string(j, "host"), kvm->accel.host));
}

static char *search(struct kvm *kvm, const char *image_dir, const char *accel,
		    const struct vm_spec *spec, bool *other_qemu)
{
	char *all = xasprintf("%s/" TEMPLATES, image_dir), *found = NULL;
	DIR *d = opendir(all);
	struct dirent *entry;

	*other_qemu = false;
	while (d && !found && (entry = readdir(d))) {
		char *folder;
		cJSON *j;

		if (entry->d_name[0] == '.')
			continue;
		folder = xasprintf("%s/%s", all, entry->d_name);
		j = load_template(folder);
		if (j && fits(j, accel, spec) && usable(folder)) {
			if (same_qemu(kvm, j))
				found = xstrdup(folder);
			else
				*other_qemu = true;
		}
		cJSON_Delete(j);
		free(folder);
	}
	if (d)
		closedir(d);
	free(all);
	return found;
}

char *template_find(struct kvm *kvm, const struct image *image, const struct vm_spec *spec,
		    char *why, size_t size)
{
	bool other_qemu, known;
	char accel[8], *found;

	why[0] = '\0';
	if (!kvm->templates) {
		snprintf(why, size, "the configuration says templates = off");
		return NULL;
	}
	/* That there is a template for KVM on this host shows that it works. */
	known = run_expect_accel(kvm, image->dir, accel);
	found = search(kvm, image->dir, known ? accel : "kvm", spec, &other_qemu);
	if (!found && !known) {
		snprintf(why, size, "it is not known yet whether KVM works here");
		return NULL;
	}
	if (!found && other_qemu)
		snprintf(why, size, "the template was made by another QEMU or on another kernel; "
			 "it is being made again");
	else if (!found)
		snprintf(why, size, "there was no template for %u cpus and %lluM of memory with %s",
			 spec->cpus, (unsigned long long)(spec->memory / MIB), accel);
	return found;
}

void template_describe(struct kvm *kvm, const struct image *image, struct buf *out)
{
	char *all = xasprintf("%s/" TEMPLATES, image->dir);
	DIR *d = opendir(all);
	struct dirent *entry;
	const char *comma = "";

	while (d && (entry = readdir(d))) {
		char *folder = xasprintf("%s/%s", all, entry->d_name);
		cJSON *j = entry->d_name[0] == '.' ? NULL : load_template(folder);

		if (j && same_qemu(kvm, j) && usable(folder)) {
			buf_printf(out, "%s%llux%lluM-%s", comma,
				   (unsigned long long)json_u64(j, "cpus"),
				   (unsigned long long)(json_u64(j, "memory") / MIB),
				   json_string(j, "accel"));
			comma = ",";
		}
		cJSON_Delete(j);
		free(folder);
	}
	if (!comma[0])
		buf_printf(out, "none");
	if (d)
		closedir(d);
	free(all);
}
