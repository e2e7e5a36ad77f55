/*
 * sbxfs: options, then the fleet with its backends, then the mount, then the loop; undone in
 * reverse.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "daemon.h"
#include "fleet.h"
#include "flush.h"
#include "loop.h"
#include "options.h"
#include "remove.h"
#include "service.h"
#include "tree.h"

struct daemon {
	struct options options;
	struct loop *loop;
	struct fleet *fleet;
	struct tree *tree;
	int parent;		/* tell the waiting parent; -1 when there is none */
};

static void on_mounted(void *user)
{
	struct daemon *d = user;

	char *status = xasprintf("mounted on %s", d->options.mountpoint);

	log_info("%s", status);
	service_ready(d->loop, status);
	free(status);
	daemon_release_parent(&d->parent, d->options.log_level);
}

static void on_unmounted(void *user)
{
	struct daemon *d = user;

	log_info("unmounted");
	loop_stop(d->loop);
}

static void on_signal(void *user, int signo)
{
	struct daemon *d = user;

	log_info("signal %d: unmounting", signo);
	loop_stop(d->loop);
}

static void use_all_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/*
 * Buffers of a megabyte come and go many times a second: memory that is given back each time
 * must be cleared by the kernel each time it is fetched again.
 */
static void keep_memory(void)
{
	mallopt(M_TRIM_THRESHOLD, 8 << 20);
	mallopt(M_MMAP_THRESHOLD, 4 << 20);
}

static int start(struct daemon *d, struct err *err)
{
	struct options *o = &d->options;
	struct fleet_conf fleet = {
		.state_dir = o->state_dir, .run_dir = o->run_dir, .data_dir = o->data_dir,
		.backends = (const char *const *)o->backends, .defaults = o->defaults,
		.limits = o->limits, .ttl = o->ttl, .idle = o->idle, .overflow = o->overflow,
		.cache = o->cache, .jobs = o->jobs, .get = options_get, .user = o,
	};
	struct tree_conf tree = {
		.mountpoint = o->mountpoint, .options = o->fuse_options, .debug = o->debug_fuse,
		.mounted = on_mounted, .unmounted = on_unmounted, .user = d,
	};
	int r;

	d->loop = loop_create();
	if (!d->loop)
		return err_sys(err, -errno, "cannot make an event loop");
	flush_start(d->loop);
	remove_start(d->loop);
	signal(SIGPIPE, SIG_IGN);
	loop_signal(d->loop, SIGINT, on_signal, d);
	loop_signal(d->loop, SIGTERM, on_signal, d);
	loop_signal(d->loop, SIGHUP, on_signal, d);
	r = mountpoint_prepare(o->mountpoint, err);
	if (r == 0)
		r = fleet_open(&d->fleet, d->loop, &fleet, err);
	if (r == 0)
		r = tree_mount(&d->tree, d->loop, d->fleet, &tree, err);
	return r;
}

static int run(struct daemon *d)
{
	struct err err = ERR_NONE;
	int r;

	umask(077);
	use_all_descriptors();
	keep_memory();
	r = start(d, &err);
	if (r == 0) {
		r = loop_run(d->loop);
		if (r < 0)
			err_sys(&err, r, "the event loop failed");
	}
	service_stopping();
	tree_unmount(d->tree);
	fleet_close(d->fleet);
	flush_finish();
	remove_finish();
	loop_destroy(d->loop);
	if (r < 0)
		fprintf(stderr, "sbxfs: %s\n", err.text);
	return r < 0 ? 1 : 0;
}

int main(int argc, char *argv[])
{
	struct daemon d = { .parent = -1 };
	struct err err = ERR_NONE;
	int status = 0;

	if (options_parse(&d.options, argc, argv, &err) < 0) {
		fprintf(stderr, "sbxfs: %s\n", err.text);
		status = 2;
	} else if (d.options.help) {
		fputs(options_usage, stdout);
	} else if (d.options.version) {
		printf("sbxfs %s\n", SBXFS_VERSION);
	} else {
		log_init(d.options.log_level, false);
		if (!d.options.foreground) {
			/*
			 * Until it is in the background only what went wrong is for the terminal.
			 */
			log_init(LOG_LEVEL_WARN, false);
			d.parent = daemon_fork(d.options.mountpoint);
		}
		status = run(&d);
	}
	options_finish(&d.options);
	return status;
}
