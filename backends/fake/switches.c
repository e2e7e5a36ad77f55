/*
 * What tests can make go wrong, while it runs and before a sandbox is there.
 *
 * dir/control is a letter box: a test puts a file NAME there (written beside
 * under a name that begins with a dot, and renamed), one order a line. The file
 * disappears when all of it has been done: that is the acknowledgement.
 *
 *	create MS, boot MS, stop MS, destroy MS	how long it takes; setting it again while it
 *					goes on begins the wait anew
 *	failcreate, failboot		ends in VM_FAILED
 *	faildestroy			the next destroy ends in VM_FAILED, only that one
 *	refuse		connections are refused; those that are there go on
 *	silent		the network swallows everything: sshd is stopped, nobody accepts
 *	dead		every connection is cut, further ones are refused; the VM stays UP
 *	cut		every connection is cut, further ones are welcome
 *	wronghostkey	sshd shows another key than the one that the endpoint pins
 *	halt		the guest powers itself off: VM_STOPPED
 *	maxsessions N	of connections made from now on
 *	port N		where the guest listens from its next boot on, or the daemon's next start
 *	via N		the port that is told instead of it: of a relay, which leads there
 *	appear		a VM of that name is there that sbxfs has not made
 *	revive		all of this back to normal
 *
 * The file @clock takes `advance MS`: the wall clock of this state folder is so much
 * further ahead of the real one, also for the daemons that come after.
 */
#include "fake.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "buf.h"
#include "log.h"

const struct switches *switches_of(struct fake *f, const char *name)
{
	static const struct switches normal;
	struct switches *sw;

	HASH_FIND_STR(f->switches, name, sw);
	return sw ? sw : &normal;
}

static struct switches *switches_get(struct fake *f, const char *name)
{
	struct switches *sw;

	HASH_FIND_STR(f->switches, name, sw);
	if (!sw) {
		sw = xcalloc(1, sizeof(*sw));
		snprintf(sw->name, sizeof(sw->name), "%s", name);
		HASH_ADD_STR(f->switches, name, sw);
	}
	return sw;
}

void switches_destroy_done(struct fake *f, const char *name)
{
	switches_get(f, name)->fail_destroy = false;
}

static void revive(struct switches *sw)
{
	struct switches normal = { .hh = sw->hh };

	memcpy(normal.name, sw->name, sizeof(normal.name));
	*sw = normal;
}

static bool set_number(struct switches *sw, const char *word, const char *value)
{
	long n = strtol(value, NULL, 10);

	if (!strcmp(word, "create"))
		sw->create_ms = n;
	else if (!strcmp(word, "boot"))
		sw->boot_ms = n;
	else if (!strcmp(word, "stop"))
		sw->stop_ms = n;
	else if (!strcmp(word, "destroy"))
		sw->destroy_ms = n;
	else if (!strcmp(word, "maxsessions"))
		sw->max_sessions = (int)n;
	else if (!strcmp(word, "port"))
		sw->port = (int)n;
	else if (!strcmp(word, "via"))
		sw->via = (int)n;
	else
		return false;
	return true;
}

static bool set_flag(struct switches *sw, const char *word)
{
	if (!strcmp(word, "failcreate"))
		sw->fail_create = true;
	else if (!strcmp(word, "failboot"))
		sw->fail_boot = true;
	else if (!strcmp(word, "faildestroy"))
		sw->fail_destroy = true;
	else if (!strcmp(word, "refuse"))
		sw->refuse = true;
	else if (!strcmp(word, "silent"))
		sw->silent = true;
	else if (!strcmp(word, "dead"))
		sw->dead = true;
	else if (!strcmp(word, "wronghostkey"))
		sw->wrong_host_key = true;
	else if (!strcmp(word, "revive"))
		revive(sw);
	else
		return false;
	return true;
}

