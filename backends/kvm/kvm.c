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
#include "frame.h"
#include "image.h"
#include "layer.h"
#include "log.h"
#include "machine.h"

#define CPUS_MAX 64
#define POOL_MAX 100
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

static int take_templates(struct kvm *kvm, const char *value, struct err *err)
{
	if (value && strcmp(value, "on") && strcmp(value, "off"))
		return err_set(err, -EINVAL, "[kvm] templates must be on or off, not '%s'", value);
	kvm->templates = !value || !strcmp(value, "on");
	return 0;
}

static int take_pool(struct kvm *kvm, const char *value, struct err *err)
{
	unsigned long n = 0;
	char *end = NULL;

	if (value)
		n = strtoul(value, &end, 10);
	if (value && (!value[0] || *end || value[0] == '-' || n > POOL_MAX))
		return err_set(err, -EINVAL, "[kvm] pool must be 0 to %d, not '%s'", POOL_MAX,
			       value);
	kvm->pool = (unsigned)n;
	return 0;
}

static int take_allow(struct kvm *kvm, const char *value, struct err *err)
{
	struct frame_rules rules = { 0 };
	char wrong[FRAME_WRONG_MAX];
	int r = frame_allow(&rules, value ? value : "", wrong);

	if (r == -E2BIG)
		return err_set(err, -EINVAL, "[kvm] allow may have %d addresses at most",
			       FRAME_ALLOWED_MAX);
	if (r < 0)
		return err_set(err, -EINVAL, "[kvm] allow takes IPv4 addresses as "
			       "ADDRESS[/LENGTH][:PORT], not '%s'", wrong);
	kvm->allow = xstrdup(value ? value : "");
	return 0;
}

/*
 * Beside us in a build directory, where we were installed (sbxfs-template: in the same
 * folder), or where we were meant to be.
 */
static char *find_net_program(void)
{
	static const char *const places[] = {
		"%s/backends/kvm/net/sbxfs-net", "%s/net/sbxfs-net",
		"%s/../../backends/kvm/net/sbxfs-net", "%s/../libexec/sbxfs/sbxfs-net",
		"%s/sbxfs-net",
	};
	char here[PATH_MAX], *slash;
	ssize_t n = readlink("/proc/self/exe", here, sizeof(here) - 1);

	here[n > 0 ? n : 0] = '\0';
	slash = strrchr(here, '/');
	if (slash)
		*slash = '\0';
	for (size_t i = 0; slash && i < sizeof(places) / sizeof(*places); i++) {
		char path[PATH_MAX + 64];

		snprintf(path, sizeof(path), places[i], here);
		if (access(path, X_OK) == 0)
			return xstrdup(path);
	}
	return xstrdup(SBXFS_LIBEXEC "/sbxfs-net");
}

static void take_net(struct kvm *kvm)
{
	kvm->net_program = find_net_program();
	if (access(kvm->net_program, X_OK) < 0 && !kvm->unready.code)
		err_set(&kvm->unready, -ENODEV, "%s is not there: sbxfs is not installed whole",
			kvm->net_program);
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
	r = take_templates(kvm, conf->get(conf, "templates"), err);
	if (r == 0)
		r = take_pool(kvm, conf->get(conf, "pool"), err);
	if (r == 0)
		r = take_allow(kvm, conf->get(conf, "allow"), err);
	if (r < 0)
		return r;
	kvm->state_dir = xstrdup(conf->state_dir);
	kvm->run_dir = xstrdup(conf->run_dir);
	kvm->images = images ? xstrdup(images) : xasprintf("%s/images", conf->data_dir);
	take_qemu(kvm, conf->get(conf, "qemu"));
	take_net(kvm);
	need_program(kvm, "qemu-img", "qemu-utils");
	need_program(kvm, "ssh-keygen", "openssh-client");
	return 0;
}

/* --- start ------------------------------------------------------------------------ */

/* A folder without a record is of a VM that was never promised, or is gone already. */
static void take_folder(struct kvm *kvm, const char *name)
{
	bool hidden = !strncmp(name, ".pool-", 6) || !strncmp(name, ".template-", 10);
	char *record = xasprintf("%s/%s/vm.json", kvm->state_dir, name);
	struct err err;

	if (hidden)
		machine_discard(kvm, name);
	else if (name[0] == '.')
		;			/* .layers */
	else if (access(record, F_OK) == 0 || errno != ENOENT)
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
		if (strlen(entry->d_name) < 64 &&
		    !fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) &&
		    S_ISDIR(st.st_mode))
			take_folder(kvm, entry->d_name);
	closedir(dir);
	return 0;
}

/* What the pool is to be like. */
static void take_latest(struct kvm *kvm)
{
	const struct machine *m, *latest = NULL;

	for (m = kvm->machines; m; m = m->hh.next)
		if (!m->hidden && !m->damaged && (!latest || m->rec.created > latest->rec.created))
			latest = m;
	if (!latest)
		return;
	kvm->pool_spec = latest->rec.spec;
	kvm->pool_spec.from[0] = kvm->pool_spec.from_snapshot[0] = '\0';
	snprintf(kvm->pool_image, sizeof(kvm->pool_image), "%s", latest->rec.image_dir);
	pool_check(kvm);
}

static void tell_readiness(struct loop_later *l)
{
	struct kvm *kvm = container_of(l, struct kvm, start);

	kvm->events->ready(kvm->user, !kvm->unready.code, kvm->unready.text);
	layers_collect(kvm);
	take_latest(kvm);
}

