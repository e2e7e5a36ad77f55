/*
 * The QEMU of a machine: its start, its end, and what is asked of it between.
 * What it and its guest say is in news.c.
 *
 * Start: the record says PHASE_STARTING; the sockets and the lock are made and
 * inherited by QEMU and its network (uplink.c), so that there is nothing to wait for;
 * the record says PHASE_RUNNING and which processes they are.
 *
 * End: whoever wants an end sets after and asks for it (shut down, quit, kill,
 * each with a deadline to the next); all_ended() alone draws the conclusion, when
 * the kernel says that QEMU is no more, and its network neither.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "identity.h"
#include "image.h"
#include "layer.h"
#include "log.h"
#include "machine.h"
#include "proc.h"
#include "process.h"
#include "qemu_args.h"
#include "qmp.h"
#include "sock.h"

/* Has it been started from a saved state, and not come up yet? */
static bool goes_on(const struct machine *m)
{
	return m->rec.incoming[0] || m->rec.cloning;
}

static int boot_ms(const struct machine *m)
{
	if (goes_on(m))
		return machine_kvm(m) ? CLONE_KVM_MS : CLONE_TCG_MS;
	return m->trial ? BOOT_TRIAL_MS : machine_kvm(m) ? BOOT_KVM_MS : BOOT_TCG_MS;
}

static void set_deadline(struct machine *m, int64_t ms, loop_timer_cb *cb)
{
	loop_timer_set(m->kvm->loop, &m->deadline, ms, cb);
}

/* --- ending it --------------------------------------------------------------- */

static void kill_overdue(struct loop_timer *t)
{
	struct machine *m = container_of(t, struct machine, deadline);
	struct err err;

	/* all_ended() still follows, whenever the kernel lets go of it. */
	err_set(&err, -ETIMEDOUT, "%s, process %d, does not end although it was killed",
		m->qemu_ended || !m->alive ? "its network" : "QEMU",
		(int)(m->qemu_ended || !m->alive ? uplink_pid(m) : m->child.pid));
	machine_report(m, VM_FAILED, &err);
}

/* By its pidfd: never another process that has got its number. */
static void signal_it(struct machine *m, int signo)
{
	if (m->qemu_ended)
		uplink_kill(m);
	else if (syscall(SYS_pidfd_send_signal, m->child.fd.fd, signo, NULL, 0) < 0 &&
		 errno != ESRCH)
		log_error("vm=%s cannot signal QEMU: %s", m->rec.name, strerror(errno));
}

static void kill_it(struct machine *m)
{
	signal_it(m, SIGKILL);
	set_deadline(m, KILL_MS, kill_overdue);
}

static void quit_overdue(struct loop_timer *t)
{
	kill_it(container_of(t, struct machine, deadline));
}

static void quit(struct machine *m)
{
	if (m->qmp)
		qmp_command(m->qmp, "quit", NULL, NULL, NULL);
	else
		signal_it(m, SIGTERM);
	set_deadline(m, QUIT_MS, quit_overdue);
}

static void stop_overdue(struct loop_timer *t)
{
	struct machine *m = container_of(t, struct machine, deadline);

	log_warn("vm=%s did not shut down in time: switched off", m->rec.name);
	quit(m);
}

/* Something is wrong with it: kill it, unless it is on its way out for a reason. */
void run_give_up(struct machine *m, const struct err *why)
{
	if (m->after != AFTER_UNASKED)
		return;
	m->why = *why;
	m->after = goes_on(m) ? AFTER_COLD : m->trial ? AFTER_TCG : AFTER_FAIL;
	kill_it(m);
}

void run_end(struct machine *m, enum after after)
{
	m->after = after;
	kill_it(m);
}

void run_kill(struct machine *m)
{
	if (m->alive)
		signal_it(m, SIGKILL);
}

bool run_reachable(const struct machine *m)
{
	return m->alive && !m->qemu_ended && m->qmp && m->after == AFTER_UNASKED;
}

/* --- waiting for the guest ----------------------------------------------------- */

