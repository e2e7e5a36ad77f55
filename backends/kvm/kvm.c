/*
 * The KVM backend: sandboxes as QEMU machines on this host. This file is the
 * table of ops, and what stands recorded below state_dir when the daemon starts.
 * One machine's life is in machine.c.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "kvm_internal.h"
#include "layer.h"
#include "log.h"

extern const struct backend_ops kvm_backend_ops;

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
	r = kvm_take_conf(kvm, conf, err);
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
