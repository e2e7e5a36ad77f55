/* How the QEMU of a machine has ended, and what follows: see run.c. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "layer.h"
#include "log.h"
#include "proc.h"
#include "process.h"
#include "run_internal.h"

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
	loop_timer_cancel(&m->turning);
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
	if (m->hidden && m->hidden->arrived) {
		machine_failed(m, why);	/* booted it would be of no use */
		return;
	}
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
	bool early = run_goes_on(m) ? m->rec.incoming[0] : !m->rec.ready;

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
	if (run_goes_on(m) && was_killed(status))
		err.code = -ECANCELED;
	if (run_goes_on(m))
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
	/* That it is to go may have been asked in this moment, and not come to be done. */
	enum after after = m->rec.phase == PHASE_DESTROYING ? AFTER_DESTROY : m->after;
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
		m->rec.cloning = false;
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

void run_qemu_ended(struct loop_child *c, int status)
{
	struct machine *m = container_of(c, struct machine, child);
	bool stays = m->after == AFTER_SUSPEND && m->rec.phase != PHASE_DESTROYING &&
		     uplink_kept(m);

	log_debug("vm=%s QEMU has ended, status %d", m->rec.name, status);
	m->qemu_status = status;
	if (!uplink_alive(m) || stays) {
		all_ended(m);
		return;
	}
	m->qemu_ended = true;
	uplink_kill(m);		/* it ends by itself, if nothing is wrong with it */
	run_set_deadline(m, KILL_MS, run_kill_overdue);
}

bool run_network_ended(struct machine *m)
{
	if (m->qemu_ended)
		all_ended(m);
	else if (!m->alive)
		run_unplugged(m);
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
	} else if (m->rec.cloning && !m->rec.incoming[0]) {
		err_set(&err, -ECANCELED, "QEMU ended while sbxfs was not there");
		machine_report(m, VM_BOOTING, NULL);
		run_cold(m, &err);
	} else if (!m->rec.ready || run_goes_on(m)) {
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
