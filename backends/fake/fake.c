/*
 * The fake backend, for tests: each sandbox is a private sshd on loopback with
 * a folder, a host key and a home of its own. It keeps the promises of
 * backend.h as a real one does (records, adoption, verified destruction) and
 * breaks them on demand (switches.c).
 *
 * What lies below state_dir:
 *	client_key	what the daemon logs in with; host_key too with sharedkey = yes
 *	records/NAME	see record.c
 *	boxes/NAME/	disk/ (what the guest sees as /), console, sshd.log, sessions
 *	control/	see switches.c
 *
 * A sandbox goes by itself from step to step on its timer:
 *	create:  CREATING -> (host key, create_ms) -> BOOTING -> (boot_ms) -> UP or FAILED
 *	stop:    kill until /proc shows no process of it -> (stop_ms) -> STOPPED
 *	restart: BOOTING, as stop -> (boot_ms) -> UP or FAILED
 *	destroy: DESTROYING -> as stop -> (destroy_ms) -> files, then record removed -> gone
 */
#include "fake.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "log.h"
#include "proc.h"

#define KEYGEN_DEADLINE_MS 30000
#define KILL_LOOK_MS 5
#define KILL_DEADLINE_MS 10000
/* A fork may hide from one look at /proc. */
#define CLEAN_LOOKS 2

static void step_begin(struct loop_timer *);
static void step_created(struct loop_timer *);
static void step_up(struct loop_timer *);
static void step_destroy(struct loop_timer *);
static void step_kill(struct loop_timer *);
static void step_told(struct loop_timer *);
static void step_remove(struct loop_timer *);

static struct fake *downcast(struct backend *b)
{
	return container_of(b, struct fake, base);
}

struct box *fake_box(struct fake *f, const char *name)
{
	struct box *box;

	HASH_FIND_STR(f->boxes, name, box);
	return box;
}

static void next(struct box *box, loop_timer_cb *step, int64_t ms)
{
	loop_timer_set(box->fake->loop, &box->timer, ms, step);
}

/* --- states --------------------------------------------------------------- */

static void report(struct box *box, const struct err *why)
{
	struct fake *f = box->fake;
	struct endpoint ep;
	struct err err = ERR_NONE;

	if (box->state == VM_UP && guest_endpoint(box, &ep, &err) < 0)
		log_error("vm=%s %s", box->name, err.text);
	else
		f->events->state(f->user, box->name, box->state,
				 box->state == VM_UP ? &ep : NULL, why);
	if (box->foreign && fake_box(f, box->name) == box) {
		struct vm_about about = { .foreign = true, .tags = "theirs" };

		f->events->about(f->user, box->name, &about);
	}
}

/* Only creating and destroying must be on disk before what follows them. */
static void enter(struct box *box, enum vm_state state, const struct err *why)
{
	struct err err = ERR_NONE;

	box->state = state;
	if (record_write(box, state == VM_DESTROYING, &err) < 0)
		log_error("vm=%s %s", box->name, err.text);
	report(box, why);
}

/* News never come from inside an op. */
static void step_told(struct loop_timer *t)
{
	struct box *box = container_of(t, struct box, timer);

	enter(box, box->state, NULL);
}

static void fail(struct box *box, const struct err *why)
{
	loop_timer_cancel(&box->timer);
	box->why = *why;
	guest_console(box, "failed: %s", why->text);
	enter(box, VM_FAILED, why);
}

static void fail_on_demand(struct box *box, const char *what)
{
	struct err err;

	err_set(&err, -EIO, "%s, as the test asked for", what);
	fail(box, &err);
}

void box_enter(struct box *box, enum vm_state state)
{
	box->state = state;
	next(box, step_told, 0);
}

static void boot(struct box *box)
{
	guest_console(box, "booting image %s", box->spec.image);
	next(box, step_up, switches_of(box->fake, box->name)->boot_ms);
	enter(box, VM_BOOTING, NULL);
}

