/* What is told of a sandbox: info, info.json, ssh_config. */
#include "vm_internal.h"

#include <stdlib.h>
#include <string.h>

#include "facts.h"
#include "lane.h"
#include "ssh.h"

/* --- info -------------------------------------------------------------------- */

/* What was not asked for here is told by the backend: own_facts. */
static void spec_facts(const struct vm *vm, struct facts *f)
{
	const struct vm_spec *s = &vm->record.spec;

	if (s->image[0])
		facts_text(f, "image", s->image);
	if (s->cpus)
		facts_number(f, "cpus", s->cpus);
	if (s->memory)
		facts_bytes(f, "memory", s->memory);
	if (s->disk)
		facts_bytes(f, "disk", s->disk);
	if (s->no_network)
		facts_text(f, "network", "off");
	if (s->from[0])
		facts_text(f, "from", s->from);
}

static void record_facts(const struct vm *vm, struct facts *f)
{
	const struct record *r = &vm->record;

	facts_time(f, "created", r->created);
	facts_time(f, "active", vm_active(vm));
	facts_text(f, "tag", r->spec.tag);
	if (r->tags[0])
		facts_text(f, "tags", r->tags);
	if (r->comment[0])
		facts_text(f, "comment", r->comment);
	if (r->foreign)
		facts_text(f, "foreign", "yes");
	if (r->placed[0])
		facts_text(f, "overflow", r->placed);
	facts_time(f, "expires", r->expires);
	facts_time(f, "trashed", r->trashed);
}

static void link_facts(const struct vm *vm, struct facts *f)
{
	static const char *const links[] = { "none", "idle", "connecting", "up", "down" };
	uint64_t received, sent;

	if (vm->has_endpoint) {
		facts_text(f, "host", vm->to.host);
		facts_number(f, "port", vm->to.port);
		facts_text(f, "user", vm->to.user);
		facts_text(f, "host_key", vm->to.host_key);
	}
	facts_text(f, "link", links[vm->link]);
	if (vm->ssh && vm->link == LINK_UP) {
		ssh_traffic(vm->ssh, &received, &sent);
		facts_text(f, "server", ssh_server_version(vm->ssh));
		facts_number(f, "received_bytes", (int64_t)received);
		facts_number(f, "sent_bytes", (int64_t)sent);
	}
}

static void job_facts(struct vm *vm, struct facts *f)
{
	if (vm->guest.missing)
		facts_text(f, "guest_missing", vm->guest.missing);
	facts_number(f, "jobs", vm->job_count);
	facts_number(f, "jobs_running", vm->active);
	facts_number(f, "connections", lanes_count(vm));
	setup_facts(vm, f);
	if (!list_empty(&vm->queue) && (vm->state == VM_STOPPED || vm->state == VM_PAUSED))
		facts_text(f, "jobs_wait_for", vm_waits_for(vm));
}

static void own_facts(struct vm *vm, struct facts *f)
{
	struct buf lines = BUF_INIT;
	char *text;

	if (!vm->backend || !vm->backend->ops->info)
		return;
	vm->backend->ops->info(vm->backend, vm_id(vm), &lines);
	text = buf_take_string(&lines);
	facts_lines(f, text);
	free(text);
}

static struct facts *vm_facts(struct vm *vm)
{
	struct facts *f = facts_create();

	facts_text(f, "name", vm_name(vm));
	if (strcmp(vm_id(vm), vm_name(vm)))
		facts_text(f, "id", vm_id(vm));
	facts_text(f, "status", vm_status(vm));
	facts_time(f, "since", vm->changed);
	facts_text(f, "backend", vm->record.backend);
	spec_facts(vm, f);
	record_facts(vm, f);
	link_facts(vm, f);
	job_facts(vm, f);
	own_facts(vm, f);
	return f;
}

void vm_info_print(struct vm *vm, struct buf *out)
{
	struct facts *f = vm_facts(vm);

	facts_print(f, out);
	facts_destroy(f);
}

void vm_info_print_json(struct vm *vm, struct buf *out)
{
	struct facts *f = vm_facts(vm);

	facts_print_json(f, out);
	facts_destroy(f);
}

/* --- ssh_config -------------------------------------------------------------- */

void vm_ssh_config_print(struct vm *vm, struct buf *out)
{
	bool agent = vm->has_endpoint && !vm->to.identity[0];	/* any of its keys */

	if (!vm->has_endpoint) {
		buf_printf(out, "# %s is %s: it has no address now\n", vm_name(vm), vm_status(vm));
		return;
	}
	/* The pinned key goes along: KnownHostsCommand prints it, so that no file is needed. */
	buf_printf(out,
		   "Host %s\n"
		   "  HostName %s\n"
		   "  Port %d\n"
		   "  User %s\n"
		   "%s%s%s"
		   "  HostKeyAlias sbxfs-%s\n"
		   "  UserKnownHostsFile none\n"
		   "  GlobalKnownHostsFile none\n"
		   "  KnownHostsCommand /bin/echo sbxfs-%s %s\n"
		   "  StrictHostKeyChecking yes\n"
		   "  LogLevel ERROR\n",
		   vm_name(vm), vm->to.host, vm->to.port, vm->to.user,
		   agent ? "" : "  IdentityFile \"", agent ? "" : vm->to.identity,
		   agent ? "" : "\"\n  IdentitiesOnly yes\n",
		   vm_name(vm), vm_name(vm), vm->to.host_key);
}
