/*
 * A machine that stands still, into two files of a layer: its memory and the
 * rest of its state (ram.h). QEMU sends all of it as a migration stream into a
 * pipe; a child of ours takes that apart, writes the files and syncs them.
 *
 * Two things must happen, in any order: QEMU says that all is sent (the machine may
 * go on from there), and the child ends well (the files are complete; they get
 * their names).
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "json.h"
#include "layer.h"
#include "log.h"
#include "machine.h"
#include "qemu_args.h"
#include "qmp.h"
#include "ram.h"
#include "work.h"

#define MIB (1ull << 20)
#define SAVE_BYTES_PER_MS 50000	/* at the least */
#define GIVE_UP_MS (10 * 1000)	/* until the one has noticed that the other has ended */
#define NOT_GIVEN_AWAY "QEMU could not give it away"

struct save {
	struct machine *m;
	struct work *writer;
	struct loop_timer deadline;
	struct loop_later end;		/* done is called from the loop, not inside a call */
	char *folder, *ram, *state;	/* the layer's; the files, while they are written */
	bool sent_all, written;
	bool broke_off;			/* QEMU says so; its writer will say why */
	struct err err;
	void (*sent)(struct machine *);
	void (*done)(struct machine *, const struct err *);
};

/* --- its writer ---------------------------------------------------------------- */

enum { FROM_QEMU, TO_RAM, TO_STATE };

/* In a child: arg is the size of the memory. */
static int write_files(const void *arg, const int *fds, char said[WORK_SAID_MAX])
{
	int r = ram_split(fds[FROM_QEMU], fds[TO_RAM], fds[TO_STATE], *(const uint64_t *)arg, said,
			  WORK_SAID_MAX);

	if (r == 0 && (fsync(fds[TO_RAM]) < 0 || fsync(fds[TO_STATE]) < 0)) {
		r = -errno;
		snprintf(said, WORK_SAID_MAX, "it cannot be written");
	}
	return r;
}

