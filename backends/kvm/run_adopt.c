/* A QEMU that an earlier daemon started is taken up again: see run.c. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "image.h"
#include "log.h"
#include "process.h"
#include "qemu_args.h"
#include "run_internal.h"

#define LOOKS 100	/* FIND_PID_MS apart; then it is said that it cannot be found */
#define LOOK_MS (10 * 1000)

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

/* A moment later its name can be read, or it has ended; unless it is none that we know. */
static void await_name(struct machine *m)
{
	struct err err;

	if (++m->looks >= LOOKS && m->state != VM_FAILED) {
		err_set(&err, -EBUSY, "a process that cannot be found here, of another host perhaps, "
			"holds %s/" FILE_LOCK, m->dir);
		machine_report(m, VM_FAILED, &err);
	}
	if (m->looks >= LOOKS && m->rec.phase == PHASE_DESTROYING) {
		m->looks = 0;		/* it may be asked for again */
		return;
	}
	run_set_deadline(m, m->looks < LOOKS ? FIND_PID_MS : LOOK_MS, look_again);
}

/* Watch the QEMU that holds the lock. 0: there is none; -EAGAIN: cannot be told apart yet. */
int run_take_up(struct machine *m)
{
	char *lock = machine_path(m, FILE_LOCK);
	int fd = process_lock(lock);
	pid_t pid;

	free(lock);
	if (fd >= 0)
		close(fd);
	if (fd != -EWOULDBLOCK) {
		m->looks = 0;
		return 0;
	}
	pid = find_pid(m);
	if (!pid)
		uplink_end_unseen(m);	/* it alone has been left */
	if (!pid || loop_child_add(m->kvm->loop, &m->child, pid, run_qemu_ended) < 0) {
		await_name(m);
		return -EAGAIN;
	}
	m->looks = 0;
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
		run_set_deadline(m, FIND_PID_MS, look_again);
		return false;
	}
	run_remove_sockets(m->rec.run_dir, m->rec.name);
	return true;
}

static void adopt_user(struct machine *m)
{
	struct image *image = xcalloc(1, sizeof(*image));

	image_load(image, m->rec.image_dir, NULL);
	run_load_user(m, image);
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
	/* Asked of a legacy one, whose next QEMU was to follow. */
	bool restarts = m->rec.phase == PHASE_STARTING && m->rec.ready;
	int r = run_take_up(m);

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
	run_attach(m);
	adopt_network(m);
	if (m->rec.ready && m->rec.incoming[0])
		run_end(m, AFTER_SUSPEND);	/* all of it is on the disk already */
	else if (m->rec.stopping)
		run_stop(m);
	else if (restarts)
		run_restart(m);
	else if (!m->rec.ready && m->after == AFTER_UNASKED)
		run_await_boot(m);
	return true;
}