static void boot_overdue(struct loop_timer *t)
{
	struct machine *m = container_of(t, struct machine, deadline);
	char said[160];
	struct err err;

	machine_console_end(m, said, sizeof(said));
	err_set(&err, -ETIMEDOUT,
		"the guest was not ready within %d s%s%s",
		boot_ms(m) / 1000,
		said[0] ? "; its console ends with: " : " and said nothing on its console", said);
	m->no_kvm_ms = boot_ms(m);
	run_give_up(m, &err);
}

void run_await_boot(struct machine *m)
{
	set_deadline(m, boot_ms(m), boot_overdue);
}

void run_named(struct machine *m)
{
	run_await_boot(m);
	if (m->port)
		identity_send_clone(m->port);
}

/*
 * What this boot has shown. That KVM took too long is only held against it when
 * emulation did better: a host may be so busy that everything is slow.
 */
void run_note_accel(struct machine *m)
{
	bool better = !m->no_kvm_ms || loop_now(m->kvm->loop) - m->began < m->no_kvm_ms;

	if (m->trial)
		accel_store(&m->kvm->accel, m->rec.image_dir, ACCEL_KVM, "");
	else if (m->no_kvm.code && better)
		accel_store(&m->kvm->accel, m->rec.image_dir, ACCEL_TCG, m->no_kvm.text);
	m->trial = false;
}

/* --- a network that is kept --------------------------------------------------------- */

void run_release(struct machine *m)
{
	if (!uplink_kept(m) || m->alive)
		return;
	uplink_kill(m);
	run_remove_sockets(m->rec.run_dir, m->rec.name);
}

/* A network without a QEMU goes first; what is to be done follows then. False: there is none. */
static bool unplug_before(struct machine *m, enum todo todo)
{
	m->unplugged = TODO_NOTHING;
	if (m->alive || !uplink_alive(m))
		return false;
	m->unplugged = todo;
	uplink_kill(m);
	set_deadline(m, KILL_MS, kill_overdue);
	return true;
}

static void unplugged(struct machine *m)
{
	enum todo todo = m->unplugged;

	run_remove_sockets(m->rec.run_dir, m->rec.name);
	ports_forget(m);
	m->unplugged = TODO_NOTHING;
	if (todo == TODO_NOTHING)
		return;
	loop_timer_cancel(&m->deadline);
	machine_ask(m, todo);
}

/* --- its end ------------------------------------------------------------------------ */

void run_let_go(struct machine *m)
{
	if (m->alive && !m->qemu_ended)
		loop_child_del(&m->child);
	if (!uplink_kept(m))
		uplink_let_go(m);
	m->alive = m->qemu_ended = m->legacy = m->legacy_looked = false;
	m->loading = false;
	ports_forget(m);
	loop_timer_cancel(&m->deadline);
	news_disconnect(m);
}

static void explain_end(struct machine *m, int status, struct err *err)
{
	char *log = machine_path(m, FILE_QEMU_LOG), said[300];

	last_words(log, said, sizeof(said));
	free(log);
	if (status > 0)
		proc_explain(err, "QEMU", status, said);
	else
		err_set(err, -EIO, "QEMU ended%s%s", said[0] ? ": " : " without a word", said);
}

static void start_again(struct machine *m)
{
	m->rec.phase = PHASE_STARTING;
	machine_save(m);
	run_start(m);
}

/* A template that QEMU does not take in is made again; for -ECANCELED it is not to blame. */
void run_cold(struct machine *m, const struct err *why)
{
	bool template = m->rec.base[0] && !strcmp(m->rec.base, m->rec.incoming);
	struct err shown = *why;

	if (template && why->code != -ECANCELED)
		template_spoil(m->rec.base);
	err_prefix(&shown, template ? "the template could not be used" :
				      "its saved memory could not be used, so it was booted");
	snprintf(m->rec.start_why, sizeof(m->rec.start_why), "%s", shown.text);
	if (template)
		log_warn("vm=%s is booted: %s", m->rec.name, shown.text);
	else
		machine_trouble(m, "start", &shown);
	m->rec.incoming[0] = '\0';
	m->rec.cloning = false;
	start_again(m);
	layers_collect(m->kvm);		/* with what was saved */
}