static void kvm_close(struct backend *b)
{
	struct kvm *kvm = b ? kvm_of(b) : NULL;
	struct machine *m, *next;

	if (!kvm)
		return;
	loop_later_cancel(&kvm->start);
	pool_close(kvm);
	template_check_cancel(kvm);
	HASH_ITER (hh, kvm->machines, m, next)
		machine_free(m);
	accel_finish(&kvm->accel);
	free(kvm->state_dir);
	free(kvm->run_dir);
	free(kvm->images);
	free(kvm->qemu);
	free(kvm->net_program);
	free(kvm->allow);
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

static int kvm_create(struct backend *b, const char *name, const struct vm_spec *spec,
		      struct err *err)
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

static int kvm_pause(struct backend *b, const char *name, struct err *err)
{
	return with_machine(b, name, machine_pause, err);
}

static int kvm_resume(struct backend *b, const char *name, struct err *err)
{
	return with_machine(b, name, machine_resume, err);
}

static int kvm_suspend(struct backend *b, const char *name, struct err *err)
{
	return with_machine(b, name, snapshot_suspend, err);
}

static void kvm_release(struct backend *b, const char *name)
{
	struct machine *m = machine_find(kvm_of(b), name);

	if (m)
		run_release(m);
}

static int with_snapshot(struct backend *b, const char *name, const char *snapshot,
			 int (*op)(struct machine *, const char *, struct err *), struct err *err)
{
	struct machine *m = machine_find(kvm_of(b), name);

	return m ? op(m, snapshot, err) : err_set(err, -ENOENT, "there is no sandbox %s", name);
}

static int kvm_snapshot(struct backend *b, const char *name, const char *snapshot, struct err *err)
{
	return with_snapshot(b, name, snapshot, snapshot_take, err);
}

static int kvm_snapshot_drop(struct backend *b, const char *name, const char *snapshot,
			     struct err *err)
{
	return with_snapshot(b, name, snapshot, snapshot_drop, err);
}

static int kvm_restore(struct backend *b, const char *name, const char *snapshot, struct err *err)
{
	return with_snapshot(b, name, snapshot, snapshot_restore, err);
}

static void kvm_snapshots(struct backend *b, const char *name,
			  void (*each)(void *user, const struct vm_snapshot *), void *user)
{
	const struct machine *m = machine_find(kvm_of(b), name);

	if (m)
		snapshot_each(m, each, user);
}

static int kvm_port_open(struct backend *b, const char *id, unsigned port, struct err *err)
{
	struct machine *m = machine_find(kvm_of(b), id);

	return m ? ports_open(m, port, err) : err_set(err, -ENOENT, "there is no sandbox %s", id);
}

static int kvm_port_close(struct backend *b, const char *id, unsigned port, struct err *err)
{
	struct machine *m = machine_find(kvm_of(b), id);

	return m ? ports_close(m, port, err) : err_set(err, -ENOENT, "there is no sandbox %s", id);
}

static int kvm_port_url(struct backend *b, const char *id, unsigned port, struct buf *out)
{
	const struct machine *m = machine_find(kvm_of(b), id);

	return m ? ports_url(m, port, out) : -ENOENT;
}

static int kvm_rename(struct backend *b, const char *id, const char *name, struct err *err)
{
	struct machine *m = machine_find(kvm_of(b), id);

	if (!m)
		return err_set(err, -ENOENT, "there is no sandbox %s", id);
	snprintf(m->rec.spec.name, sizeof(m->rec.spec.name), "%s", name);
	return machine_save(m) < 0 ? err_set(err, -EIO, "its record cannot be written") : 0;
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

static void kvm_describe(struct backend *b, struct buf *out)
{
	struct kvm *kvm = kvm_of(b);
	struct buf names = BUF_INIT;
	char *images;

	image_names(kvm->images, &names);
	buf_printf(out, "images=");
	buf_put(out, buf_peek(&names), buf_size(&names));
	images = buf_take_string(&names);
	buf_printf(out, " cpus=1-%d memory=%lluM disk=%lluT qemu=%s ", CPUS_MAX,
		   (unsigned long long)(host_memory() / MIB), (unsigned long long)(DISK_MAX >> 40),
		   kvm->qemu);
	describe_accel(kvm, images, out);
	describe_templates(kvm, images, out);
	free(images);
}

static const char *const conf_keys[] = {
	"images", "accel", "qemu", "templates", "pool", "allow", NULL
};

const struct backend_ops kvm_backend_ops = {
	.name		= "kvm",
	.conf_keys	= conf_keys,
	.caps		= BACKEND_CAP_STOP | BACKEND_CAP_RESTART | BACKEND_CAP_CONSOLE |
			  BACKEND_CAP_PAUSE | BACKEND_CAP_SUSPEND | BACKEND_CAP_SNAPSHOT |
			  BACKEND_CAP_CLONE | BACKEND_CAP_PORTS | BACKEND_CAP_NETWORK |
			  BACKEND_CAP_KEEP | BACKEND_CAP_LOCAL,
	.open		= kvm_open,
	.close		= kvm_close,
	.create		= kvm_create,
	.destroy	= kvm_destroy,
	.start		= kvm_start,
	.stop		= kvm_stop,
	.restart	= kvm_restart,
	.pause		= kvm_pause,
	.resume		= kvm_resume,
	.suspend	= kvm_suspend,
	.release	= kvm_release,
	.snapshot	= kvm_snapshot,
	.snapshot_drop	= kvm_snapshot_drop,
	.restore	= kvm_restore,
	.snapshots	= kvm_snapshots,
	.port_open	= kvm_port_open,
	.port_close	= kvm_port_close,
	.port_url	= kvm_port_url,
	.rename		= kvm_rename,
	.info		= kvm_info,
	.console	= kvm_console,
	.describe	= kvm_describe,
};
