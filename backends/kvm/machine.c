/*
 * A VM's states: what it has come to, how that is reported, and what goes on from the loop.
 * Asking (machine_ask.c) writes the record, sets todo and returns; the work goes on from
 * here, in make.c and run.c, and ends in one of machine_made, _failed, _stopped, _gone,
 * or in VM_UP.
 */
#include "machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "endpoint.h"
#include "err.h"
#include "layer.h"
#include "log.h"

static const char *const state_words[] = {
	[VM_CREATING] = "being created",
	[VM_BOOTING] = "booting",
	[VM_UP] = "running",
	[VM_PAUSED] = "paused",
	[VM_STOPPED] = "stopped",
	[VM_DESTROYING] = "being destroyed",
	[VM_FAILED] = "failed",
};
_Static_assert(sizeof(state_words) / sizeof(*state_words) == VM_FAILED + 1, "words a state");

const char *machine_state_word(enum vm_state state)
{
	return state_words[state];
}

/* --- reports ----------------------------------------------------------------- */

/* "ssh-ed25519 AAAA... comment" without the comment. */
static void take_host_key(struct endpoint *ep, const char *line)
{
	size_t type = strcspn(line, " "), key = line[type] ? strcspn(line + type + 1, " \n") : 0;

	snprintf(ep->host_key, sizeof(ep->host_key), "%.*s", (int)(type + 1 + key), line);
}

static void fill_endpoint(const struct machine *m, struct endpoint *ep)
{
	char *key = machine_read(m, FILE_HOST_KEY ".pub");

	*ep = (struct endpoint){ .port = m->rec.port ? m->rec.port : (int)uplink_kept(m) };
	strcpy(ep->host, "127.0.0.1");
	snprintf(ep->user, sizeof(ep->user), "%s", m->user);
	snprintf(ep->identity, sizeof(ep->identity), "%s/%s", m->dir, FILE_CLIENT_KEY);
	if (key)
		take_host_key(ep, key);
	free(key);
}

void machine_report(struct machine *m, enum vm_state state, const struct err *err)
{
	struct kvm *kvm = m->kvm;
	bool reached = state == VM_UP ||
		       ((state == VM_STOPPED || state == VM_BOOTING) && uplink_kept(m));
	struct endpoint ep;

	m->state = state;
	log_debug("vm=%s is %s%s%s", m->rec.name, state_words[state], err && err->code ? ": " : "",
		 err && err->code ? err->text : "");
	if (m->hidden) {
		m->hidden->state(m, state, err);
		return;
	}
	if (reached)
		fill_endpoint(m, &ep);
	kvm->events->state(kvm->user, m->rec.name, state, reached ? &ep : NULL,
			   err && err->code ? err : NULL);
}

/* A stage that is begun again forgets what came behind it. */
void machine_stage(struct machine *m, enum stage stage)
{
	for (int later = stage; later < STAGES; later++)
		m->stages[later] = 0;
	m->stages[stage] = clock_ms();
}

void machine_changed(struct machine *m)
{
	if (!m->hidden)
		m->kvm->events->changed(m->kvm->user, m->rec.name);
}

void machine_still(struct machine *m, bool still)
{
	if (!m->hidden)
		m->kvm->events->still(m->kvm->user, m->rec.name, still);
}

void machine_trouble(struct machine *m, const char *operation, const struct err *err)
{
	log_warn("vm=%s %s: %s", m->rec.name, operation, err->text);
	if (!m->hidden)
		m->kvm->events->trouble(m->kvm->user, m->rec.name, operation, err);
}

void machine_made(struct machine *m)
{
	machine_stage(m, STAGE_FILES);
	m->rec.made = true;
	m->origin[0] = '\0';
	m->rec.phase = PHASE_STARTING;
	machine_save(m);
	machine_report(m, VM_BOOTING, NULL);
	run_start(m);
}

