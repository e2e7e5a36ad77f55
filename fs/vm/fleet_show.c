/* What is told of the fleet as a whole: .sbxfs/backends, .sbxfs/errors. */
#include "vm_internal.h"

#include <stdio.h>
#include <string.h>

#include "facts.h"
#include "log.h"

static void caps_print(const struct backend *backend, struct buf *out)
{
	static const struct { unsigned cap; const char *name; } caps[] = {
		{ BACKEND_CAP_STOP, "stop" }, { BACKEND_CAP_RESTART, "restart" },
		{ BACKEND_CAP_CONSOLE, "console" }, { BACKEND_CAP_PAUSE, "pause" },
		{ BACKEND_CAP_SUSPEND, "suspend" }, { BACKEND_CAP_SNAPSHOT, "snapshot" },
		{ BACKEND_CAP_CLONE, "clone" }, { BACKEND_CAP_PORTS, "ports" },
		{ BACKEND_CAP_RESIZE, "resize" }, { BACKEND_CAP_KEEP, "keep" },
		{ BACKEND_CAP_NETWORK, "network" }, { BACKEND_CAP_LOCAL, "local" },
	};
	const char *comma = " caps=";

	for (size_t i = 0; i < sizeof(caps) / sizeof(caps[0]); i++)
		if (backend->caps & caps[i].cap) {
			buf_printf(out, "%s%s", comma, caps[i].name);
			comma = ",";
		}
}

void fleet_backends_print(struct fleet *f, struct buf *out)
{
	for (unsigned i = 0; i < f->slot_count; i++) {
		struct slot *s = &f->slots[i];

		buf_printf(out, "%s %s", s->ops->name, s->ready ? "ready" : "unavailable");
		if (!s->ready)
			buf_printf(out, " \"%s\"", s->why);
		caps_print(s->backend, out);
		if (s->ops->describe) {
			buf_printf(out, " ");
			s->ops->describe(s->backend, out);
		}
		buf_printf(out, "\n");
	}
}

void fleet_note_error(struct fleet *f, const char *operation, const char *path,
		      const struct err *err)
{
	struct failure *slot = &f->failures[f->failure_count++ % 100];

	slot->when = wall_ms();
	snprintf(slot->operation, sizeof(slot->operation), "%s", operation);
	snprintf(slot->path, sizeof(slot->path), "%s", path);
	for (char *p = slot->path; *p; p++)	/* names are a guest's or a stranger's choice */
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	snprintf(slot->text, sizeof(slot->text), "%s", err->text);
}

void fleet_errors_print(struct fleet *f, struct buf *out)
{
	unsigned first = f->failure_count > 100 ? f->failure_count - 100 : 0;

	for (unsigned i = first; i < f->failure_count; i++) {
		const struct failure *e = &f->failures[i % 100];

		time_print(out, e->when);
		buf_printf(out, " %s %s %s\n", e->operation, e->path, e->text);
	}
}