/* By somebody, or by the kernel for want of memory; -1: nobody knows. */
static bool was_killed(int status)
{
	return status == -1 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void start_without_kvm(struct machine *m, const struct err *why)
{
	m->no_kvm = *why;
	start_again(m);
}

/*
 * QEMU itself crashed before its guest had begun anything that must not be done twice: it is
 * started once more. Before version 8.2 the processors that it emulates race when one of them maps
 * devices, as they do in a boot; of that it dies, if seldom, in memory_region_dispatch_write, of
 * a region that is NULL. KVM has no such processors.
 */
static bool crashed_early(struct machine *m, int status)
{
	bool early = goes_on(m) ? m->rec.incoming[0] : !m->rec.ready;

	if (status == -1 || !WIFSIGNALED(status) || WTERMSIG(status) != SIGSEGV || !early ||
	    machine_kvm(m) || m->crashed)
		return false;
	log_warn("vm=%s QEMU crashed while it started: started once more", m->rec.name);
	m->crashed = true;
	start_again(m);
	return true;
}

/* It ended by itself. status is -1 when it was no child of ours. */
static void conclude(struct machine *m, int status)
{
	bool by_guest = !strcmp(m->shutdown, "guest-shutdown");
	bool was_ready = m->rec.ready;
	char said[160];
	struct err err;

	if (by_guest && was_ready) {
		machine_stopped(m, NULL);
		return;
	}
	if (!strcmp(m->shutdown, "host-signal") || !strcmp(m->shutdown, "host-qmp-quit")) {
		err_set(&err, -ECANCELED, "QEMU was told to end by somebody else");
		machine_stopped(m, &err);
		return;
	}
	if (crashed_early(m, status))
		return;
	if (by_guest) {
		machine_console_end(m, said, sizeof(said));
		err_set(&err, -EIO, "the guest switched itself off before it was ready: %s", said);
	} else {
		explain_end(m, status, &err);
	}
	if (goes_on(m) && was_killed(status))
		err.code = -ECANCELED;
	if (goes_on(m))
		run_cold(m, &err);
	else if (m->trial && !was_ready)
		start_without_kvm(m, &err);
	else
		machine_failed(m, &err);
}

/*
 * What was started with another runtime directory is reached there, if that is still
 * there and nobody else's. One that was about to start may be of the last or of this.
 */
void run_find_sockets(struct machine *m)
{
	struct stat st;

	if (m->rec.phase == PHASE_STARTING || lstat(m->rec.run_dir, &st) < 0 ||
	    !S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077))
		snprintf(m->rec.run_dir, sizeof(m->rec.run_dir), "%s", m->kvm->run_dir);
}

/* Those of its QEMU; all: and that of its network. */
static void remove_sockets(const char *run_dir, const char *name, bool all)
{
	static const char *const ends[] = { "qmp", "id", "net", "ctl" };

	if (!run_dir[0])
		return;		/* none was ever started */
	for (size_t i = 0; i < sizeof(ends) / sizeof(*ends) - !all; i++) {
		char *path = xasprintf("%s/%s.%s", run_dir, name, ends[i]);

		unlink(path);
		free(path);
	}
}

void run_remove_sockets(const char *run_dir, const char *name)
{
	remove_sockets(run_dir, name, true);
}

static void all_ended(struct machine *m)
{
	enum after after = m->after;
	int status = m->qemu_status;
	struct err why;

	err_set(&why, -EIO, "its QEMU has ended");
	if (after == AFTER_UNASKED || after == AFTER_FAIL)
		snapshot_abandon(m, &why);
	m->after = AFTER_UNASKED;
	run_let_go(m);
	remove_sockets(m->rec.run_dir, m->rec.name, !uplink_kept(m));
	switch (after) {
	case AFTER_UNASKED:
		conclude(m, status);
		break;
	case AFTER_STOP:
		machine_stopped(m, NULL);
		break;
	case AFTER_FAIL:
		machine_failed(m, &m->why);
		break;
	case AFTER_TCG:
		start_without_kvm(m, &m->why);
		break;
	case AFTER_RESTART:
		if (m->state != VM_BOOTING)
			machine_report(m, VM_BOOTING, NULL);
		start_again(m);
		break;
	case AFTER_DESTROY:
		machine_gone(m);
		break;
	case AFTER_COLD:
		run_cold(m, &m->why);
		break;
	case AFTER_SUSPEND:
	case AFTER_RESTORE:
		snapshot_ended(m);
		break;
	}
}

