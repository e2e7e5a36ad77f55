/*
 * Drives the KVM backend alone, without a mount: for test_backend.py.
 *
 *	drive STATE RUN DATA [KEY=VALUE...]
 *
 * opens the backend on these three folders, with keys of its section of the
 * config, and obeys the lines that come on standard input:
 *
 *	create NAME IMAGE CPUS MEMORY DISK [off]	(in bytes; off: without network)
 *	clone NAME FROM [SNAPSHOT]
 *	destroy NAME	start NAME	stop NAME	restart NAME
 *	pause NAME	resume NAME	suspend NAME	snapshots NAME
 *	snapshot NAME SNAPSHOT	drop NAME SNAPSHOT	restore NAME SNAPSHOT
 *	open NAME PORT	close NAME PORT	url NAME PORT
 *	info NAME	console NAME	describe	quit
 *
 * Standard output says, a line each: what was answered ("ok" or "error CODE
 * SENTENCE", before it for info and describe the text), and all events:
 * "state NAME WORD [HOST PORT USER IDENTITY HOSTKEY | SENTENCE]", "gone NAME",
 * "ready 0|1 SENTENCE", "trouble NAME OPERATION SENTENCE", "changed NAME".
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "backend.h"
#include "buf.h"
#include "loop.h"

extern const struct backend_ops kvm_backend_ops;

static struct loop *loop;
static struct backend *backend;
static char **keys;

static const char *const words[] = {
	[VM_CREATING] = "creating", [VM_BOOTING] = "booting", [VM_UP] = "up",
	[VM_PAUSED] = "paused",	    [VM_STOPPED] = "stopped", [VM_DESTROYING] = "destroying",
	[VM_FAILED] = "failed",
};

static void on_state(void *user, const char *name, enum vm_state state, const struct endpoint *ep,
		     const struct err *err)
{
	printf("state %s %s", name, words[state]);
	if (ep && state == VM_UP)
		printf(" %s %d %s %s %s", ep->host, ep->port, ep->user, ep->identity, ep->host_key);
	if (err)
		printf(" %s", err->text);
	printf("\n");
}

static void on_gone(void *user, const char *name)
{
	printf("gone %s\n", name);
}

static void on_ready(void *user, bool ready, const char *why)
{
	printf("ready %d %s\n", ready, why);
}

static void on_trouble(void *user, const char *name, const char *operation, const struct err *err)
{
	printf("trouble %s %s %s\n", name, operation, err->text);
}

static void on_still(void *user, const char *name, bool still)
{
	printf("still %s %d\n", name, still);
}

static void on_changed(void *user, const char *name)
{
	printf("changed %s\n", name);
}

static const struct backend_events events = {
	.state = on_state, .gone = on_gone, .ready = on_ready, .trouble = on_trouble,
	.changed = on_changed, .still = on_still,
};

static const char *get_key(const struct backend_conf *conf, const char *key)
{
	size_t len = strlen(key);

	for (char **k = keys; *k; k++)
		if (!strncmp(*k, key, len) && (*k)[len] == '=')
			return *k + len + 1;
	return NULL;
}

static void answer(int r, const struct err *err)
{
	if (r < 0)
		printf("error %d %s\n", r, err->text);
	else
		printf("ok\n");
}

static void show(void (*fill)(struct buf *, const char *), const char *name)
{
	struct buf text = BUF_INIT;

	fill(&text, name);
	printf("%.*s\nok\n", (int)buf_size(&text), (char *)buf_peek(&text));
	buf_finish(&text);
}

static void fill_info(struct buf *out, const char *name)
{
	kvm_backend_ops.info(backend, name, out);
}

static void fill_describe(struct buf *out, const char *name)
{
	kvm_backend_ops.describe(backend, out);
}

static void fill_console(struct buf *out, const char *name)
{
	int fd = kvm_backend_ops.console(backend, name);
	ssize_t n;

	buf_printf(out, "console %d\n", fd < 0 ? fd : 0);
	while (fd >= 0 && (n = read(fd, buf_reserve(out, 4096), 4096)) > 0)
		buf_commit(out, (size_t)n);
	if (fd >= 0)
		close(fd);
}

static void print_snapshot(void *user, const struct vm_snapshot *s)
{
	buf_printf(user, "%s %lld %llu %d\n", s->name, (long long)s->taken,
		   (unsigned long long)s->size, s->ready);
}

static void fill_snapshots(struct buf *out, const char *name)
{
	kvm_backend_ops.snapshots(backend, name, print_snapshot, out);
}

/* Verbs of a name, and of a name and a snapshot's. */
static bool obey_verb(const char *verb, const char *name, const char *snapshot)
{
	const struct backend_ops *o = &kvm_backend_ops;
	const struct {
		const char *verb;
		int (*op)(struct backend *, const char *, struct err *);
		int (*of_snapshot)(struct backend *, const char *, const char *, struct err *);
	} verbs[] = {
		{ "destroy", o->destroy, NULL }, { "start", o->start, NULL },
		{ "stop", o->stop, NULL }, { "restart", o->restart, NULL },
		{ "pause", o->pause, NULL }, { "resume", o->resume, NULL },
		{ "suspend", o->suspend, NULL }, { "snapshot", NULL, o->snapshot },
		{ "drop", NULL, o->snapshot_drop }, { "restore", NULL, o->restore },
	};
	struct err err = ERR_NONE;

	for (size_t i = 0; i < sizeof(verbs) / sizeof(*verbs); i++)
		if (!strcmp(verbs[i].verb, verb)) {
			answer(verbs[i].op ? verbs[i].op(backend, name, &err) :
			       verbs[i].of_snapshot(backend, name, snapshot, &err), &err);
			return true;
		}
	return false;
}

