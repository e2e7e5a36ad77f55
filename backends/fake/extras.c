/*
 * What the fake backend can do beside starting and stopping: its guests stand still by
 * SIGSTOP, their sizes are numbers, and since they share the host's loopback, a port of
 * the guest is that port of the host. What it was told of names and notes it shows in info.
 */
#include "fake.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "log.h"

/* --- pause --------------------------------------------------------------------- */

int fake_pause(struct backend *b, const char *id, struct err *err)
{
	struct box *box = fake_find(b, id, err);

	if (!box)
		return -ENOENT;
	if (box->state != VM_UP || loop_timer_is_set(&box->timer))
		return err_set(err, -EBUSY, "%s is not running, or not for long", id);
	guest_accept(box, false);
	guest_signal_all(box, SIGSTOP);
	box_enter(box, VM_PAUSED);
	return 0;
}

int fake_resume(struct backend *b, const char *id, struct err *err)
{
	struct box *box = fake_find(b, id, err);

	if (!box)
		return -ENOENT;
	if (box->state != VM_PAUSED || loop_timer_is_set(&box->timer))
		return err_set(err, -EBUSY, "%s is not paused", id);
	guest_signal_all(box, SIGCONT);
	guest_accept(box, true);
	box_enter(box, VM_UP);
	return 0;
}

/* --- size ------------------------------------------------------------------------ */

int fake_resize(struct backend *b, const char *id, unsigned cpus, uint64_t memory, uint64_t disk,
		struct err *err)
{
	struct box *box = fake_find(b, id, err);

	if (!box)
		return -ENOENT;
	if (disk && disk < box->spec.disk)
		return err_set(err, -EINVAL, "a disk does not shrink");
	if (cpus)
		box->spec.cpus = cpus;
	if (memory)
		box->spec.memory = memory;
	if (disk)
		box->spec.disk = disk;
	return record_write(box, false, err);
}

/* --- ports ------------------------------------------------------------------------- */

static unsigned port_index(const struct box *box, unsigned port)
{
	unsigned i = 0;

	while (i < box->port_count && box->ports[i] != port)
		i++;
	return i;
}

int fake_port_open(struct backend *b, const char *id, unsigned port, struct err *err)
{
	struct box *box = fake_find(b, id, err);

	if (!box)
		return -ENOENT;
	if (port == 666)
		return err_set(err, -EACCES, "the fake backend opens no port 666");
	if (port_index(box, port) == box->port_count)
		box->ports[box->port_count++] = port;
	return 0;
}

int fake_port_close(struct backend *b, const char *id, unsigned port, struct err *err)
{
	struct box *box = fake_find(b, id, err);
	unsigned i;

	if (!box)
		return -ENOENT;
	i = port_index(box, port);
	if (i < box->port_count)
		box->ports[i] = box->ports[--box->port_count];
	return 0;
}

int fake_port_url(struct backend *b, const char *id, unsigned port, struct buf *out)
{
	struct box *box = fake_find(b, id, NULL);

	if (!box || box->state != VM_UP || port_index(box, port) == box->port_count)
		return -ENOENT;
	buf_printf(out, "http://127.0.0.1:%u", port);
	return 0;
}

const char *const fake_port_keys[] = { "visibility", NULL };

void fake_port_get(struct backend *b, const char *id, unsigned port, const char *key,
		   struct buf *out)
{
	struct box *box = fake_find(b, id, NULL);

	if (box)
		buf_printf(out, "%s", box->public_port == port ? "public" : "private");
}

int fake_port_set(struct backend *b, const char *id, unsigned port, const char *key,
		  const char *value, struct err *err)
{
	struct box *box = fake_find(b, id, err);

	if (!box)
		return -ENOENT;
	if (strcmp(value, "public") && strcmp(value, "private"))
		return err_set(err, -EINVAL, "visibility is private or public, not \"%s\"", value);
	box->public_port = !strcmp(value, "public") ? port : 0;
	return 0;
}

/* --- notes -------------------------------------------------------------------------- */

int fake_rename(struct backend *b, const char *id, const char *name, struct err *err)
{
	struct box *box = fake_find(b, id, err);

	if (!box)
		return -ENOENT;
	if (!strcmp(name, "refused-by-backend"))
		return err_set(err, -EINVAL, "the fake backend does not like the name %s", name);
	snprintf(box->called, sizeof(box->called), "%s", name);
	return 0;
}

int fake_annotate(struct backend *b, const char *id, const char *tags, const char *comment,
		  struct err *err)
{
	struct box *box = fake_find(b, id, err);

	if (!box)
		return -ENOENT;
	free(box->tags);
	free(box->comment);
	box->tags = xstrdup(tags);
	box->comment = xstrdup(comment);
	return 0;
}

void extras_info(const struct box *box, struct buf *out)
{
	if (box->called[0])
		buf_printf(out, "fake_name %s\n", box->called);
	if (box->tags)
		buf_printf(out, "fake_tags %s\nfake_comment %s\n", box->tags, box->comment);
	if (box->spec.extra[0])
		buf_printf(out, "fake_%s", box->spec.extra);
	if (box->spec.from[0])
		buf_printf(out, "fake_from %s\n", box->spec.from);
}

void extras_free(struct box *box)
{
	free(box->tags);
	free(box->comment);
}

/* --- drafts --------------------------------------------------------------------------- */

const char *const fake_draft_keys[] = { "colour", NULL };

int fake_check(struct backend *b, const char *key, const char *value, struct err *err)
{
	if (!strcmp(key, "image") && strcmp(value, "fake") && strcmp(value, "debian"))
		return err_set(err, -EINVAL,
			       "there is no image %s: the fake backend has fake and debian", value);
	if (!strcmp(key, "colour") && strcmp(value, "red") && strcmp(value, "blue"))
		return err_set(err, -EINVAL, "colour is red or blue, not \"%s\"", value);
	if (!strcmp(key, "cpus") && atoi(value) > 64)
		return err_set(err, -EINVAL, "the fake backend has at most 64 cpus, not %s", value);
	return 0;
}