static void settle(struct machine *m, enum phase phase, const struct err *why)
{
	freeze_settle_dead(m);
	m->rec.phase = phase;
	m->rec.stopping = m->rec.ready = m->rec.paused = m->rec.cloning = false;
	m->rec.pid = m->rec.net_pid = 0;
	m->rec.port = 0;
	m->rec.why = why ? *why : ERR_NONE;
	machine_save(m);
}

void machine_failed(struct machine *m, const struct err *why)
{
	settle(m, PHASE_FAILED, why);
	machine_report(m, VM_FAILED, why);
}

void machine_stopped(struct machine *m, const struct err *why)
{
	settle(m, PHASE_STOPPED, why);
	machine_report(m, VM_STOPPED, why);
}

void machine_gone(struct machine *m)
{
	struct kvm *kvm = m->kvm;
	char name[sizeof(m->rec.name)];
	const struct hidden *hidden = m->hidden;
	struct err err;

	strcpy(name, m->rec.name);
	if (make_remove(kvm, name, &err) < 0) {
		machine_report(m, VM_FAILED, &err);
		return;
	}
	if (hidden)
		hidden->gone(m);
	machine_free(m);
	layers_collect(kvm);
	if (!hidden)
		kvm->events->gone(kvm->user, name);
}

/* --- what was asked, from the loop ------------------------------------------- */

static void make(struct machine *m)
{
	if (m->rec.spec.from[0] && !m->origin[0])
		snapshot_origin(m);
	else
		make_files(m);
}

static void adopt(struct machine *m)
{
	switch (m->rec.phase) {
	case PHASE_NEW:
		machine_report(m, VM_CREATING, NULL);
		make(m);
		break;
	case PHASE_STARTING:
		if (!run_adopt(m)) {
			machine_report(m, VM_BOOTING, NULL);
			run_start(m);
		}
		break;
	case PHASE_RUNNING:
		if (!run_adopt(m))
			run_ended_unseen(m);
		break;
	case PHASE_STOPPED:
		if (run_is_over(m))
			machine_report(m, VM_STOPPED, &m->rec.why);
		break;
	case PHASE_FAILED:
		machine_report(m, VM_FAILED, &m->rec.why);
		break;
	case PHASE_DESTROYING:
		machine_report(m, VM_DESTROYING, NULL);
		run_destroy(m);
		break;
	}
}

static void go_on(struct loop_later *l)
{
	struct machine *m = container_of(l, struct machine, later);
	enum todo todo = m->todo;

	m->todo = TODO_NOTHING;
	switch (todo) {
	case TODO_NOTHING:
		break;
	case TODO_ADOPT:
		adopt(m);
		break;
	case TODO_MAKE:
		machine_report(m, VM_CREATING, NULL);
		make(m);
		break;
	case TODO_START:
		machine_report(m, VM_BOOTING, NULL);
		run_start(m);
		break;
	case TODO_STOP:
		run_stop(m);
		break;
	case TODO_RESTART:
		run_restart(m);
		break;
	case TODO_DESTROY:
		machine_report(m, VM_DESTROYING, NULL);
		run_destroy(m);		/* frees it */
		break;
	case TODO_PAUSE:
	case TODO_RESUME:
		run_pause(m, todo == TODO_PAUSE);
		break;
	case TODO_SUSPEND:
	case TODO_SNAPSHOT:
	case TODO_RESTORE:
		snapshot_go_on(m, todo);
		break;
	case TODO_NAMED:
		machine_report(m, VM_BOOTING, NULL);
		run_named(m);
		break;
	}
}

void machine_ask(struct machine *m, enum todo todo)
{
	if (todo == TODO_MAKE || todo == TODO_START || todo == TODO_NAMED)
		machine_stage(m, STAGE_ASKED);
	m->todo = todo;
	loop_later(m->kvm->loop, &m->later, go_on);
}

void machine_look_again(struct machine *m)
{
	machine_ask(m, m->rec.phase == PHASE_DESTROYING ? TODO_DESTROY : TODO_ADOPT);
}