/* Verbs of a name and a port of the guest. */
static bool obey_port(const char *verb, const char *name, unsigned port)
{
	const struct backend_ops *o = &kvm_backend_ops;
	struct err err = ERR_NONE;
	struct buf url = BUF_INIT;

	if (!strcmp(verb, "open")) {
		answer(o->port_open(backend, name, port, &err), &err);
	} else if (!strcmp(verb, "close")) {
		answer(o->port_close(backend, name, port, &err), &err);
	} else if (!strcmp(verb, "url")) {
		o->port_url(backend, name, port, &url);
		printf("%.*s\nok\n", (int)buf_size(&url), (char *)buf_peek(&url));
		buf_finish(&url);
	} else {
		return false;
	}
	return true;
}

static void obey_create(const char *name, struct vm_spec *spec)
{
	struct err err = ERR_NONE;

	snprintf(spec->name, sizeof(spec->name), "%s", name);
	answer(kvm_backend_ops.create(backend, name, spec, &err), &err);
}

static void obey(char *line)
{
	struct vm_spec spec = { .tag = "test" };
	char verb[16] = "", name[64] = "", snapshot[64] = "", network[8] = "";
	unsigned long long memory, disk;

	if (sscanf(line, "create %63s %63s %u %llu %llu %7s", name, spec.image, &spec.cpus, &memory,
		   &disk, network) >= 5) {
		spec.no_network = !strcmp(network, "off");
		spec.memory = memory;
		spec.disk = disk;
		obey_create(name, &spec);
		return;
	}
	if (sscanf(line, "clone %63s %63s %63s", name, spec.from, spec.from_snapshot) >= 2) {
		obey_create(name, &spec);
		return;
	}
	sscanf(line, "%15s %63s %63s", verb, name, snapshot);
	if (obey_verb(verb, name, snapshot) || obey_port(verb, name, (unsigned)atoi(snapshot)))
		return;
	if (!strcmp(verb, "info"))
		show(fill_info, name);
	else if (!strcmp(verb, "describe"))
		show(fill_describe, name);
	else if (!strcmp(verb, "console"))
		show(fill_console, name);
	else if (!strcmp(verb, "snapshots"))
		show(fill_snapshots, name);
	else if (!strcmp(verb, "quit"))
		loop_stop(loop);
	else
		printf("error %d no such command\n", -EINVAL);
}

static void on_input(struct loop_fd *f, uint32_t what)
{
	static struct buf in;
	ssize_t n = read(f->fd, buf_reserve(&in, 4096), 4096);
	uint8_t *end;

	if (n <= 0) {
		loop_stop(loop);
		return;
	}
	buf_commit(&in, (size_t)n);
	while (buf_size(&in) && (end = memchr(buf_peek(&in), '\n', buf_size(&in)))) {
		*end = '\0';
		obey((char *)buf_peek(&in));
		buf_consume(&in, (size_t)(end - buf_peek(&in)) + 1);
	}
}

int main(int argc, char **argv)
{
	struct backend_conf conf = { .get = get_key };
	struct loop_fd input = { 0 };
	struct err err;

	if (argc < 4)
		return 2;
	conf.state_dir = argv[1];
	conf.run_dir = argv[2];
	conf.data_dir = argv[3];
	keys = argv + 4;
	setvbuf(stdout, NULL, _IOLBF, 0);
	loop = loop_create();
	if (!loop)
		return 1;
	if (kvm_backend_ops.open(&backend, loop, &conf, &events, NULL, &err) < 0) {
		printf("error %d %s\n", err.code, err.text);
		return 1;
	}
	loop_fd_add(loop, &input, STDIN_FILENO, EPOLLIN, on_input);
	loop_run(loop);
	loop_fd_del(&input);
	kvm_backend_ops.close(backend);
	loop_destroy(loop);
	return 0;
}