/* What the switches say about the network of a guest that is up. */
static void apply_network(struct box *box)
{
	const struct switches *sw = switches_of(box->fake, box->name);

	if (sw->refuse || sw->dead)
		guest_refuse(box);
	guest_accept(box, !sw->refuse && !sw->dead && !sw->silent);
}

static void step_up(struct loop_timer *t)
{
	struct box *box = container_of(t, struct box, timer);
	struct err err = ERR_NONE;

	if (switches_of(box->fake, box->name)->fail_boot) {
		fail_on_demand(box, "the guest did not come up");
	} else if (guest_up(box, &err) < 0) {
		fail(box, &err);
	} else {
		apply_network(box);
		guest_console(box, "%s login:", box->name);
		enter(box, VM_UP, NULL);
	}
}

/* --- creation -------------------------------------------------------------- */

static void step_created(struct loop_timer *t)
{
	struct box *box = container_of(t, struct box, timer);

	if (switches_of(box->fake, box->name)->fail_create)
		fail_on_demand(box, "the image could not be unpacked");
	else
		boot(box);
}

static void created(struct box *box)
{
	next(box, step_created, switches_of(box->fake, box->name)->create_ms);
}

static int keygen(struct fake *f, const char *path, proc_cb *done, void *user, struct proc **proc,
		  struct err *err)
{
	const char *const argv[] = { "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "fake",
				     "-f", path, NULL };

	/* What an interrupted one left would make it ask before it overwrites. */
	unlink(path);
	return proc_run(f->loop, argv, KEYGEN_DEADLINE_MS, done, user, proc, err);
}

static void host_key_done(void *user, int status, const char *out, const char *err_out)
{
	struct box *box = user;
	struct err err = ERR_NONE;

	box->keygen = NULL;
	if (box->state != VM_CREATING)
		return;		/* it is being destroyed */
	if (proc_explain(&err, "ssh-keygen", status, err_out) < 0)
		fail(box, &err);
	else
		created(box);
}

static bool has_host_key(const struct box *box)
{
	char *path = guest_host_key_path(box), *pub = xasprintf("%s.pub", path);
	bool there = access(pub, R_OK) == 0;

	free(pub);
	free(path);
	return there;
}

/* Also where creation goes on after a crash. */
static void step_begin(struct loop_timer *t)
{
	struct box *box = container_of(t, struct box, timer);
	struct err err = ERR_NONE;
	char *path;

	enter(box, VM_CREATING, NULL);
	if (box->state != VM_CREATING || !box->fake->keys)
		return;		/* destroyed by who heard of it; or key_done comes back here */
	if (guest_make(box, &err) < 0) {
		fail(box, &err);
		return;
	}
	guest_console(box, "creating %s", box->name);
	if (has_host_key(box)) {
		created(box);
		return;
	}
	path = guest_host_key_path(box);
	if (keygen(box->fake, path, host_key_done, box, &box->keygen, &err) < 0)
		fail(box, &err);
	free(path);
}

static void step_start(struct loop_timer *t)
{
	struct box *box = container_of(t, struct box, timer);

	if (has_host_key(box))
		boot(box);
	else
		step_begin(t);
}

static struct box *box_add(struct fake *f, const char *name)
{
	struct box *box = xcalloc(1, sizeof(*box));

	box->fake = f;
	snprintf(box->name, sizeof(box->name), "%s", name);
	box->dir = xasprintf("%s/boxes/%s", f->dir, name);
	box->sock = -1;
	list_init(&box->conns);
	HASH_ADD_STR(f->boxes, name, box);
	return box;
}

static void box_free(struct box *box)
{
	HASH_DEL(box->fake->boxes, box);
	loop_timer_cancel(&box->timer);
	proc_cancel(box->keygen);
	guest_forget(box);
	extras_free(box);
	free(box->dir);
	free(box);
}

static int fake_create(struct backend *b, const char *name, const struct vm_spec *spec,
		       struct err *err)
{
	struct fake *f = downcast(b);
	struct box *box;
	int r;

