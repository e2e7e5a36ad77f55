/*
 * The KVM backend: sandboxes as QEMU machines on this host. This file is the
 * table of ops and what concerns all machines: the configuration, what the
 * host has, and what stands recorded below state_dir when the daemon starts.
 * One machine's life is in machine.c.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "image.h"
#include "log.h"
#include "machine.h"

#define CPUS_MAX 64
#define DISK_MAX (16ull << 40)
#define MIB (1ull << 20)

extern const struct backend_ops kvm_backend_ops;

static struct kvm *kvm_of(struct backend *b)
{
	return container_of(b, struct kvm, base);
}

/* --- what the host has ------------------------------------------------------- */

/* The path of a program, looked up in PATH unless it is one already; NULL: not there. */
static char *find_program(const char *name)
{
	const char *path = getenv("PATH");

	if (strchr(name, '/'))
		return access(name, X_OK) == 0 ? xstrdup(name) : NULL;
	for (path = path ? path : "/usr/bin:/bin"; *path; path += strspn(path, ":")) {
		size_t len = strcspn(path, ":");
		char *file = xasprintf("%.*s/%s", (int)len, path, name);

		if (access(file, X_OK) == 0)
			return file;
		free(file);
		path += len;
	}
	return NULL;
}

static void need_program(struct kvm *kvm, const char *name, const char *package)
{
	char *path = find_program(name);

	if (!path && !kvm->unready.code)
		err_set(&kvm->unready, -ENODEV, "%s is not installed: apt install %s", name,
			package);
	free(path);
}

static uint64_t host_memory(void)
{
	struct sysinfo si;

	return sysinfo(&si) ? 0 : (uint64_t)si.totalram * si.mem_unit;
}

/* --- configuration -------------------------------------------------------------- */

static int take_accel(struct kvm *kvm, const char *value, struct err *err)
{
	if (!value || !strcmp(value, "auto"))
		kvm->choice = ACCEL_CHOICE_AUTO;
	else if (!strcmp(value, "kvm"))
		kvm->choice = ACCEL_CHOICE_KVM;
	else if (!strcmp(value, "tcg"))
		kvm->choice = ACCEL_CHOICE_TCG;
	else
		return err_set(err, -EINVAL, "[kvm] accel must be auto, kvm or tcg, not '%s'",
			       value);
	return 0;
}

static void take_qemu(struct kvm *kvm, const char *value)
{
	kvm->qemu = find_program(value ? value : "qemu-system-x86_64");
	if (kvm->qemu)
		return;
	kvm->qemu = xstrdup(value ? value : "qemu-system-x86_64");
	if (value)
		err_set(&kvm->unready, -ENODEV, "[kvm] qemu: there is no program %s", value);
	else
		need_program(kvm, kvm->qemu, "qemu-system-x86");
}

static int take_conf(struct kvm *kvm, const struct backend_conf *conf, struct err *err)
{
	const char *images = conf->get(conf, "images");
	int r = take_accel(kvm, conf->get(conf, "accel"), err);

	if (r < 0)
		return r;
	if (images && images[0] != '/')
		return err_set(err, -EINVAL, "[kvm] images must be an absolute path, not '%s'",
			       images);
	kvm->state_dir = xstrdup(conf->state_dir);
	kvm->run_dir = xstrdup(conf->run_dir);
	kvm->images = images ? xstrdup(images) : xasprintf("%s/images", conf->data_dir);
	take_qemu(kvm, conf->get(conf, "qemu"));
	need_program(kvm, "qemu-img", "qemu-utils");
	need_program(kvm, "ssh-keygen", "openssh-client");
	return 0;
}

/* --- start ------------------------------------------------------------------------ */

/* A folder without a record is of a VM that was never promised, or is gone already. */
static void take_folder(struct kvm *kvm, const char *name)
{
	char *record = xasprintf("%s/%s/vm.json", kvm->state_dir, name);
	struct err err;

	if (access(record, F_OK) == 0)
		machine_adopt(kvm, name);
	else if (make_remove(kvm, name, &err) < 0)
		log_error("%s", err.text);
	free(record);
}

static int take_folders(struct kvm *kvm, struct err *err)
{
	DIR *dir = opendir(kvm->state_dir);
	struct dirent *entry;
	struct stat st;

	if (!dir)
		return err_sys(err, -errno, "cannot read %s", kvm->state_dir);
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.' && strlen(entry->d_name) < 64 &&
		    !fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) &&
		    S_ISDIR(st.st_mode))
			take_folder(kvm, entry->d_name);
	closedir(dir);
	return 0;
}

static void tell_readiness(struct loop_later *l)
{
	struct kvm *kvm = container_of(l, struct kvm, start);

	kvm->events->ready(kvm->user, !kvm->unready.code, kvm->unready.text);
}

static void kvm_close(struct backend *b)
{
	struct kvm *kvm = b ? kvm_of(b) : NULL;
	struct machine *m, *next;

	if (!kvm)
		return;
	loop_later_cancel(&kvm->start);
	HASH_ITER (hh, kvm->machines, m, next)
		machine_free(m);
	accel_finish(&kvm->accel);
	free(kvm->state_dir);
	free(kvm->run_dir);
	free(kvm->images);
	free(kvm->qemu);
	free(kvm);
}

