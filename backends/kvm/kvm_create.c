/* A new sandbox: what it shall be is checked, and filled in from what it is cloned from. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "err.h"
#include "image.h"
#include "kvm_internal.h"

static int check_spec(const struct vm_spec *spec, const struct image *image, struct err *err)
{
	uint64_t most = kvm_host_memory();

	if (spec->cpus < 1 || spec->cpus > KVM_CPUS_MAX)
		return err_set(err, -EINVAL, "cpus must be 1 to %d, not %u", KVM_CPUS_MAX,
			       spec->cpus);
	if (spec->memory < image->min_memory)
		return err_set(err, -EINVAL, "memory must be at least %lluM for the image '%s'",
			       (unsigned long long)(image->min_memory / MIB), spec->image);
	if (most && spec->memory > most)
		return err_set(err, -EINVAL, "memory is more than the %lluM that this machine has",
			       (unsigned long long)(most / MIB));
	if (spec->disk < image->disk_size || spec->disk > KVM_DISK_MAX)
		return err_set(err, -EINVAL, "disk must be %lluM to %lluT for the image '%s'",
			       (unsigned long long)(image->disk_size / MIB),
			       (unsigned long long)(KVM_DISK_MAX >> 40), spec->image);
	return 0;
}

/* Sizes are in whole ones: what was asked for may have been less. */
static uint64_t mib(uint64_t bytes)
{
	return bytes / MIB + (bytes % MIB != 0);
}

/* What is copied is a disk and a memory, and they have their size. 0: whatever it is. */
static int check_size(const struct vm_spec *asked, const struct vm_spec *source, struct err *err)
{
	const char *other = asked->image[0] && strcmp(asked->image, source->image) ? "image" :
			    asked->cpus && asked->cpus != source->cpus ? "cpus" :
			    asked->memory && mib(asked->memory) != mib(source->memory) ? "memory" :
			    asked->disk && mib(asked->disk) != mib(source->disk) ? "disk" : NULL;

	return !other ? 0 : err_set(err, -EINVAL,
				    "a clone has the %s of what it is cloned from: leave it out",
				    other);
}

/* A clone is of the size of what it is cloned from, which is there to be cloned. */
static int check_origin(struct kvm *kvm, struct vm_spec *spec, char image_dir[PATH_MAX],
			struct err *err)
{
	const struct machine *source = machine_find(kvm, spec->from);

	if (!source || source->hidden)
		return err_set(err, -ENOENT, "there is no sandbox %s to clone", spec->from);
	if (spec->from_snapshot[0] && !snapshot_find(source, spec->from_snapshot))
		return err_set(err, -ENOENT, "%s has no snapshot %s", spec->from,
			       spec->from_snapshot);
	if (!spec->from_snapshot[0] && source->state != VM_UP && source->state != VM_PAUSED &&
	    source->state != VM_STOPPED)
		return machine_refuse(source, "clone", err);
	if (check_size(spec, &source->rec.spec, err) < 0)
		return err->code;
	snprintf(spec->image, sizeof(spec->image), "%s", source->rec.spec.image);
	spec->cpus = source->rec.spec.cpus;
	spec->memory = source->rec.spec.memory;
	spec->disk = source->rec.spec.disk;
	snprintf(image_dir, PATH_MAX, "%s", source->rec.image_dir);
	return 0;
}

static int create(struct kvm *kvm, const char *name, struct vm_spec *spec, struct image *image,
		  struct err *err)
{
	char image_dir[PATH_MAX];
	int r;

	if (spec->from[0]) {
		r = check_origin(kvm, spec, image_dir, err);
		if (r == 0)
			r = image_load(image, image_dir, err);
	} else {
		r = image_find(image, kvm->images, spec->image, err);
		if (r == 0)
			r = check_spec(spec, image, err);
	}
	if (r < 0)
		return r;
	spec->memory = mib(spec->memory) * MIB;
	spec->disk = mib(spec->disk) * MIB;
	if (!spec->from[0] && pool_take(kvm, name, spec, image->dir) == 0)
		return 0;
	return machine_create(kvm, name, spec, image, err);
}

int kvm_create(struct backend *b, const char *name, const struct vm_spec *spec, struct err *err)
{
	struct kvm *kvm = kvm_of(b);
	struct vm_spec whole = *spec;
	struct image *image;
	int r;

	if (name[0] == '.' || strchr(name, '/') || strlen(name) >= 64)
		return err_set(err, -EINVAL, "'%s' is no name for a sandbox", name);
	if (machine_find(kvm, name))
		return err_set(err, -EEXIST, "there is a sandbox %s already", name);
	if (kvm->unready.code)
		return err_set(err, kvm->unready.code, "%s", kvm->unready.text);
	image = xcalloc(1, sizeof(*image));
	r = create(kvm, name, &whole, image, err);
	free(image);
	return r;
}