	if (f->unusable.code)
		return err_set(err, -ENODEV, "%s", f->unusable.text);
	r = fake_check(b, "image", spec->image, err);
	if (r < 0)
		return r;
	if (strlen(name) >= FAKE_NAME_MAX)
		return err_set(err, -ENAMETOOLONG, "the name is longer than %d bytes",
			       FAKE_NAME_MAX - 1);
	if (fake_box(f, name))
		return err_set(err, -EEXIST, "%s is there already", name);
	box = box_add(f, name);
	box->spec = *spec;
	box->state = VM_CREATING;
	r = record_write(box, true, err);
	if (r < 0)
		box_free(box);
	else
		next(box, step_begin, 0);
	return r;
}

void box_appear(struct fake *f, const char *name)
{
	struct box *box = fake_box(f, name) ? NULL : box_add(f, name);
	struct err err = ERR_NONE;

	if (!box)
		return;
	box->foreign = true;
	box->spec = (struct vm_spec){
		.image = "fake", .cpus = 1, .memory = 1 << 30, .disk = 1 << 30,
	};
	box->state = VM_CREATING;
	if (record_write(box, true, &err) < 0)
		log_error("vm=%s %s", name, err.text);
	next(box, step_begin, 0);
}

/* --- the end --------------------------------------------------------------- */

static void kill_all(struct box *box, enum after after)
{
	loop_timer_cancel(&box->timer);
	proc_cancel(box->keygen);
	box->keygen = NULL;
	box->after = after;
	box->clean = 0;
	box->killing = clock_ms();
	guest_refuse(box);
	next(box, step_kill, 0);
}

static void step_stopped(struct loop_timer *t)
{
	struct box *box = container_of(t, struct box, timer);
	struct err why;

	guest_finish(box);
	guest_console(box, "power down");
	err_set(&why, -ESHUTDOWN, "the guest powered itself off");
	enter(box, VM_STOPPED, box->halted ? &why : NULL);
	box->halted = false;
}

static void step_kill(struct loop_timer *t)
{
	struct box *box = container_of(t, struct box, timer);
	size_t left = guest_signal_all(box, SIGKILL);
	struct err err;

	box->clean = left ? 0 : box->clean + 1;
	if (left && clock_ms() - box->killing > KILL_DEADLINE_MS) {
		err_set(&err, -EBUSY, "%zu processes of %s do not end", left, box->name);
		fail(box, &err);
	} else if (box->had_conns && box->clean < CLEAN_LOOKS) {
		next(box, step_kill, KILL_LOOK_MS);
	} else if (box->after == AFTER_DESTROY) {
		next(box, step_remove, switches_of(box->fake, box->name)->destroy_ms);
	} else if (box->after == AFTER_RESTART) {
		guest_finish(box);
		boot(box);
	} else {
		next(box, step_stopped, switches_of(box->fake, box->name)->stop_ms);
	}
}

/* A guest that reboots is booting from the moment its processes are ended. */
static void step_restart(struct loop_timer *t)
{
	struct box *box = container_of(t, struct box, timer);

	enter(box, VM_BOOTING, NULL);
	if (box->state == VM_BOOTING)
		kill_all(box, AFTER_RESTART);
}

static void step_destroy(struct loop_timer *t)
{
	struct box *box = container_of(t, struct box, timer);

	enter(box, VM_DESTROYING, NULL);
	kill_all(box, AFTER_DESTROY);
}

static void step_remove(struct loop_timer *t)
{
	struct box *box = container_of(t, struct box, timer);
	struct fake *f = box->fake;
	struct err err = ERR_NONE;
	char name[FAKE_NAME_MAX];

	if (switches_of(f, box->name)->fail_destroy) {
		switches_destroy_done(f, box->name);
		fail_on_demand(box, "the sandbox could not be destroyed");
		return;
	}
	if (record_remove_tree(box->dir, &err) < 0 || record_remove(box, &err) < 0) {
		fail(box, &err);
		return;
	}
	memcpy(name, box->name, sizeof(name));
	box_free(box);
	f->events->gone(f->user, name);
}

