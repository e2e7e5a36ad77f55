/*
 * A machine that an earlier sbxfs started, and that still runs: its network is part of
 * its QEMU (-netdev user), and not a process of ours (uplink.c). It is taken up as it is
 * and goes on so until its QEMU ends: the next one has a network of ours.
 *
 * Its ports are rules of QEMU. Those that are open stay, and can be closed; there are no
 * new ones. Neither is the host kept out of such a network, which is said.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "err.h"
#include "log.h"
#include "machine.h"
#include "qmp.h"

int legacy_refuse(const struct machine *m, unsigned guest, struct err *err)
{
	return err_set(err, -EBUSY, "port %u cannot be opened: an earlier sbxfs started %s; restart "
		       "it once, then it can", guest, m->rec.name);
}

static void monitor(struct machine *m, const char *line, qmp_cb *cb)
{
	cJSON *args;

	if (!m->qmp)
		return;
	args = cJSON_CreateObject();
	cJSON_AddStringToObject(args, "command-line", line);
	qmp_command(m->qmp, "human-monitor-command", args, cb, m);
}

/* "  TCP[HOST_FORWARD]  12  127.0.0.1 38541  10.0.2.15  8080  0  0" */
static void looked(void *user, const cJSON *result, const struct err *err)
{
	struct machine *m = user;
	const char *at = cJSON_GetStringValue(result);
	unsigned host, guest;

	while (at && (at = strstr(at, "TCP[HOST_FORWARD]"))) {
		if (sscanf(at, "%*s %*d %*s %u %*s %u", &host, &guest) == 2 && guest != 22 &&
		    host >= 1 && host <= 65535 && guest >= 1 && guest <= 65535)
			ports_heard(m, guest, host);
		at++;
	}
	m->legacy_looked = true;
	ports_looked(m);
}

void legacy_adopt(struct machine *m)
{
	struct err err;

	m->legacy = true;
	m->legacy_looked = !m->qmp;	/* nothing can be asked or opened */
	err_set(&err, -EBUSY, "an earlier sbxfs started it: until it is restarted its network is "
		"QEMU's%s, and no more ports can be opened",
		m->rec.spec.no_network ? "" : ", which lets it reach this host's loopback");
	machine_trouble(m, "network", &err);
	monitor(m, "info usernet", looked);
}

void legacy_close(struct machine *m, unsigned host)
{
	char line[80];

	snprintf(line, sizeof(line), "hostfwd_remove net tcp:127.0.0.1:%u", host);
	monitor(m, line, NULL);
}