static void ended(struct loop_child *c, int status)
{
	struct machine *m = container_of(c, struct machine, child);

	log_debug("vm=%s QEMU has ended, status %d", m->rec.name, status);
	m->qemu_status = status;
	if (!uplink_alive(m) || (m->after == AFTER_SUSPEND && uplink_kept(m))) {
		all_ended(m);
		return;
	}
	m->qemu_ended = true;
	uplink_kill(m);		/* it ends by itself, if nothing is wrong with it */
	set_deadline(m, KILL_MS, kill_overdue);
}

bool run_network_ended(struct machine *m)
{
	if (m->qemu_ended)
		all_ended(m);
	else if (!m->alive)
		unplugged(m);
	else
		return m->after == AFTER_UNASKED;
	return false;
}

void run_ended_unseen(struct machine *m)
{
	char now[sizeof(m->rec.boot_id)], *log, said[300];
	struct err err;

	run_remove_sockets(m->rec.run_dir, m->rec.name);
	process_boot_id(now, sizeof(now));
	log = machine_path(m, FILE_QEMU_LOG);
	last_words(log, said, sizeof(said));
	free(log);
	if (m->rec.stopping || (m->rec.ready && m->rec.incoming[0])) {
		machine_stopped(m, NULL);	/* shut down, or suspended */
	} else if (strcmp(now, m->rec.boot_id)) {
		err_set(&err, -ECANCELED, "the host was restarted");
		machine_stopped(m, &err);
	} else if (!m->rec.ready || goes_on(m)) {
		/* It was asked for and never seen: what fails again will be told. */
		machine_report(m, VM_BOOTING, NULL);
		start_again(m);
	} else if (said[0]) {
		err_set(&err, -EIO, "QEMU ended while sbxfs was not there: %s", said);
		machine_failed(m, &err);
	} else {
		err_set(&err, -ECANCELED, "it was switched off while sbxfs was not there");
		machine_stopped(m, &err);
	}
}

/* --- its start ---------------------------------------------------------------------- */

static void attach(struct machine *m)
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

static int choose_accel(struct machine *m, struct err *err)
{
	struct err no = ERR_NONE;
	const char *why = "";
	bool kvm = m->kvm->choice == ACCEL_CHOICE_KVM;

	m->trial = false;
	if (m->rec.incoming[0] && m->rec.accel[0])
		return 0;	/* as when it was saved */
	if (kvm && accel_device(&no) < 0)
		return err_set(err, no.code, "the configuration says accel = kvm, but %s", no.text);
	if (m->kvm->choice == ACCEL_CHOICE_AUTO)
		kvm = kvm_by_evidence(m, &why, &no);
	snprintf(m->rec.accel, sizeof(m->rec.accel), "%s", kvm ? "kvm" : "tcg");
	snprintf(m->rec.accel_why, sizeof(m->rec.accel_why), "%s", why);
	if (m->no_kvm.code)
		log_warn("vm=%s is started again without KVM: %s", m->rec.name, why);
	return 0;
}

/* Was it saved by machines as ours are? */
static bool saved_fits(const char *folder, struct err *err)
{
	if (layer_machine(folder) == QEMU_MACHINE_VERSION)
		return true;
	err_set(err, -EINVAL, "it was saved by an earlier sbxfs, whose machines had other devices");
	return false;
}

static void load_user(struct machine *m, const struct image *image)
{
	snprintf(m->user, sizeof(m->user), "%s", image->user[0] ? image->user : "root");
}