struct box *fake_find(struct backend *b, const char *name, struct err *err)
{
	struct box *box = fake_box(downcast(b), name);

	if (!box)
		err_set(err, -ENOENT, "the fake backend knows no %s", name);
	return box;
}

static int fake_destroy(struct backend *b, const char *name, struct err *err)
{
	struct box *box = fake_find(b, name, err);

	if (!box)
		return -ENOENT;
	/* One that goes on already ends in gone as well. */
	if (box->state != VM_DESTROYING) {
		box->state = VM_DESTROYING;
		next(box, step_destroy, 0);
	}
	return 0;
}

static int fake_start(struct backend *b, const char *name, struct err *err)
{
	struct box *box = fake_find(b, name, err);

	if (!box)
		return -ENOENT;
	if (box->state != VM_STOPPED && box->state != VM_FAILED)
		return err_set(err, -EBUSY, "%s is not stopped", name);
	next(box, step_start, 0);
	return 0;
}

static int fake_stop(struct backend *b, const char *name, struct err *err)
{
	struct box *box = fake_find(b, name, err);

	if (!box)
		return -ENOENT;
	if (box->state != VM_UP && box->state != VM_BOOTING && box->state != VM_PAUSED)
		return err_set(err, -EBUSY, "%s is not running", name);
	kill_all(box, AFTER_STOP);
	return 0;
}

static int fake_restart(struct backend *b, const char *name, struct err *err)
{
	struct box *box = fake_find(b, name, err);

	if (!box)
		return -ENOENT;
	if (box->state != VM_UP && box->state != VM_BOOTING)
		return err_set(err, -EBUSY, "%s is not running", name);
	next(box, step_restart, 0);
	return 0;
}

/* --- what tests do to it --------------------------------------------------- */

void box_halt(struct box *box)
{
	if (box->state != VM_UP)
		return;
	box->halted = true;
	kill_all(box, AFTER_STOP);
}

static void rearm(struct box *box, loop_timer_cb *step, int64_t before, int64_t now)
{
	if (before != now && loop_timer_is_set(&box->timer) && box->timer.cb == step)
		next(box, step, now);
}

void box_switched(struct box *box, const struct switches *was)
{
	const struct switches *is = switches_of(box->fake, box->name);
	struct err err = ERR_NONE;

	rearm(box, step_created, was->create_ms, is->create_ms);
	rearm(box, step_up, was->boot_ms, is->boot_ms);
	rearm(box, step_stopped, was->stop_ms, is->stop_ms);
	rearm(box, step_remove, was->destroy_ms, is->destroy_ms);
	if (box->state != VM_UP || loop_timer_is_set(&box->timer))
		return;
	if ((is->dead && !was->dead) || is->wrong_host_key != was->wrong_host_key)
		guest_signal_sshd(box, SIGKILL);
	if (is->silent != was->silent)
		guest_signal_sshd(box, is->silent ? SIGSTOP : SIGCONT);
	if (guest_up(box, &err) < 0)	/* listens again, with the sshd_config of now */
		log_error("vm=%s %s", box->name, err.text);
	apply_network(box);
	if (is->wrong_host_key != was->wrong_host_key)
		report(box, NULL);
}

/* --- what is told ----------------------------------------------------------- */

static void fake_info(struct backend *b, const char *name, struct buf *out)
{
	struct box *box = fake_box(downcast(b), name);

	if (!box)
		return;
	buf_printf(out, "image %s\ncpus %u\nmemory %llu\ndisk %llu\nhome /%s\nfolder %s/disk\n",
		   box->spec.image, box->spec.cpus, (unsigned long long)box->spec.memory,
		   (unsigned long long)box->spec.disk, cell_home(), box->dir);
	if (box->sock >= 0)
		buf_printf(out, "port %d\n", box->port);
	extras_info(box, out);
}

static int fake_console(struct backend *b, const char *name)
{
	struct box *box = fake_box(downcast(b), name);
	char *path;
	int fd;

	if (!box)
		return -ENOENT;
	path = guest_console_path(box);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fd = -errno;
	free(path);
	return fd;
}

