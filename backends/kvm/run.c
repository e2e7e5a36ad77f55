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
 *
 * Here is what is asked of it; run_start.c, run_end.c and run_adopt.c have the rest.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "err.h"
#include "identity.h"
#include "log.h"
#include "qmp.h"
#include "run_internal.h"

/* Has it been started from a saved state, and not come up yet? */
bool run_goes_on(const struct machine *m)
{
	return m->rec.incoming[0] || m->rec.cloning;
}

static int boot_ms(const struct machine *m)
{
	if (run_goes_on(m))
		return machine_kvm(m) ? CLONE_KVM_MS : CLONE_TCG_MS;
	return m->trial ? BOOT_TRIAL_MS : machine_kvm(m) ? BOOT_KVM_MS : BOOT_TCG_MS;
}

void run_set_deadline(struct machine *m, int64_t ms, loop_timer_cb *cb)
{
	loop_timer_set(m->kvm->loop, &m->deadline, ms, cb);
}

/* --- ending it --------------------------------------------------------------- */

void run_kill_overdue(struct loop_timer *t)
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
	run_set_deadline(m, KILL_MS, run_kill_overdue);
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
	run_set_deadline(m, QUIT_MS, quit_overdue);
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
	m->after = run_goes_on(m) ? AFTER_COLD : m->trial ? AFTER_TCG : AFTER_FAIL;
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
	run_set_deadline(m, boot_ms(m), boot_overdue);
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
bool run_unplug_before(struct machine *m, enum todo todo)
{
	m->unplugged = TODO_NOTHING;
	if (m->alive || !uplink_alive(m))
		return false;
	m->unplugged = todo;
	uplink_kill(m);
	run_set_deadline(m, KILL_MS, run_kill_overdue);
	return true;
}

void run_unplugged(struct machine *m)
{
	enum todo todo = m->unplugged;

	run_remove_sockets(m->rec.run_dir, m->rec.name);
	ports_forget(m);
	m->unplugged = TODO_NOTHING;
	if (todo == TODO_NOTHING)
		return;
	loop_timer_cancel(&m->deadline);
	if (m->todo == TODO_NOTHING)		/* else another wish has come in this moment */
		machine_ask(m, todo);
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
	run_set_deadline(m, machine_kvm(m) ? STOP_KVM_MS : STOP_TCG_MS, stop_overdue);
}

void run_stop(struct machine *m)
{
	if (m->alive) {
		shut_down(m, AFTER_STOP);
		return;
	}
	m->unplugged = TODO_NOTHING;
	loop_timer_cancel(&m->deadline);	/* of a start that waited for that */
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
	run_set_deadline(m, machine_kvm(m) ? STOP_KVM_MS : STOP_TCG_MS, reboot_overdue);
}

static void pause_answered(void *user, const struct cJSON *result, const struct err *err)
{
	struct machine *m = user;

	loop_timer_cancel(&m->turning);
	if (!err)
		return;
	m->rec.paused = !m->rec.paused;
	machine_save(m);
	machine_trouble(m, m->rec.paused ? "resume" : "pause", err);
}

/* It does that when it comes to it, and the record stays as it was asked for. */
static void turn_overdue(struct loop_timer *t)
{
	struct machine *m = container_of(t, struct machine, turning);
	struct err err;

	err_set(&err, -ETIMEDOUT, "QEMU did not answer within %d s; it is %s when it does",
		ANSWER_MS / 1000, m->rec.paused ? "paused" : "resumed");
	machine_trouble(m, m->rec.paused ? "pause" : "resume", &err);
}

/* The record first: a machine that stands still without a word in it is made to go on. */
void run_pause(struct machine *m, bool pause)
{
	if (!run_reachable(m))
		return;
	m->rec.paused = pause;
	machine_save(m);
	loop_timer_set(m->kvm->loop, &m->turning, ANSWER_MS, turn_overdue);
	qmp_command(m->qmp, pause ? "stop" : "cont", NULL, pause_answered, m);
	if (!pause && m->port)
		identity_send_clock(m->port);
}

void run_destroy(struct machine *m)
{
	if (run_unplug_before(m, TODO_DESTROY))
		return;
	if (!m->alive) {
		int r = run_take_up(m);

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