static int kvm_open(struct backend **b, struct loop *loop, const struct backend_conf *conf,
		    const struct backend_events *events, void *user, struct err *err)
{
	struct kvm *kvm = xcalloc(1, sizeof(*kvm));
	int r;

	kvm->base.ops = &kvm_backend_ops;
	kvm->base.caps = kvm_backend_ops.caps;
	kvm->loop = loop;
	kvm->events = events;
	kvm->user = user;
	r = take_conf(kvm, conf, err);
	if (r == 0) {
		accel_init(&kvm->accel, kvm->state_dir, kvm->qemu);
		r = take_folders(kvm, err);
	}
	if (r < 0) {
		kvm_close(&kvm->base);
		return r;
	}
	loop_later(loop, &kvm->start, tell_readiness);
	*b = &kvm->base;
	return 0;
}

/* --- creating ------------------------------------------------------------------------ */

static int check_spec(const struct vm_spec *spec, const struct image *image, struct err *err)
{
	uint64_t most = host_memory();

	if (spec->cpus < 1 || spec->cpus > CPUS_MAX)
		return err_set(err, -EINVAL, "cpus must be 1 to %d, not %u", CPUS_MAX, spec->cpus);
	if (spec->memory < image->min_memory)
		return err_set(err, -EINVAL, "memory must be at least %lluM for the image '%s'",
			       (unsigned long long)(image->min_memory / MIB), spec->image);
	if (most && spec->memory > most)
		return err_set(err, -EINVAL, "memory is more than the %lluM that this machine has",
			       (unsigned long long)(most / MIB));
	if (spec->disk < image->disk_size || spec->disk > DISK_MAX)
		return err_set(err, -EINVAL, "disk must be %lluM to %lluT for the image '%s'",
			       (unsigned long long)(image->disk_size / MIB),
			       (unsigned long long)(DISK_MAX >> 40), spec->image);
	return 0;
}

static int kvm_create(struct backend *b, const char *name, const struct vm_spec *spec,
		      struct err *err)
{
	struct kvm *kvm = kvm_of(b);
	struct image *image;
	struct vm_spec whole = *spec;
	int r;

	if (name[0] == '.' || strchr(name, '/') || strlen(name) >= 64)
		return err_set(err, -EINVAL, "'%s' is no name for a sandbox", name);
	if (machine_find(kvm, name))
		return err_set(err, -EEXIST, "there is a sandbox %s already", name);
	if (kvm->unready.code)
		return err_set(err, kvm->unready.code, "%s", kvm->unready.text);
	image = xcalloc(1, sizeof(*image));
	r = image_find(image, kvm->images, spec->image, err);
	if (r == 0)
		r = check_spec(spec, image, err);
	whole.memory = (spec->memory + MIB - 1) / MIB * MIB;
	whole.disk = (spec->disk + MIB - 1) / MIB * MIB;
	if (r == 0)
		r = machine_create(kvm, name, &whole, image->dir, err);
	free(image);
	return r;
}

/* --- one machine, by its name ----------------------------------------------------------- */

static int with_machine(struct backend *b, const char *name,
			int (*op)(struct machine *, struct err *), struct err *err)
{
	struct machine *m = machine_find(kvm_of(b), name);

	return m ? op(m, err) : err_set(err, -ENOENT, "there is no sandbox %s", name);
}

static int kvm_destroy(struct backend *b, const char *name, struct err *err)
{
	return with_machine(b, name, machine_destroy, err);
}

static int kvm_start(struct backend *b, const char *name, struct err *err)
{
	return with_machine(b, name, machine_start, err);
}

static int kvm_stop(struct backend *b, const char *name, struct err *err)
{
	return with_machine(b, name, machine_stop, err);
}

static int kvm_restart(struct backend *b, const char *name, struct err *err)
{
	return with_machine(b, name, machine_restart, err);
}

static void kvm_info(struct backend *b, const char *name, struct buf *out)
{
	const struct machine *m = machine_find(kvm_of(b), name);

	if (m)
		machine_info(m, out);
}

static int kvm_console(struct backend *b, const char *name)
{
	const struct machine *m = machine_find(kvm_of(b), name);
	char *path;
	int fd;

	if (!m)
		return -ENOENT;
	path = machine_path(m, FILE_CONSOLE);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fd = -errno;
	free(path);
	return fd;
}

/* --- .sbxfs/backends ----------------------------------------------------------------------- */

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

static void kvm_describe(struct backend *b, struct buf *out)
{
	struct kvm *kvm = kvm_of(b);
	struct buf names = BUF_INIT;
	char *images;

	image_names(kvm->images, &names);
	images = buf_take_string(&names);
	buf_printf(out, "images=%s cpus=1-%d memory=%lluM disk=%lluT qemu=%s ", images, CPUS_MAX,
		   (unsigned long long)(host_memory() / MIB), (unsigned long long)(DISK_MAX >> 40),
		   kvm->qemu);
	describe_accel(kvm, images, out);
	free(images);
}

static const char *const conf_keys[] = { "images", "accel", "qemu", NULL };

const struct backend_ops kvm_backend_ops = {
	.name		= "kvm",
	.conf_keys	= conf_keys,
	.caps		= BACKEND_CAP_STOP | BACKEND_CAP_RESTART | BACKEND_CAP_CONSOLE |
			  BACKEND_CAP_KEEP | BACKEND_CAP_LOCAL,
	.open		= kvm_open,
	.close		= kvm_close,
	.create		= kvm_create,
	.destroy	= kvm_destroy,
	.start		= kvm_start,
	.stop		= kvm_stop,
	.restart	= kvm_restart,
	.info		= kvm_info,
	.console	= kvm_console,
	.describe	= kvm_describe,
};