static void fake_describe(struct backend *b, struct buf *out)
{
	buf_printf(out, "images=fake,debian");
}

/* --- start and end of the backend ------------------------------------------- */

/* Go on with what an earlier daemon left. */
static void adopted(struct box *box)
{
	guest_adopt(box);
	switch (box->state) {
	case VM_CREATING:
	case VM_BOOTING:
		step_begin(&box->timer);
		break;
	case VM_UP:
	case VM_PAUSED:		/* its processes were ended with the daemon's connections */
		step_up(&box->timer);
		break;
	case VM_DESTROYING:
		step_destroy(&box->timer);
		break;
	default:
		report(box, box->state == VM_FAILED ? &box->why : NULL);
	}
}

static void start(struct loop_later *l)
{
	struct fake *f = container_of(l, struct fake, start);
	struct box *box, *tmp;

	if (f->unusable.code)
		f->events->ready(f->user, false, f->unusable.text);
	HASH_ITER(hh, f->boxes, box, tmp)
		adopted(box);
}

/* All names are known when open returns, so that create can refuse them. */
static int load_records(struct fake *f, struct err *err)
{
	char *path = xasprintf("%s/records", f->dir);
	DIR *dir = opendir(path);
	struct dirent *e;
	int r = 0;

	while (r == 0 && dir && (e = readdir(dir))) {
		if (!strchr(e->d_name, '.'))
			r = record_read(box_add(f, e->d_name), err);
		else if (e->d_name[0] != '.')	/* NAME.new of one that was killed */
			unlinkat(dirfd(dir), e->d_name, 0);
	}
	if (dir)
		closedir(dir);
	free(path);
	return r;
}

static int keys_open(struct fake *, struct err *);

static void key_done(void *user, int status, const char *out, const char *err_out)
{
	struct fake *f = user;
	struct err err = ERR_NONE;
	struct box *box, *tmp;

	f->keygen = NULL;
	if (proc_explain(&err, "ssh-keygen", status, err_out) < 0 || keys_open(f, &err) < 0) {
		f->events->ready(f->user, false, err.text);
		return;
	}
	HASH_ITER(hh, f->boxes, box, tmp)
		if (f->keys && box->state == VM_CREATING && !loop_timer_is_set(&box->timer))
			next(box, step_begin, 0);
}

/* The keys that all sandboxes share, made one after the other. */
static int keys_open(struct fake *f, struct err *err)
{
	static const char *const names[] = { "client_key", "host_key" };
	size_t n = f->shared_key ? 2 : 1;
	int r = 0;

	for (size_t i = 0; r == 0 && i < n && !f->keygen; i++) {
		char *path = xasprintf("%s/%s", f->dir, names[i]);
		char *pub = xasprintf("%s.pub", path);

		if (access(pub, R_OK) < 0)
			r = keygen(f, path, key_done, f, &f->keygen, err);
		free(pub);
		free(path);
	}
	f->keys = r == 0 && !f->keygen;
	return r;
}

static int folders_open(struct fake *f, struct err *err)
{
	static const char *const names[] = { "records", "boxes", "control" };
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(names) / sizeof(*names); i++) {
		char *path = xasprintf("%s/%s", f->dir, names[i]);

		if (mkdir(path, 0700) < 0 && errno != EEXIST)
			r = err_sys(err, -errno, "cannot make %s", path);
		free(path);
	}
	return r;
}

static int configure(struct fake *f, const struct backend_conf *conf, struct err *err)
{
	const char *sessions = conf->get(conf, "maxsessions");
	const char *shared = conf->get(conf, "sharedkey");

	f->max_sessions = sessions ? atoi(sessions) : 10;
	if (f->max_sessions < 1)
		return err_set(err, -EINVAL, "maxsessions = %s: a number from 1 is needed",
			       sessions);
	if (shared && strcmp(shared, "yes") && strcmp(shared, "no"))
		return err_set(err, -EINVAL, "sharedkey = %s: yes or no is needed", shared);
	f->shared_key = shared && !strcmp(shared, "yes");
	guest_find_programs(f, conf);
	return 0;
}

