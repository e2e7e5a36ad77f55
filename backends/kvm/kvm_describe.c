/* The KVM backend's line in .sbxfs/backends. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "err.h"
#include "image.h"
#include "kvm_internal.h"

/* What a new sandbox would run on: kvm, tcg, or auto when that is not known yet. */
static void describe_accel(const struct kvm *kvm, const char *images, struct buf *out)
{
	static const char *const words[] = { "auto", "kvm", "tcg" };
	struct image *image = xcalloc(1, sizeof(*image));
	enum accel_verdict known = ACCEL_UNKNOWN;
	char first[64];
	struct err err = ERR_NONE;
	const char *why = "";

	snprintf(first, sizeof(first), "%.*s", (int)strcspn(images, ","), images);
	if (kvm->choice != ACCEL_CHOICE_AUTO) {
		buf_printf(out, "accel=%s", words[kvm->choice]);
	} else if (accel_promising(&err) < 0) {
		buf_printf(out, "accel=tcg (%s)", err.text);
	} else {
		if (image_find(image, kvm->images, first, NULL) == 0)
			known = accel_lookup(&kvm->accel, image->dir, &why);
		buf_printf(out, "accel=%s", words[known]);
		if (why[0])
			buf_printf(out, " (%s)", why);
	}
	free(image);
}

static void describe_templates(struct kvm *kvm, const char *images, struct buf *out)
{
	struct image *image = xcalloc(1, sizeof(*image));
	char first[64];

	snprintf(first, sizeof(first), "%.*s", (int)strcspn(images, ","), images);
	if (kvm->templates && image_find(image, kvm->images, first, NULL) == 0) {
		buf_printf(out, " templates=");
		template_describe(kvm, image, out);
	}
	if (kvm->pool)
		buf_printf(out, " pool=%u", kvm->pool);
	free(image);
}

void kvm_describe(struct backend *b, struct buf *out)
{
	struct kvm *kvm = kvm_of(b);
	struct buf names = BUF_INIT;
	char *images;

	image_names(kvm->images, &names);
	buf_printf(out, "images=");
	buf_put(out, buf_peek(&names), buf_size(&names));
	images = buf_take_string(&names);
	buf_printf(out, " cpus=1-%d memory=%lluM disk=%lluT qemu=%s ", KVM_CPUS_MAX,
		   (unsigned long long)(kvm_host_memory() / MIB),
		   (unsigned long long)(KVM_DISK_MAX >> 40), kvm->qemu);
	describe_accel(kvm, images, out);
	describe_templates(kvm, images, out);
	free(images);
}