static int open_file(const char *path)
{
	return open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

static void written(void *user, int r, const char *said);

static int start_writer(struct save *s, int in, struct err *err)
{
	const int fds[] = { [FROM_QEMU] = in, [TO_RAM] = open_file(s->ram),
			    [TO_STATE] = open_file(s->state) };
	int r;

	if (fds[TO_RAM] < 0 || fds[TO_STATE] < 0)
		r = err_sys(err, -errno, "cannot write %s", fds[TO_RAM] < 0 ? s->ram : s->state);
	else
		r = work_start(s->m->kvm->loop, write_files, &s->m->rec.spec.memory, fds, 3,
			       written, s, &s->writer, err);
	if (fds[TO_RAM] >= 0)
		close(fds[TO_RAM]);
	if (fds[TO_STATE] >= 0)
		close(fds[TO_STATE]);
	return r;
}

/* --- the end ------------------------------------------------------------------- */

static void save_free(struct save *s)
{
	work_cancel(s->writer);
	loop_timer_cancel(&s->deadline);
	loop_later_cancel(&s->end);
	unlink(s->ram);
	unlink(s->state);
	free(s->folder);
	free(s->ram);
	free(s->state);
	free(s);
}

void save_cancel(struct machine *m)
{
	struct save *s = m->save;

	m->save = NULL;
	if (s)
		save_free(s);
}

static int give_name(char *path)
{
	char *name = xstrndup(path, strlen(path) - strlen(".new"));
	int r = rename(path, name) < 0 ? -errno : 0;

	free(name);
	return r;
}

/* The state's name comes last: by it a layer has a saved machine. */
static void end(struct loop_later *l)
{
	struct save *s = container_of(l, struct save, end);
	struct machine *m = s->m;
	struct err err = s->err;
	void (*done)(struct machine *, const struct err *) = s->done;
	int r;

	if (!err.code &&
	    !layer_set_machine(s->folder, m->legacy ? 1 : QEMU_MACHINE_VERSION, &err)) {
		r = give_name(s->ram);
		if (r == 0)
			r = give_name(s->state);
		if (r < 0)
			err_sys(&err, r, "cannot rename %s", s->ram);
	}
	if (err.code)
		err_prefix(&err, "its memory could not be saved");
	m->save = NULL;
	save_free(s);
	done(m, &err);
}

static void perhaps_done(struct save *s)
{
	if (s->err.code || (s->sent_all && s->written))
		loop_later(s->m->kvm->loop, &s->end, end);
}

static void look_whether_over(struct machine *);

/* It hangs, or waits for something; what follows is tried all the same. */
static void not_given_up(struct loop_timer *t)
{
	perhaps_done(container_of(t, struct save, deadline));
}

/*
 * Without a reader QEMU gives up, and only then it can go on. reachable: it can be asked whether
 * it has.
 */
static void save_failed(struct save *s, const struct err *why, bool reachable)
{
	if (s->err.code)
		return;
	s->err = *why;
	work_cancel(s->writer);
	s->writer = NULL;
	if (s->sent_all || !reachable) {
		perhaps_done(s);
		return;
	}
	loop_timer_set(s->m->kvm->loop, &s->deadline, GIVE_UP_MS, not_given_up);
	look_whether_over(s->m);
}

static void written(void *user, int r, const char *said)
{
	struct save *s = user;
	struct err err;

	s->writer = NULL;
	if (r == 0 && !s->broke_off) {
		s->written = true;
		perhaps_done(s);
		return;
	}
	/* -EPIPE: it was not the writer who broke it off */
	err_set(&err, r ? r : -EIO, "%s", r == 0 || r == -EPIPE ? NOT_GIVEN_AWAY :
		r == -ENOSPC ? "the disk is full" : said);
	save_failed(s, &err, run_reachable(s->m));
}

/* Much memory takes long; a disk that is as slow as this is a slow one. */
static int64_t save_ms(const struct machine *m)
{
	return SAVE_MS + (int64_t)(m->rec.spec.memory / SAVE_BYTES_PER_MS);
}

static void overdue(struct loop_timer *t)
{
	struct save *s = container_of(t, struct save, deadline);
	struct err err;

	if (s->broke_off)
		err_set(&err, -EIO, NOT_GIVEN_AWAY);
	else
		err_set(&err, -ETIMEDOUT, "QEMU did not give it away within %lld s",
			(long long)save_ms(s->m) / 1000);
	save_failed(s, &err, run_reachable(s->m));
}

void save_lost(struct machine *m, const struct err *why)
{
	if (!m->save || m->save->sent_all)
		return;
	save_failed(m->save, why, false);
	perhaps_done(m->save);		/* what it was asked before will not be answered */
}

/* --- QEMU ------------------------------------------------------------------------ */

static void answered(void *user, const struct cJSON *result, const struct err *err)
{
	struct machine *m = user;

	if (err && m->save)
		save_failed(m->save, err, run_reachable(m));
}

static void take_status(void *user, const struct cJSON *result, const struct err *err)
{
	struct machine *m = user;

	if (!m->save || m->save->sent_all)
		return;
	if (err) {
		save_failed(m->save, err, false);
		perhaps_done(m->save);
	} else if (!strcmp(json_string(result, "status"), "finish-migrate")) {
		look_whether_over(m);
	} else if (m->save->err.code) {
		perhaps_done(m->save);
	} else {
		m->save->sent_all = true;
		perhaps_done(m->save);
		m->save->sent(m);
	}
}

/* QEMU tells that it has sent all a moment before it may go on, and of that it does not tell. */
static void look_whether_over(struct machine *m)
{
	qmp_command(m->qmp, "query-status", NULL, take_status, m);
}

void save_event(struct machine *m, const char *status)
{
	struct save *s = m->save;
	struct err err;

	if (!s || s->sent_all || s->err.code)
		return;
	if (!strcmp(status, "failed") || !strcmp(status, "cancelled")) {
		s->broke_off = true;
		err_set(&err, -EIO, NOT_GIVEN_AWAY);
		if (s->writer)
			loop_timer_set(m->kvm->loop, &s->deadline, GIVE_UP_MS, overdue);
		else
			save_failed(s, &err, run_reachable(m));
	} else if (!strcmp(status, "completed")) {
		look_whether_over(m);
	}
}

static cJSON *parameters(void)
{
	cJSON *j = cJSON_CreateObject();

	/* It stands still meanwhile: without a limit, by one channel. */
	cJSON_AddNumberToObject(j, "max-bandwidth", (double)(1ull << 40));
	return j;
}

static void tell_qemu(struct machine *m, int out)
{
	cJSON *fd = cJSON_CreateObject(), *uri = cJSON_CreateObject();

	cJSON_AddStringToObject(fd, "fdname", "save");
	cJSON_AddStringToObject(uri, "uri", "fd:save");
	news_want_migration(m);
	machine_still(m, true);
	qmp_command(m->qmp, "migrate-set-parameters", parameters(), answered, m);
	qmp_command(m->qmp, "stop", NULL, answered, m);
	qmp_command_fd(m->qmp, "getfd", fd, out, answered, m);
	qmp_command(m->qmp, "migrate", uri, answered, m);
}

/* It may take as much as the machine has; a disk filled to the brim hurts all others. */
static int check_room(const struct machine *m, struct err *err)
{
	struct statvfs fs;
	uint64_t room;

	if (statvfs(m->dir, &fs) < 0)
		return 0;
	room = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (room >= m->rec.spec.memory)
		return 0;
	return err_set(err, -ENOSPC, "saving the memory of %s may take %lluM, and %s has only "
		       "%lluM left", m->rec.name, (unsigned long long)(m->rec.spec.memory / MIB),
		       m->kvm->state_dir, (unsigned long long)(room / MIB));
}

static int begin(struct save *s, struct err *err)
{
	int ends[2], r;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_sys(err, -errno, "cannot make a pipe");
	fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);	/* or as it is */
	r = start_writer(s, ends[0], err);
	close(ends[0]);
	if (r < 0)
		close(ends[1]);
	else
		tell_qemu(s->m, ends[1]);
	return r;
}

int save_start(struct machine *m, const char *layer, void (*sent)(struct machine *),
	       void (*done)(struct machine *, const struct err *), struct err *err)
{
	struct save *s;
	int r;

	if (!run_reachable(m))
		return err_set(err, -EAGAIN, "its QEMU cannot be reached");
	r = check_room(m, err);
	if (r < 0)
		return r;
	s = xcalloc(1, sizeof(*s));
	s->m = m;
	s->sent = sent;
	s->done = done;
	s->folder = layer_folder(m->kvm, layer);
	s->ram = layer_file(m->kvm, layer, LAYER_RAM ".new");
	s->state = layer_file(m->kvm, layer, LAYER_STATE ".new");
	m->save = s;
	loop_timer_set(m->kvm->loop, &s->deadline, save_ms(m), overdue);
	r = begin(s, err);
	if (r < 0)
		save_cancel(m);
	return r;
}
