/*
 * The QEMU of a machine is started: with KVM or without, on its own disk, from the memory that was
 * saved or by a boot. See run.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "image.h"
#include "layer.h"
#include "log.h"
#include "proc.h"
#include "process.h"
#include "qemu_args.h"
#include "sock.h"
#include "run_internal.h"

void run_attach(struct machine *m)
{
	m->alive = true;
	m->after = AFTER_UNASKED;
	m->shutdown[0] = '\0';
	machine_mark_console(m);
	news_connect(m);
}

/* What QEMU inherits. */
struct bequest {
	int qmp, identity, net, lock, log;
};

static void bequest_close(struct bequest *b)
{
	const int fds[] = { b->qmp, b->identity, b->net, b->lock, b->log };

	for (size_t i = 0; i < sizeof(fds) / sizeof(*fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

static int open_socket(const struct machine *m, const char *end, struct err *err)
{
	char *name = machine_socket(m, end);
	int fd = sock_listen(m->rec.run_dir, name, err);

	free(name);
	return fd;
}

/*
 * Nobody has it, or the network that was kept: no QEMU. From then on it is shared, for the
 * network has or may get one of its own.
 */
static int open_lock(const struct machine *m, struct err *err)
{
	char *path = machine_path(m, FILE_LOCK);
	int fd = uplink_kept(m) ? open(path, O_RDWR | O_CLOEXEC) : process_lock(path);
	int r = fd == -1 ? -errno : fd;

	if (r >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0) {
		r = -errno;
		close(fd);
	}
	if (r == -EWOULDBLOCK)
		err_set(err, -EBUSY, "an earlier QEMU of it is still there");
	else if (r < 0)
		err_sys(err, r, "cannot lock %s", path);
	free(path);
	return r;
}

static int bequest_open(const struct machine *m, struct bequest *b, struct err *err)
{
	char *log = machine_path(m, FILE_QEMU_LOG);
	int r = 0;

	*b = (struct bequest){ -1, -1, -1, -1, -1 };
	r = b->lock = open_lock(m, err);
	if (r >= 0)
		r = b->qmp = open_socket(m, "qmp", err);
	if (r >= 0)
		r = b->identity = open_socket(m, "id", err);
	if (r >= 0)
		r = b->net = open_socket(m, "net", err);
	if (r >= 0) {
		b->log = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
		r = b->log < 0 ? err_sys(err, -errno, "cannot write %s", log) : 0;
	}
	free(log);
	return r < 0 ? r : 0;
}

static pid_t spawn(const struct machine *m, const struct image *image, const struct bequest *b,
		   struct err *err)
{
	char *disk = machine_disk(m), *console = machine_path(m, FILE_CONSOLE);
	char *ram = m->rec.incoming[0] ? xasprintf("%s/" LAYER_RAM, m->rec.incoming) : NULL;
	char node[24];
	const struct qemu_machine what = {
		.binary = m->kvm->qemu, .name = m->rec.name, .machine_id = m->rec.machine_id,
		.kvm = machine_kvm(m), .cpus = m->rec.spec.cpus, .memory = m->rec.spec.memory,
		.kernel = image->kernel, .initrd = image->initrd, .cmdline = image->cmdline,
		.disk = disk, .node = node, .console = console, .ram = ram,
		.qmp_fd = b->qmp, .identity_fd = b->identity, .net_fd = b->net,
	};
	const int keep[] = { b->qmp, b->identity, b->net, b->lock };
	char **argv;
	pid_t pid;

	machine_node(m, node);
	argv = qemu_args(&what);
	pid = proc_spawn(m->kvm->loop, (const char *const *)argv, b->log, keep, 4, err);
	qemu_args_free(argv);
	free(ram);
	free(console);
	free(disk);
	return pid;
}

/* "auto": KVM unless something speaks against it; then why is it. */
static bool kvm_by_evidence(struct machine *m, const char **why, struct err *no)
{
	enum accel_verdict known = accel_lookup(&m->kvm->accel, m->rec.image_dir, why);

	if (known == ACCEL_TCG)
		return false;
	if (m->no_kvm.code)
		*no = m->no_kvm;
	if (m->no_kvm.code || accel_promising(no) < 0) {
		*why = no->text;
		return false;
	}
	m->trial = known == ACCEL_UNKNOWN;
	return true;
}

bool run_expect_accel(struct kvm *kvm, const char *image_dir, char accel[8])
{
	enum accel_verdict known = ACCEL_KVM;
	const char *why;

	if (kvm->choice == ACCEL_CHOICE_TCG)
		known = ACCEL_TCG;
	else if (kvm->choice == ACCEL_CHOICE_AUTO)
		known = accel_promising(NULL) < 0 ? ACCEL_TCG :
			accel_lookup(&kvm->accel, image_dir, &why);
	snprintf(accel, 8, "%s", known == ACCEL_KVM ? "kvm" : "tcg");
	return known != ACCEL_UNKNOWN;
}

/* As when it was saved. */
static bool accel_is_given(const struct machine *m)
{
	return m->rec.incoming[0] && m->rec.accel[0];
}

/* Is what it cannot do without there? */
static int check_accel(const struct machine *m, struct err *err)
{
	struct err no;

	if (accel_is_given(m) && machine_kvm(m) && accel_device(&no) < 0)
		return err_set(err, no.code, "its memory was saved with KVM, and %s", no.text);
	if (!accel_is_given(m) && m->kvm->choice == ACCEL_CHOICE_KVM && accel_device(&no) < 0)
		return err_set(err, no.code, "the configuration says accel = kvm, but %s", no.text);
	return 0;
}

static void choose_accel(struct machine *m)
{
	struct err no = ERR_NONE;
	const char *why = "";
	bool kvm = m->kvm->choice == ACCEL_CHOICE_KVM;

	m->trial = false;
	if (accel_is_given(m))
		return;
	if (m->kvm->choice == ACCEL_CHOICE_AUTO)
		kvm = kvm_by_evidence(m, &why, &no);
	snprintf(m->rec.accel, sizeof(m->rec.accel), "%s", kvm ? "kvm" : "tcg");
	snprintf(m->rec.accel_why, sizeof(m->rec.accel_why), "%s", why);
	if (m->no_kvm.code)
		log_warn("vm=%s is started again without KVM: %s", m->rec.name, why);
}

/* Was it saved by machines as ours are? */
static bool saved_fits(const char *folder, struct err *err)
{
	if (layer_machine(folder) == QEMU_MACHINE_VERSION)
		return true;
	err_set(err, -EINVAL, "it was saved by an earlier sbxfs, whose machines had other devices");
	return false;
}

void run_load_user(struct machine *m, const struct image *image)
{
	snprintf(m->user, sizeof(m->user), "%s", image->user[0] ? image->user : "root");
}

/* Its image, if nothing is known to be in the way of a start. */
static int prepare(const struct machine *m, struct image *image, struct err *err)
{
	int r = check_accel(m, err);

	return r < 0 ? r : image_load(image, m->rec.image_dir, err);
}

int run_check_start(const struct machine *m, struct err *err)
{
	struct image *image = xcalloc(1, sizeof(*image));
	int r = prepare(m, image, err);

	free(image);
	return r;
}

/* The processes, side by side. frames: how the network that was kept reaches the new QEMU. */
static pid_t start_both(struct machine *m, const struct image *image, const struct bequest *b,
			struct err *err)
{
	bool kept = uplink_kept(m);
	int frames = -1, r;
	pid_t pid;

	r = kept ? frames = uplink_reach(m, err) : uplink_start(m, b->lock, err);
	if (r >= 0)
		r = pid = spawn(m, image, b, err);
	if (r >= 0) {
		r = loop_child_add(m->kvm->loop, &m->child, pid, run_qemu_ended);
		if (r < 0) {
			err_sys(err, r, "cannot watch QEMU");
			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);	/* our own child, and killed: not for long */
		}
	}
	if (r < 0 && frames >= 0)
		close(frames);
	else if (r < 0)
		uplink_kill(m);
	else if (kept)
		uplink_plug(m, frames);
	return r < 0 ? r : pid;
}

static int start(struct machine *m, const struct image *image, struct err *err)
{
	struct bequest b;
	pid_t pid = 0;
	int r;

	run_load_user(m, image);
	m->rec.qemu_network = false;
	if (!uplink_kept(m))		/* which is reached where it was */
		snprintf(m->rec.run_dir, sizeof(m->rec.run_dir), "%s", m->kvm->run_dir);
	choose_accel(m);
	r = bequest_open(m, &b, err);
	if (r == 0)
		r = pid = start_both(m, image, &b, err);
	bequest_close(&b);
	if (r < 0)
		return r;
	m->rec.phase = PHASE_RUNNING;
	m->rec.pid = pid;
	m->rec.pid_start = process_start(pid);
	m->rec.ready = m->rec.paused = false;
	m->rec.port = 0;
	process_boot_id(m->rec.boot_id, sizeof(m->rec.boot_id));
	machine_save(m);
	return 0;
}

/* Nothing was begun: one that is suspended is as it was, and so are its connections. */
static void refused(struct machine *m, const struct err *err)
{
	if (uplink_kept(m))
		machine_stopped(m, err);
	else
		machine_failed(m, err);
}

void run_start(struct machine *m)
{
	struct image *image;
	struct err err;
	int r;

	/* In another state than the one that it was left in the guest does not know it. */
	if (!(uplink_kept(m) && m->rec.incoming[0]) && run_unplug_before(m, TODO_START))
		return;
	image = xcalloc(1, sizeof(*image));
	r = prepare(m, image, &err);
	freeze_settle_dead(m);
	if (r == 0 && m->rec.incoming[0] && !saved_fits(m->rec.incoming, &err)) {
		free(image);
		run_cold(m, &err);	/* and is here again, without it */
		return;
	}
	if (r == 0)
		r = start(m, image, &err);
	free(image);
	if (r < 0) {
		refused(m, &err);
		return;
	}
	m->began = loop_now(m->kvm->loop);
	run_attach(m);
	run_await_boot(m);
}
