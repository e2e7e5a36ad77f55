/*
 * Does KVM work here? Found out by trying (run.c), kept in state_dir/.accel.json
 * for this QEMU, this host kernel and this build of an image: when one of them
 * changes it is tried again.
 */
#ifndef SBXFS_KVM_ACCEL_H
#define SBXFS_KVM_ACCEL_H

struct cJSON;
struct err;

enum accel_verdict { ACCEL_UNKNOWN, ACCEL_KVM, ACCEL_TCG };

struct accel {
	char *path;			/* .accel.json */
	char *qemu;			/* which QEMU: path, size, time */
	char *host;			/* which kernel */
	struct cJSON *found;		/* the file's object */
};

void accel_init(struct accel *, const char *state_dir, const char *qemu);
void accel_finish(struct accel *);

/* What is known. *why is a sentence for ACCEL_TCG, else ""; borrowed until accel_store. */
enum accel_verdict accel_lookup(const struct accel *, const char *image_dir, const char **why);
/* What was seen. A file that cannot be written is logged, and KVM tried again next time. */
void accel_store(struct accel *, const char *image_dir, enum accel_verdict, const char *why);

/* Can /dev/kvm be opened by us? 0, or a negative errno and *err. */
int accel_device(struct err *err);
/*
 * Is it worth a try? Also not where the CPU shows no vmx and no svm: such a KVM
 * (a nested, paravirtual one) runs stock guests at a crawl until they die.
 */
int accel_promising(struct err *err);

#endif
