/*
 * Ports of the guest that are reachable on a port of the host's loopback: forwards of the
 * process that is its network (uplink.c), which live as long as that. The fleet keeps which ports
 * are open and asks for them again at each start (backend.h); here is kept on which
 * port of the host each was found last, so that it gets the same one if that is free.
 */
#include <errno.h>
#include <stdlib.h>

#include "buf.h"
#include "err.h"
#include "machine.h"

struct port {
	unsigned guest, host;	/* host: now, or the last time; 0: none yet */
	bool wanted;		/* it was asked for, and not closed */
	bool open;		/* there is a forward now */
	struct port *next;
};

static struct port *find(const struct machine *m, unsigned guest)
{
	struct port *p;

	for (p = m->ports; p && p->guest != guest; p = p->next)
		;
	return p;
}

static struct port *find_or_add(struct machine *m, unsigned guest)
{
	struct port *p = find(m, guest);

	if (!p) {
		p = xcalloc(1, sizeof(*p));
		p->guest = guest;
		p->next = m->ports;
		m->ports = p;
	}
	return p;
}

int ports_open(struct machine *m, unsigned guest, struct err *err)
{
	struct port *p;

	if (guest == 22)
		return err_set(err, -EINVAL, "port 22 is open already: see port in info");
	p = find(m, guest);
	if (m->legacy_looked && !(p && p->open))
		return legacy_refuse(m, guest, err);
	p = find_or_add(m, guest);
	p->wanted = true;
	/* Else when it can be asked: a daemon that comes back has no connection yet. */
	if (!p->open && uplink_ready(m))
		uplink_open(m, guest, p->host);
	return 0;
}

void ports_looked(struct machine *m)
{
	struct err err;

	for (struct port *p = m->ports; p; p = p->next) {
		if (p->wanted && !p->open) {
			legacy_refuse(m, p->guest, &err);
			machine_trouble(m, "port", &err);
		}
	}
}

void ports_connected(struct machine *m)
{
	for (struct port *p = m->ports; p; p = p->next)
		if (p->wanted && !p->open)
			uplink_open(m, p->guest, p->host);
}

void ports_heard(struct machine *m, unsigned guest, unsigned host)
{
	struct port *p = find_or_add(m, guest);

	p->open = host != 0;
	if (host)
		p->host = host;
	machine_changed(m);
}

int ports_close(struct machine *m, unsigned guest, struct err *err)
{
	struct port *p = find(m, guest);

	if (!p)
		return 0;
	if (p->open && m->legacy)
		legacy_close(m, p->host);
	p->wanted = p->open = false;
	if (uplink_ready(m))
		uplink_close(m, guest);
	return 0;
}

int ports_url(const struct machine *m, unsigned guest, struct buf *out)
{
	const struct port *p = find(m, guest);

	if (!p || !p->open || !m->alive)
		return -EAGAIN;
	buf_printf(out, "http://127.0.0.1:%u", p->host);
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
