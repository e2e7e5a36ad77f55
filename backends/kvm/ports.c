/*
 * Ports of the guest that are reachable on a port of the host's loopback: rules of
 * QEMU's user networking, which live as long as QEMU. The fleet keeps which ports
 * are open and asks for them again at each start (backend.h); here is kept on which
 * port of the host each was found last, so that it gets the same one if that is free.
 *
 * Opening: look which rules there are (an adopted QEMU has them) -> add one, with the
 * port of the last time or with 0, for which the kernel chooses -> look again.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "err.h"
#include "log.h"
#include "machine.h"
#include "qemu_args.h"
#include "qmp.h"

struct port {
	struct machine *m;
	unsigned guest;
	int host;		/* now, or the last time; 0: none yet */
	bool wanted;		/* it was asked for, and not closed */
	bool open;		/* there is a rule in the QEMU that runs */
	unsigned tries;
	struct port *next;
};

static struct port *find(const struct machine *m, unsigned guest)
{
	struct port *p;

	for (p = m->ports; p && p->guest != guest; p = p->next)
		;
	return p;
}

static void monitor(struct machine *m, const char *line, qmp_cb *cb, void *user)
{
	cJSON *args = cJSON_CreateObject();

	cJSON_AddStringToObject(args, "command-line", line);
	qmp_command(m->qmp, "human-monitor-command", args, cb, user);
}

static void look(struct port *);

static void failed(struct port *p)
{
	struct err err;

	err_set(&err, -EADDRINUSE, "port %u could not be opened: QEMU found no port on the host",
		p->guest);
	machine_trouble(p->m, "port", &err);
}

static void looked(void *user, const struct cJSON *result, const struct err *err)
{
	struct port *p = user;
	const char *text = cJSON_GetStringValue(result);
	char line[80];
	int host = err || !text ? 0 : qemu_forwarded_port(text, (int)p->guest);

	if (err)
		return;		/* the connection is gone; it is asked for again */
	if (host) {
		p->host = host;
		p->open = true;
		machine_changed(p->m);
		return;
	}
	if (p->tries++ == 2) {
		failed(p);
		return;
	}
	snprintf(line, sizeof(line), "hostfwd_add net tcp:127.0.0.1:%d-:%u",
		 p->tries == 1 ? p->host : 0, p->guest);
	monitor(p->m, line, NULL, NULL);
	look(p);
}

static void look(struct port *p)
{
	monitor(p->m, "info usernet", looked, p);
}

static void ask(struct port *p)
{
	p->tries = 0;
	look(p);
}

int ports_open(struct machine *m, unsigned guest, struct err *err)
{
	struct port *p = find(m, guest);

	if (guest == 22)
		return err_set(err, -EINVAL, "port 22 is open already: see port in info");
	if (!p) {
		p = xcalloc(1, sizeof(*p));
		p->m = m;
		p->guest = guest;
		p->next = m->ports;
		m->ports = p;
	}
	p->wanted = true;
	/* Else when it can be asked: a daemon that comes back has no connection yet. */
	if (run_reachable(m))
		ask(p);
	return 0;
}

void ports_connected(struct machine *m)
{
	for (struct port *p = m->ports; p; p = p->next)
		if (p->wanted && !p->open)
			ask(p);
}

int ports_close(struct machine *m, unsigned guest, struct err *err)
{
	struct port *p = find(m, guest);
	char line[80];

	if (p)
		p->wanted = false;
	if (!p || !p->open)
		return 0;
	snprintf(line, sizeof(line), "hostfwd_remove net tcp:127.0.0.1:%d", p->host);
	if (run_reachable(m))
		monitor(m, line, NULL, NULL);
	p->open = false;
	return 0;
}

int ports_url(const struct machine *m, unsigned guest, struct buf *out)
{
	const struct port *p = find(m, guest);

	if (!p || !p->open || !m->alive)
		return -EAGAIN;
	buf_printf(out, "http://127.0.0.1:%d", p->host);
	return 0;
}

void ports_forget(struct machine *m)
{
	for (struct port *p = m->ports; p; p = p->next)
		p->open = false;
}

void ports_free(struct machine *m)
{
	struct port *p;

	while ((p = m->ports)) {
		m->ports = p->next;
		free(p);
	}
}