static void clock_save(const struct fake *f)
{
	char *path = xasprintf("%s/clock", f->dir), *beside = xasprintf("%s.new", path);
	FILE *out = fopen(beside, "we");

	if (!out || fprintf(out, "%lld\n", (long long)f->ahead) < 0 || fclose(out) != 0 ||
	    rename(beside, path) < 0)
		log_error("the clock's file %s cannot be written", path);
	free(beside);
	free(path);
}

void switches_clock(struct fake *f)
{
	char *path = xasprintf("%s/clock", f->dir);
	FILE *in = fopen(path, "re");
	long long ahead;

	if (in && fscanf(in, "%lld", &ahead) == 1) {
		f->ahead = ahead;
		wall_shift(f->ahead);
	}
	if (in)
		fclose(in);
	free(path);
}

static void obey_clock(struct fake *f, const char *order)
{
	long long ms;

	if (sscanf(order, "advance %lld", &ms) != 1) {
		log_error("the clock knows no order %s", order);
		return;
	}
	f->ahead += ms;
	clock_save(f);
	wall_shift(f->ahead);
}

static void obey(struct fake *f, const char *name, char *order)
{
	struct switches *sw = switches_get(f, name), before = *sw;
	char *value = strchr(order, ' ');
	struct box *box = fake_box(f, name);

	if (value)
		*value++ = 0;
	if (!strcmp(order, "appear")) {
		box_appear(f, name);
	} else if (!strcmp(order, "halt")) {
		if (box)
			box_halt(box);
	} else if (!strcmp(order, "cut")) {
		if (box)
			guest_signal_sshd(box, SIGKILL);
	} else if (value ? set_number(sw, order, value) : set_flag(sw, order)) {
		if (box)
			box_switched(box, &before);
	} else {
		log_error("vm=%s the fake backend knows no order %s", name, order);
	}
}

static void take_letter(struct fake *f, const char *name)
{
	char *path = xasprintf("%s/control/%s", f->dir, name);
	FILE *in = fopen(path, "re");
	char order[128];

	while (in && fgets(order, sizeof(order), in)) {
		order[strcspn(order, "\n")] = 0;
		if (order[0] && !strcmp(name, "@clock"))
			obey_clock(f, order);
		else if (order[0])
			obey(f, name, order);
	}
	if (in) {
		fclose(in);
		unlink(path);
	}
	free(path);
}

static void take_letters(struct fake *f)
{
	char *path = xasprintf("%s/control", f->dir);
	DIR *dir = opendir(path);
	struct dirent *e;

	while (dir && (e = readdir(dir)))
		if (e->d_name[0] != '.' && strlen(e->d_name) < FAKE_NAME_MAX)
			take_letter(f, e->d_name);
	if (dir)
		closedir(dir);
	free(path);
}

static void control_changed(struct loop_fd *fd, uint32_t events)
{
	struct fake *f = container_of(fd, struct fake, control);
	char news[4096];

	/* What happened is not looked at: the folder tells it. */
	while (read(fd->fd, news, sizeof(news)) > 0)
		;
	take_letters(f);
}

int switches_open(struct fake *f, struct err *err)
{
	char *path = xasprintf("%s/control", f->dir);
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	int r = fd < 0 ? -errno : 0;

	if (r == 0 && inotify_add_watch(fd, path, IN_MOVED_TO) < 0)
		r = -errno;
	if (r == 0)
		r = loop_fd_add(f->loop, &f->control, fd, EPOLLIN, control_changed);
	if (r < 0) {
		err_sys(err, r, "cannot watch %s", path);
		if (fd >= 0)
			close(fd);
	} else {
		take_letters(f);
	}
	free(path);
	return r;
}

void switches_close(struct fake *f)
{
	int fd = f->control.fd;
	struct switches *sw, *tmp;

	if (f->control.loop) {
		loop_fd_del(&f->control);
		close(fd);
	}
	HASH_ITER(hh, f->switches, sw, tmp) {
		HASH_DEL(f->switches, sw);
		free(sw);
	}
}