static void fake_close(struct backend *b)
{
	struct fake *f = b ? downcast(b) : NULL;
	struct box *box, *tmp;

	if (!f)
		return;
	loop_later_cancel(&f->start);
	proc_cancel(f->keygen);
	HASH_ITER(hh, f->boxes, box, tmp) {
		/* A stopped sshd would never see that its connection has ended. */
		if (switches_of(f, box->name)->silent)
			guest_signal_sshd(box, SIGKILL);
		box_free(box);
	}
	switches_close(f);
	free(f->sshd);
	free(f->sftp_server);
	free(f->dir);
	free(f);
}

static int open_as(const struct backend_ops *ops, struct backend **b, struct loop *loop,
		   const struct backend_conf *conf, const struct backend_events *events,
		   void *user, struct err *err)
{
	struct fake *f = xcalloc(1, sizeof(*f));
	int r;

	f->base.ops = ops;
	f->base.caps = ops->caps;
	f->loop = loop;
	f->events = events;
	f->user = user;
	f->dir = xstrdup(conf->state_dir);
	r = configure(f, conf, err);
	if (r == 0)
		r = folders_open(f, err);
	if (r == 0)
		r = switches_open(f, err);
	if (r == 0)
		r = keys_open(f, err);
	if (r == 0)
		r = load_records(f, err);
	if (r < 0) {
		fake_close(&f->base);
		return r;
	}
	if (r == 0)
		switches_clock(f);
	loop_later(loop, &f->start, start);
	*b = &f->base;
	return 0;
}

static int fake_open(struct backend **b, struct loop *loop, const struct backend_conf *conf,
		     const struct backend_events *events, void *user, struct err *err)
{
	return open_as(&fake_backend_ops, b, loop, conf, events, user, err);
}

static int fake2_open(struct backend **b, struct loop *loop, const struct backend_conf *conf,
		      const struct backend_events *events, void *user, struct err *err)
{
	return open_as(&fake2_backend_ops, b, loop, conf, events, user, err);
}

static const char *const conf_keys[] = { "sshd", "sftp_server", "maxsessions", "sharedkey", NULL };

#define OPS_OF_BOTH \
	.conf_keys	= conf_keys, \
	.draft_keys	= fake_draft_keys, \
	.close		= fake_close, \
	.create		= fake_create, \
	.destroy	= fake_destroy, \
	.start		= fake_start, \
	.stop		= fake_stop, \
	.restart	= fake_restart, \
	.pause		= fake_pause, \
	.resume		= fake_resume, \
	.resize		= fake_resize, \
	.port_open	= fake_port_open, \
	.port_close	= fake_port_close, \
	.port_url	= fake_port_url, \
	.port_keys	= fake_port_keys, \
	.port_get	= fake_port_get, \
	.port_set	= fake_port_set, \
	.rename		= fake_rename, \
	.annotate	= fake_annotate, \
	.check		= fake_check, \
	.info		= fake_info, \
	.console	= fake_console, \
	.describe	= fake_describe,

const struct backend_ops fake_backend_ops = {
	.name		= "fake",
	.caps		= BACKEND_CAP_STOP | BACKEND_CAP_RESTART | BACKEND_CAP_CONSOLE |
			  BACKEND_CAP_PAUSE | BACKEND_CAP_RESIZE | BACKEND_CAP_PORTS |
			  BACKEND_CAP_KEEP | BACKEND_CAP_NETWORK | BACKEND_CAP_LOCAL,
	.open		= fake_open,
	OPS_OF_BOTH
};

/* A second one, for tests of mounts with several: as if it were far away. */
const struct backend_ops fake2_backend_ops = {
	.name		= "fake2",
	.caps		= BACKEND_CAP_STOP | BACKEND_CAP_RESTART | BACKEND_CAP_CONSOLE,
	.default_image	= "fake",
	.open		= fake2_open,
	OPS_OF_BOTH
};