static int start(struct machine *m, const struct image *image, struct err *err)
{
	struct bequest b;
	pid_t pid = 0;
	int r;

	load_user(m, image);
	m->rec.qemu_network = false;
	if (!uplink_kept(m))		/* which is reached where it was */
		snprintf(m->rec.run_dir, sizeof(m->rec.run_dir), "%s", m->kvm->run_dir);
	r = choose_accel(m, err);
	if (r < 0)
		return r;
	r = bequest_open(m, &b, err);
	if (r == 0)
		r = uplink_kept(m) ? uplink_plug(m, err) : uplink_start(m, b.lock, err);
	if (r == 0)
		r = pid = spawn(m, image, &b, err);
	bequest_close(&b);
	if (r < 0) {
		uplink_kill(m);
		return r;
	}
	m->rec.phase = PHASE_RUNNING;
	m->rec.pid = pid;
	m->rec.pid_start = process_start(pid);
	m->rec.ready = m->rec.paused = false;
	m->rec.port = 0;
	process_boot_id(m->rec.boot_id, sizeof(m->rec.boot_id));
	machine_save(m);
	r = loop_child_add(m->kvm->loop, &m->child, pid, ended);
	if (r < 0) {
		kill(pid, SIGKILL);	/* our own child: the number is still its */
		return err_sys(err, r, "cannot watch QEMU");
	}
	return 0;
}

void run_start(struct machine *m)
{
	struct image *image = xcalloc(1, sizeof(*image));
	struct err err;

	int r;

	/* In another state than the one that it was left in the guest does not know it. */
	if (!(uplink_kept(m) && m->rec.incoming[0]) && unplug_before(m, TODO_START)) {
		free(image);
		return;
	}
	r = image_load(image, m->rec.image_dir, &err);
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
		machine_failed(m, &err);
		return;
	}
	m->began = loop_now(m->kvm->loop);
	attach(m);
	run_await_boot(m);
}

/* --- taking it up again ------------------------------------------------------------- */

static pid_t find_pid(const struct machine *m)
{
	char uuid[37];

	if (m->rec.pid > 0 && m->rec.pid_start && process_start(m->rec.pid) == m->rec.pid_start)
		return m->rec.pid;
	qemu_uuid(m->rec.machine_id, uuid);
	return process_find(uuid);
}

static void look_again(struct loop_timer *t)
{
	machine_look_again(container_of(t, struct machine, deadline));
}

/* Watch the QEMU that holds the lock. 0: there is none; -EAGAIN: cannot be told apart yet. */
static int take_up(struct machine *m)
{
	char *lock = machine_path(m, FILE_LOCK);
	int fd = process_lock(lock);
	pid_t pid;

	free(lock);
	if (fd >= 0)
		close(fd);
	if (fd != -EWOULDBLOCK)
		return 0;
	pid = find_pid(m);
	if (!pid)
		uplink_end_unseen(m);	/* it alone has been left */
	if (!pid || loop_child_add(m->kvm->loop, &m->child, pid, ended) < 0) {
		set_deadline(m, FIND_PID_MS, look_again);
		return -EAGAIN;
	}
	m->rec.pid = pid;
	m->rec.pid_start = process_start(pid);
	return 1;
}

/* A daemon that was killed leaves the network that it kept for a moment: it ends by itself too. */
bool run_is_over(struct machine *m)
{
	char *lock = machine_path(m, FILE_LOCK);
	int fd = process_lock(lock);

	free(lock);
	if (fd >= 0)
		close(fd);
	if (fd == -EWOULDBLOCK && uplink_end_unseen(m)) {
		set_deadline(m, FIND_PID_MS, look_again);
		return false;
	}
	run_remove_sockets(m->rec.run_dir, m->rec.name);
	return true;
}

static void adopt_user(struct machine *m)
{
	struct image *image = xcalloc(1, sizeof(*image));

	image_load(image, m->rec.image_dir, NULL);
	load_user(m, image);
	free(image);
}

static void adopt_trial(struct machine *m)
{
	const char *why;

	m->trial = !m->rec.ready && machine_kvm(m) && m->kvm->choice == ACCEL_CHOICE_AUTO &&
		   accel_lookup(&m->kvm->accel, m->rec.image_dir, &why) == ACCEL_UNKNOWN;
}

/* Its network, which may have ended, or be part of a QEMU that an earlier sbxfs started. */
static void adopt_network(struct machine *m)
{
	struct err err;
	int r;

	if (m->rec.qemu_network) {
		legacy_adopt(m);
		if (!m->rec.ready && !m->rec.port)
			run_end(m, AFTER_RESTART);	/* nobody knows the way to it */
		return;
	}
	r = uplink_adopt(m, &err);
	if (r < 0 && r != -ECONNREFUSED)
		machine_trouble(m, "network", &err);
}

