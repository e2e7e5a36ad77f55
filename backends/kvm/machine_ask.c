/*
 * What is asked of a machine: refused at once, or written down and begun from the loop
 * (machine.c).
 */
#include <errno.h>
#include <stdio.h>

#include "err.h"
#include "machine.h"

int machine_refuse(const struct machine *m, const char *what, struct err *err)
{
	bool runs = m->state == VM_UP || m->state == VM_PAUSED;

	/* What its state does not tell. */
	if (runs && m->rec.stopping)
		return err_set(err, -EBUSY, "cannot %s %s: it is being stopped", what, m->rec.name);
	if (runs && !run_reachable(m))
		return err_set(err, -EBUSY, "cannot %s %s now: its QEMU ends, or does not answer "
			       "yet", what, m->rec.name);
	return err_set(err, -EBUSY, "cannot %s %s: it is %s", what, m->rec.name,
		       machine_state_word(m->state));
}

int machine_busy(const struct machine *m, const char *what, struct err *err)
{
	static const char *const doing[] = {
		[OP_NONE] = "", [OP_SNAPSHOT] = "a snapshot is being taken",
		[OP_RESTORE] = "a snapshot is being restored",
		[OP_SUSPEND] = "it is being suspended",
		[OP_ORIGIN] = "it is being cloned", [OP_TEMPLATE] = "a template is made of it",
	};

	return m->op == OP_NONE ? 0 :
		err_set(err, -EBUSY, "cannot %s %s now: %s", what, m->rec.name, doing[m->op]);
}

int machine_occupied(const struct machine *m, const char *what, struct err *err)
{
	if (m->todo != TODO_NOTHING)
		return err_set(err, -EBUSY, "cannot %s %s: it has something else to do", what,
			       m->rec.name);
	return machine_busy(m, what, err);
}

int machine_start(struct machine *m, struct err *err)
{
	struct record before = m->rec;
	int r;

	if (m->state != VM_STOPPED && m->state != VM_FAILED)
		return machine_refuse(m, "start", err);
	if (machine_busy(m, "start", err) < 0)
		return -EBUSY;
	if (m->rec.phase == PHASE_DESTROYING || !m->rec.image_dir[0])
		return err_set(err, -EBUSY, "cannot start %s: all it can do is be destroyed",
			       m->rec.name);
	if (m->rec.made && run_check_start(m, err) < 0)
		return err->code;
	m->rec.phase = m->rec.made ? PHASE_STARTING : PHASE_NEW;
	m->rec.why = ERR_NONE;
	r = record_save(&m->rec, m->dir, err);
	if (r < 0) {
		m->rec = before;
		return r;
	}
	m->no_kvm = ERR_NONE;
	m->no_kvm_ms = 0;
	m->crashed = false;
	m->state = m->rec.made ? VM_BOOTING : VM_CREATING;
	machine_ask(m, m->rec.made ? TODO_START : TODO_MAKE);
	return 0;
}

static bool runs(const struct machine *m)
{
	return m->state == VM_BOOTING || m->state == VM_UP || m->state == VM_PAUSED;
}

int machine_stop(struct machine *m, struct err *err)
{
	if (!runs(m))
		return machine_refuse(m, "stop", err);
	if (machine_busy(m, "stop", err) < 0)
		return -EBUSY;
	m->rec.stopping = true;
	machine_save(m);
	machine_ask(m, TODO_STOP);
	return 0;
}

int machine_restart(struct machine *m, struct err *err)
{
	if (m->state == VM_STOPPED || m->state == VM_FAILED)
		return machine_start(m, err);
	if (!runs(m) || m->rec.stopping)
		return machine_refuse(m, "restart", err);
	if (machine_busy(m, "restart", err) < 0)
		return -EBUSY;
	if (m->state == VM_BOOTING && !m->alive)
		return 0;		/* it has not been started yet, and will be */
	machine_ask(m, TODO_RESTART);
	return 0;
}

/* Is all that it has to do to pause, or to go on? */
static bool turns(const struct machine *m)
{
	return m->todo == TODO_PAUSE || m->todo == TODO_RESUME;
}

/* Either takes back the other one that is under way. */
int machine_pause(struct machine *m, struct err *err)
{
	bool resumes = m->state == VM_PAUSED &&
		       (m->todo == TODO_RESUME ||
			(!m->rec.paused && !loop_timer_is_set(&m->full)));

	if ((m->state != VM_UP && !resumes) || m->rec.stopping || !run_reachable(m))
		return machine_refuse(m, "pause", err);
	if (!turns(m) && machine_occupied(m, "pause", err) < 0)
		return -EBUSY;
	machine_ask(m, TODO_PAUSE);
	return 0;
}

int machine_resume(struct machine *m, struct err *err)
{
	bool pauses = m->state == VM_UP && (m->todo == TODO_PAUSE || m->rec.paused);

	if ((m->state != VM_PAUSED && !pauses) || m->rec.stopping || !run_reachable(m))
		return machine_refuse(m, "resume", err);
	if (!turns(m) && machine_occupied(m, "resume", err) < 0)
		return -EBUSY;
	machine_ask(m, TODO_RESUME);
	return 0;
}

int machine_destroy(struct machine *m, struct err *err)
{
	struct err why;

	if (m->state == VM_DESTROYING)
		return machine_refuse(m, "destroy", err);
	/* A full disk must not stand in the way: what follows makes room. */
	m->rec.phase = PHASE_DESTROYING;
	machine_save(m);
	make_cancel(m);
	err_set(&why, -ECANCELED, "it is being destroyed");
	snapshot_abandon(m, &why);
	m->state = VM_DESTROYING;
	machine_ask(m, TODO_DESTROY);
	return 0;
}
