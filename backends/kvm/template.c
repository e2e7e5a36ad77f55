/*
 * Templates: machines that have booted, that have been used a little so that all is
 * warm, and that were then saved. A new machine of the same size begins there.
 *
 * A template is a folder BUILD/templates/NAME of an image's build, with ram, state,
 * disk.qcow2 (over the image's) and template.json, which says what it is good for. It
 * is made beside, as .new-*, and gets its name when it is complete. The disks of
 * machines lie over its disk, so that stays as long as the build.
 *
 * They are made in template_make.c. One whose files are not as they were when it was made
 * is not used: their sizes and times are looked at here at each mkdir, and all of it is
 * read now and then (template_check.c) and by sbxfs-image verify.
 */
#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "image.h"
#include "json.h"
#include "layer.h"
#include "log.h"
#include "machine.h"
#include "qemu_args.h"
#include "template_sum.h"

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

/* The description first: without it, nothing else is looked at. The disk may be in use. */
void template_spoil(const char *folder)
{
	static const char *const files[] = { "template.json", LAYER_STATE, LAYER_RAM };

	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
		char *path = xasprintf("%s/%s", folder, files[i]);

		if (unlink(path) < 0 && errno != ENOENT)
			log_warn("cannot remove %s: %s", path, strerror(errno));
		free(path);
	}
}

/* QEMU can map a file privately only where it may write to it. */
static bool usable(const char *folder)
{
	char *ram = xasprintf("%s/" LAYER_RAM, folder);
	bool good = access(ram, R_OK | W_OK) == 0;

	free(ram);
	return good;
}

/* What a state was saved by must take it in again; KVM also shows the host's own CPU. */
static bool same_qemu(const struct kvm *kvm, const cJSON *j)
{
	bool kvm_used = !strcmp(json_string(j, "accel"), "kvm");

	return json_u64(j, "machine") == QEMU_MACHINE_VERSION &&
	       !strcmp(json_string(j, "qemu"), kvm->accel.qemu) &&
	       (!kvm_used || !strcmp(json_string(j, "host"), kvm->accel.host));
}

static bool same_size(const cJSON *j, const char *accel, const struct vm_spec *spec)
{
	return !strcmp(json_string(j, "accel"), accel) && json_u64(j, "cpus") == spec->cpus &&
	       json_u64(j, "memory") == spec->memory;
}

/* why: it would fit but for that. */
static bool will_do(const struct kvm *kvm, const char *folder, const cJSON *j, const char **why)
{
	const char *changed;

	if (!usable(folder))
		return false;
	if (!same_qemu(kvm, j))
		*why = "the template was made by another QEMU, on another kernel or by an "
		       "earlier sbxfs";
	else if (!template_sum_unchanged(folder, j, &changed))
		*why = changed;
	else
		return true;
	return false;
}

/* The next template below all, in no order; free it. NULL: there is no other. */
static char *next_folder(DIR *d, const char *all)
{
	struct dirent *entry;

	while (d && (entry = readdir(d)))
		if (entry->d_name[0] != '.')
			return xasprintf("%s/%s", all, entry->d_name);
	return NULL;
}

static char *search(struct kvm *kvm, const char *image_dir, const char *accel,
		    const struct vm_spec *spec, const char **why)
{
	char *all = xasprintf("%s/" TEMPLATES, image_dir), *folder;
	DIR *d = opendir(all);

	*why = NULL;
	while ((folder = next_folder(d, all))) {
		cJSON *j = load_template(folder);
		bool found = j && same_size(j, accel, spec) && json_u64(j, "disk") <= spec->disk &&
			     will_do(kvm, folder, j, why);

		cJSON_Delete(j);
		if (found)
			break;
		free(folder);
	}
	if (d)
		closedir(d);
	free(all);
	return folder;
}

void template_retire(const char *folder, const struct vm_spec *spec, const char *accel)
{
	char *all = xstrndup(folder, (size_t)(strrchr(folder, '/') - folder)), *other;
	DIR *d = opendir(all);
	const char *why;

	while ((other = next_folder(d, all))) {
		cJSON *j = load_template(other);

		if (j && same_size(j, accel, spec) && strcmp(other, folder) &&
		    !template_sum_unchanged(other, j, &why))
			template_spoil(other);
		cJSON_Delete(j);
		free(other);
	}
	if (d)
		closedir(d);
	free(all);
}

char *template_find(struct kvm *kvm, const struct image *image, const struct vm_spec *spec,
		    char *why, size_t size)
{
	char accel[8], *found;
	const char *no;
	bool known;

	why[0] = '\0';
	if (!kvm->templates) {
		snprintf(why, size, "the configuration says templates = off");
		return NULL;
	}
	/* That there is a template for KVM on this host shows that it works. */
	known = run_expect_accel(kvm, image->dir, accel);
	found = search(kvm, image->dir, known ? accel : "kvm", spec, &no);
	if (!found && !known) {
		snprintf(why, size, "it is not known yet whether KVM works here");
		return NULL;
	}
	if (!found && no)
		snprintf(why, size, "%s; it is being made again", no);
	else if (!found)
		snprintf(why, size, "there was no template for %u cpus and %lluM of memory with %s",
			 spec->cpus, (unsigned long long)(spec->memory / MIB), accel);
	return found;
}

void template_describe(struct kvm *kvm, const struct image *image, struct buf *out)
{
	char *all = xasprintf("%s/" TEMPLATES, image->dir), *folder;
	DIR *d = opendir(all);
	const char *comma = "", *why;

	while ((folder = next_folder(d, all))) {
		cJSON *j = load_template(folder);

		if (j && will_do(kvm, folder, j, &why)) {
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