bool run_adopt(struct machine *m)
{
	int r = take_up(m);

	if (r <= 0)
		return r < 0;
	log_info("vm=%s adopted, QEMU is process %d", m->rec.name, (int)m->rec.pid);
	m->rec.phase = PHASE_RUNNING;
	process_boot_id(m->rec.boot_id, sizeof(m->rec.boot_id));
	machine_save(m);
	adopt_user(m);
	adopt_trial(m);
	m->guest_ready = m->rec.ready;
	machine_report(m, !m->rec.ready ? VM_BOOTING : m->rec.paused ? VM_PAUSED : VM_UP, NULL);
	attach(m);
	adopt_network(m);
	if (m->rec.ready && m->rec.incoming[0])
		run_end(m, AFTER_SUSPEND);	/* all of it is on the disk already */
	else if (m->rec.stopping)
		run_stop(m);
	else if (!m->rec.ready && m->after == AFTER_UNASKED)
		run_await_boot(m);
	return true;
}

/* --- what is asked of it -------------------------------------------------------------- */

/* In order, as its guest has it. */
static void shut_down(struct machine *m, enum after after)
{
	m->after = after;
	if (!m->guest_ready || (m->state == VM_PAUSED && !m->rec.paused)) {
		quit(m);	/* nobody there who could shut down */
		return;
	}
	if (m->rec.paused && m->qmp)
		qmp_command(m->qmp, "cont", NULL, NULL, NULL);
	if (m->port)
		identity_send(m->port, "poweroff");
	if (m->qmp)
		qmp_command(m->qmp, "system_powerdown", NULL, NULL, NULL);
	set_deadline(m, machine_kvm(m) ? STOP_KVM_MS : STOP_TCG_MS, stop_overdue);
}

void run_stop(struct machine *m)
{
	m->unplugged = TODO_NOTHING;
	if (m->alive)
		shut_down(m, AFTER_STOP);
	else
		machine_stopped(m, NULL);
}

/* By a new QEMU: firmware that is reset in its first moments hangs. */
static void power_cycle(struct machine *m)
{
	m->after = AFTER_RESTART;
	m->rec.phase = PHASE_STARTING;
	m->rec.ready = false;
	machine_save(m);
	quit(m);
}

static void reboot_overdue(struct loop_timer *t)
{
	struct machine *m = container_of(t, struct machine, deadline);

	log_warn("vm=%s did not restart in time: switched off and on", m->rec.name);
	power_cycle(m);
}

void run_restart(struct machine *m)
{
	if (!m->alive || m->after != AFTER_UNASKED)
		return;
	if (!m->guest_ready || m->state == VM_PAUSED || !m->port) {
		power_cycle(m);
		return;
	}
	if (m->legacy) {		/* to get another QEMU, and with that a network of ours */
		m->rec.phase = PHASE_STARTING;
		machine_save(m);
		shut_down(m, AFTER_RESTART);
		return;
	}
	identity_send(m->port, "reboot");
	set_deadline(m, machine_kvm(m) ? STOP_KVM_MS : STOP_TCG_MS, reboot_overdue);
}

static void pause_answered(void *user, const struct cJSON *result, const struct err *err)
{
	struct machine *m = user;

	if (!err)
		return;
	m->rec.paused = !m->rec.paused;
	machine_save(m);
	machine_trouble(m, m->rec.paused ? "resume" : "pause", err);
}

/* The record first: a machine that stands still without a word in it is made to go on. */
void run_pause(struct machine *m, bool pause)
{
	if (!run_reachable(m))
		return;
	m->rec.paused = pause;
	machine_save(m);
	qmp_command(m->qmp, pause ? "stop" : "cont", NULL, pause_answered, m);
	if (!pause && m->port)
		identity_send_clock(m->port);
}

void run_destroy(struct machine *m)
{
	if (unplug_before(m, TODO_DESTROY))
		return;
	if (!m->alive) {
		int r = take_up(m);

		if (r < 0)
			return;
		if (r == 0) {
			run_remove_sockets(m->rec.run_dir, m->rec.name);
			machine_gone(m);
			return;
		}
		m->alive = true;
		uplink_watch(m);
	}
	m->after = AFTER_DESTROY;
	kill_it(m);
}
