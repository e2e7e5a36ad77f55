/*
 * A look at the guest, once a boot: what it lacks that jobs could use. It is taken when the
 * first job has ended, on the channel that has just become free: it delays no boot, and a
 * server that allows one channel has none to spare. Nobody waits for it. Told in info; what
 * ending a job and long scripts need says sbxfs.5.
 */
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "guest.h"
#include "lane.h"
#include "log.h"
#include "ssh.h"

#define SAID_MAX 4096

/* "missing bash dd" and "files unlimited"; anything else is what start-up files print. */
static void take_line(struct guest *g, const char *line)
{
	if (!strncmp(line, "missing ", 8)) {
		free(g->missing);
		g->missing = xstrdup(line + 8);
	} else if (!strncmp(line, "files ", 6)) {
		g->limit = strcmp(line + 6, "unlimited") ? LIMIT_USED : LIMIT_FREE;
	}
}

static void said(void *user, int which, const uint8_t *data, size_t len)
{
	struct vm *vm = user;

	if (which == 0 && buf_size(&vm->guest.said) + len <= SAID_MAX)
		buf_put(&vm->guest.said, data, len);
}

static void looked(void *user, const struct ssh_exit *how)
{
	struct vm *vm = user;
	struct guest *g = &vm->guest;
	char *text = buf_take_string(&g->said), *save = NULL;

	g->channel = NULL;
	lane_freed(g->lane);
	if (how->error || how->status != 0) {
		g->looked_at = false;	/* at the next connection */
		log_debug("vm=%s could not be looked at", vm_name(vm));
	} else {
		free(g->missing);
		g->missing = NULL;
		for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save))
			take_line(g, l);
	}
	free(text);
	vm_ref(vm);
	vm_touch(vm);
	jobs_pump(vm);
	vm_unref(vm);
}

static const struct ssh_channel_ops look_ops = { .data = said, .closed = looked };

void vm_guest_look(struct vm *vm, struct lane *lane)
{
	struct guest *g = &vm->guest;
	struct buf exec = BUF_INIT;

	if (g->looked_at || g->channel)
		return;
	g->lane = lane;
	command_build_check(&exec);
	if (ssh_exec(g->lane->ssh, buf_peek(&exec), buf_size(&exec), &look_ops, vm,
		     &g->channel) == 0) {
		g->looked_at = true;
		lane_used(g->lane);
	}
	buf_finish(&exec);
}

void vm_guest_changed(struct vm *vm)
{
	vm->guest.looked_at = false;
	vm->guest.limit = LIMIT_ASK;
}

void vm_guest_finish(struct vm *vm)
{
	free(vm->guest.missing);
	buf_finish(&vm->guest.said);
}
