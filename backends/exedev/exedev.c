/*
 * The exe.dev backend: sandboxes as VMs of an exe.dev account. This file is the table
 * of ops, the configuration, and start and end.
 *
 *	ask.c, http.c, token.c	requests over HTTPS, one command line each, with a token
 *	api.c			the words of requests and answers
 *	listing.c		what the account has, compared with what is recorded
 *	cvm*.c			one VM: its record, made, asked for things, removed
 *	hostkey.c, secret.c	the pinned host key; memory for secrets
 *
 * Commands and files go over SSH (fs/ssh), never through here.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "exe.h"
#include "http.h"
#include "log.h"
#include "token.h"

#define REFRESH_MS 30000
#define SETTLE_MS 45000		/* the service stops a command after 30 s */
#define STAT_MS (10 * 60 * 1000)
#define GAP_MS 1000
#define COMMENT_MAX 200

extern const struct backend_ops exedev_backend_ops;

static struct exe *exe_of(struct backend *b)
{
	return container_of(b, struct exe, base);
}

/* --- the configuration ---------------------------------------------------- */

static int64_t unit_ms(const char *unit, size_t len)
{
	static const struct { const char *name; int64_t ms; } units[] = {
		{ "", 1000 }, { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 },
		{ "d", 86400000 },
	};

	for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++)
		if (len == strlen(units[i].name) && !strncmp(unit, units[i].name, len))
			return units[i].ms;
	return -1;
}

/* 30s, 1h30m, 500ms; a number alone is seconds. */
static int take_time(const struct backend_conf *conf, const char *key, int64_t *ms, struct err *err)
{
	const char *value = conf->get(conf, key), *p = value;
	int64_t sum = 0;

	if (!value)
		return 0;
	do {
		size_t digits = strspn(p, "0123456789"), len = strcspn(p + digits, "0123456789");
		int64_t unit = unit_ms(p + digits, len);

		if (digits == 0 || digits > 9 || unit < 0)
			return err_set(err, -EINVAL, "[exe.dev] %s = %s: a time is written as "
				       "30s, 10m or 1h30m", key, value);
		sum += atoll(p) * unit;
		p += digits + len;
	} while (*p);
	*ms = sum;
	return 0;
}

static int take_times(struct exe *e, const struct backend_conf *conf, struct err *err)
{
	int64_t gap = GAP_MS;
	int r;

	e->refresh_ms = REFRESH_MS;
	e->settle_ms = SETTLE_MS;
	e->stat_ms = STAT_MS;
	r = take_time(conf, "refresh", &e->refresh_ms, err);
	if (r == 0)
		r = take_time(conf, "settle", &e->settle_ms, err);
	if (r == 0)
		r = take_time(conf, "stat", &e->stat_ms, err);
	if (r == 0)
		r = take_time(conf, "ssh_gap", &gap, err);
	e->gap_ms = (unsigned)gap;
	if (r == 0 && e->refresh_ms < 1000)
		r = err_set(err, -EINVAL, "[exe.dev] refresh is at least 1s: the service limits "
			    "requests");
	return r;
}

static int take_show(struct exe *e, const char *value, struct err *err)
{
	if (!value || !strcmp(value, "all")) {
		e->show = SHOW_ALL;
	} else if (!strcmp(value, "own")) {
		e->show = SHOW_OWN;
	} else if (!strncmp(value, "tag:", 4) && value[4] &&
		   strlen(value + 4) < sizeof(e->show_tag)) {
		e->show = SHOW_TAG;
		strcpy(e->show_tag, value + 4);
	} else {
		return err_set(err, -EINVAL, "[exe.dev] show is all, own or tag:NAME, not \"%s\"",
			       value);
	}
	return 0;
}

static int take_bool(const char *key, const char *value, bool *to, struct err *err)
{
	if (!value || !strcmp(value, "no"))
		*to = false;
	else if (!strcmp(value, "yes"))
		*to = true;
	else
		return err_set(err, -EINVAL, "[exe.dev] %s is yes or no, not \"%s\"", key, value);
	return 0;
}

static char *copy_of(const struct backend_conf *conf, const char *key)
{
	const char *value = conf->get(conf, key);

	return value && *value ? xstrdup(value) : NULL;
}

/* identity, else ~/.ssh/id_exe, else "": the agent. */
static char *find_identity(const struct backend_conf *conf)
{
	const char *home = getenv("HOME");
	char *path = copy_of(conf, "identity");

	if (path)
		return path;
	path = xasprintf("%s/.ssh/id_exe", home ? home : "");
	if (home && access(path, R_OK) == 0)
		return path;
	free(path);
	return xstrdup("");
}

static int take_conf(struct exe *e, const struct backend_conf *conf, struct err *err)
{
	const char *hosts = conf->get(conf, "hosts"), *host = getenv("EXE_VM_HOST");
	int r = take_times(e, conf, err);

	e->state_dir = xstrdup(conf->state_dir);
	e->identity = find_identity(conf);
	e->known_hosts = copy_of(conf, "known_hosts");
	e->login = copy_of(conf, "login");
	e->hosts = xasprintf("%s %s", hosts ? hosts : "", host ? host : "");
	e->api = copy_of(conf, "api");
	if (r == 0)
		r = take_show(e, conf->get(conf, "show"), err);
	if (r == 0)
		r = take_bool("sudo", conf->get(conf, "sudo"), &e->sudo, err);
	if (r == 0 && strlen(e->identity) >= sizeof(((struct endpoint *)0)->identity))
		r = err_set(err, -ENAMETOOLONG, "[exe.dev] identity is too long");
	return r;
}

/* --- start ---------------------------------------------------------------- */

static void token_changed(void *user)
{
	struct exe *e = user;
	struct err err = ERR_NONE;

	if (token_state(e->token, &err) == 0)
		exe_new_token(e);
	asks_go_on(e);
}

/* As curl(1) has it. */
static const char *find_ca_file(const struct backend_conf *conf)
{
	const char *path = conf->get(conf, "ca_file");

	if (!path)
		path = getenv("CURL_CA_BUNDLE");
	if (!path)
		path = getenv("SSL_CERT_FILE");
	return path && *path ? path : NULL;
}

static int open_control(struct exe *e, const struct backend_conf *conf, struct err *err)
{
	const struct token_conf token = {
		.token_file = conf->get(conf, "token_file"),
		.signing_key = conf->get(conf, "signing_key"),
		.changed = token_changed, .user = e,
	};
	const struct http_conf http = {
		.url = e->api ? e->api : EXE_API, .ca_file = find_ca_file(conf),
	};

	e->http = http_create(e->loop, &http, err);
	if (!e->http)
		return -EINVAL;
	e->token = token_create(e->loop, &token);
	/* Inside a VM an integration adds the token: then api is given, and no token. */
	e->needs_token = !(e->api && token_state(e->token, NULL) == -ENOKEY);
	e->control = !(e->needs_token && token_state(e->token, NULL) == -ENOKEY);
	return 0;
}

static void take_record(struct exe *e, const char *path)
{
	struct cvm_record *rec = xcalloc(1, sizeof(*rec));
	struct err err = ERR_NONE;

	if (cvm_record_load(rec, path, &err) < 0)
		log_error("exe.dev: %s", err.text);
	else if (cvm_find(e, rec->id))
		log_error("exe.dev: %s: that id is there twice", path);
	else
		cvm_add(e, rec);
	free(rec);
}

static int take_records(struct exe *e, struct err *err)
{
	DIR *dir = opendir(e->state_dir);
	struct dirent *entry;

	if (!dir)
		return err_sys(err, -errno, "cannot read %s", e->state_dir);
	while ((entry = readdir(dir))) {
		size_t n = strlen(entry->d_name);
		char *path;

		if (n <= 5 || strcmp(entry->d_name + n - 5, ".json"))
			continue;
		path = xasprintf("%s/%s", e->state_dir, entry->d_name);
		take_record(e, path);
		free(path);
	}
	closedir(dir);
	return 0;
}

/* A VM that is known by its address alone: "user@name.exe.xyz:22". */
static void take_host(struct exe *e, const char *text)
{
	struct cvm_record rec = { .phase = CVM_MADE, .foreign = true, .vm.port = 22 };
	struct cvm *known;
	size_t n;

	api_parse_dest(text, rec.vm.host, &rec.vm.port, rec.vm.user);
	n = strspn(rec.vm.host, "abcdefghijklmnopqrstuvwxyz0123456789-");
	if (!rec.vm.host[0] || n == 0 || n > 58) {
		log_warn("exe.dev: hosts: %s is no address of a VM", text);
		return;
	}
	/* Of a numeric address all of it is the name. */
	if (isdigit((unsigned char)rec.vm.host[0]))
		n = strlen(rec.vm.host);
	snprintf(rec.vm.name, sizeof(rec.vm.name), "%s%.*s",
		 isalpha((unsigned char)rec.vm.host[0]) ? "" : "vm-", (int)(n < 58 ? n : 58),
		 rec.vm.host);
	for (char *p = rec.vm.name; *p; p++)
		if (*p == '.' || *p == ':')
			*p = '-';
	snprintf(rec.id, sizeof(rec.id), "exe-%.59s", rec.vm.name);
	known = cvm_find(e, rec.id);
	if (!known)
		cvm_add(e, &rec)->fixed = true;
	else if (strcmp(known->rec.vm.host, rec.vm.host) || known->rec.vm.port != rec.vm.port)
		log_warn("exe.dev: hosts: %s is left out: it would be called %s, as %s is", text,
			 rec.vm.name, known->rec.vm.host);
}

static void take_hosts(struct exe *e)
{
	char *copy = xstrdup(e->hosts), *save = NULL;

	for (char *h = strtok_r(copy, " ,\t", &save); h; h = strtok_r(NULL, " ,\t", &save))
		take_host(e, h);
	free(copy);
}

static void take_stats(struct loop_timer *t)
{
	struct exe *e = container_of(t, struct exe, stats);
	struct cvm *vm, *next;

	HASH_ITER(hh, e->vms, vm, next)
		if (!vm->fixed && vm->rec.phase == CVM_MADE && vm->state == VM_UP &&
		    exe_may(e, GRANT_STAT, NULL) == 0 && list_empty(&vm->tasks))
			cvm_do(vm, OP_STAT, NULL);
	loop_timer_set(e->loop, t, e->stat_ms, take_stats);
}

static void start(struct loop_later *l)
{
	struct exe *e = container_of(l, struct exe, start);
	struct err err = ERR_NONE;
	struct cvm *vm, *next;

	if (!e->control) {
		token_state(e->token, &err);
		exe_tell_ready(e, err.text);
	}
	HASH_ITER(hh, e->vms, vm, next) {
		if (vm->fixed) {
			cvm_tell(vm, VM_UP, true, NULL);
			cvm_tell_about(vm);
		} else {
			cvm_resume(vm);
		}
	}
	exe_find_grants(e);
	if (e->control) {
		exe_list(e, 0);
		if (e->stat_ms)
			loop_timer_set(e->loop, &e->stats, e->stat_ms, take_stats);
	} else {
		HASH_ITER(hh, e->vms, vm, next)
			cvm_unlisted(vm);
	}
}

static void exedev_close(struct backend *b)
{
	struct exe *e = b ? exe_of(b) : NULL;
	struct cvm *vm, *next;

	if (!e)
		return;
	loop_later_cancel(&e->start);
	loop_timer_cancel(&e->stats);
	listing_finish(e);
	HASH_ITER(hh, e->vms, vm, next)
		cvm_free(vm);
	asks_cancel(e);
	hostkeys_finish(e);
	http_destroy(e->http);
	token_destroy(e->token);
	free(e->state_dir);
	free(e->identity);
	free(e->known_hosts);
	free(e->login);
	free(e->hosts);
	free(e->api);
	free(e);
}

static int exedev_open(struct backend **b, struct loop *loop, const struct backend_conf *conf,
		       const struct backend_events *events, void *user, struct err *err)
{
	struct exe *e = xcalloc(1, sizeof(*e));
	int r;

	e->base.ops = &exedev_backend_ops;
	e->loop = loop;
	e->events = events;
	e->user = user;
	list_init(&e->asks);
	list_init(&e->tombs);
	list_init(&e->keys);
	r = take_conf(e, conf, err);
	if (r == 0)
		r = open_control(e, conf, err);
	if (r == 0)
		r = take_records(e, err);
	if (r < 0) {
		exedev_close(&e->base);
		return r;
	}
	take_hosts(e);
	loop_later(loop, &e->start, start);
	*b = &e->base;
	return 0;
}

/* --- create, destroy ------------------------------------------------------ */

static int check_create(struct exe *e, const struct vm_spec *spec, struct err *err)
{
	int r = exe_may(e, spec->from[0] ? GRANT_CP : GRANT_NEW, err);
	struct cvm *vm, *next;

	if (r == 0 && spec->from[0])
		r = exe_may(e, GRANT_TAG, err);
	HASH_ITER(hh, e->vms, vm, next)
		if (r == 0 && !strcmp(vm->rec.vm.name, spec->name) && vm->rec.phase != CVM_FAILED)
			r = err_set(err, -EEXIST, "the account has a VM %s already", spec->name);
	return r;
}

static int exedev_create(struct backend *b, const char *id, const struct vm_spec *spec,
			 struct err *err)
{
	struct exe *e = exe_of(b);
	struct cvm_record rec = { .phase = CVM_NEW, .spec = *spec };
	struct cvm *source = spec->from[0] ? cvm_find(e, spec->from) : NULL;
	struct cvm *vm;
	int r;

	if (cvm_find(e, id))
		return err_set(err, -EEXIST, "there is a sandbox %s already", id);
	r = check_create(e, spec, err);
	if (r < 0)
		return r;
	if (spec->from[0] && (!source || source->fixed || source->rec.phase != CVM_MADE))
		return err_set(err, -ENOENT, "exe.dev has no VM %s to clone", spec->from);
	snprintf(rec.id, sizeof(rec.id), "%s", id);
	snprintf(rec.vm.name, sizeof(rec.vm.name), "%s", spec->name);
	rec.vm.port = 22;
	if (source)
		snprintf(rec.source, sizeof(rec.source), "%s", source->rec.vm.name);
	r = cvm_record_save(&rec, e->state_dir, err);
	if (r < 0)
		return r;
	vm = cvm_add(e, &rec);
	cvm_make_soon(vm);
	return 0;
}

static struct cvm *find(struct backend *b, const char *id, struct err *err)
{
	struct cvm *vm = cvm_find(exe_of(b), id);

	if (!vm)
		err_set(err, -ENOENT, "exe.dev knows no %s", id);
	return vm;
}

static int exedev_destroy(struct backend *b, const char *id, struct err *err)
{
	struct cvm *vm = find(b, id, err);
	int r;

	if (!vm)
		return -ENOENT;
	if (vm->fixed)
		return err_set(err, -EBUSY, "%s is one of the hosts in the configuration: take it "
			       "out there", vm->rec.vm.name);
	r = exe_may(vm->exe, GRANT_RM, err);
	if (r == 0)
		cvm_destroy(vm);
	return r;
}

/* --- what is asked of one that exists ------------------------------------- */

/* The VM, if it may be asked for that; else NULL and *r. */
static struct cvm *find_for(struct backend *b, const char *id, enum api_grant grant, int *r,
			    struct err *err)
{
	struct cvm *vm = find(b, id, err);

	*r = vm ? 0 : -ENOENT;
	if (vm && vm->fixed)
		*r = err_set(err, -EACCES, "%s is known by its address alone: exe.dev is not asked "
			     "about it", vm->rec.vm.name);
	/* Notes on a clone that is being made wait until it is there. */
	if (*r == 0 && vm->rec.phase != CVM_MADE &&
	    !(vm->rec.phase == CVM_NEW && (grant == GRANT_TAG || grant == GRANT_COMMENT)))
		*r = err_set(err, -EBUSY, "%s does not exist yet, or no longer", vm->rec.vm.name);
	if (*r == 0)
		*r = exe_may(vm->exe, grant, err);
	return *r == 0 ? vm : NULL;
}

static int simple(struct backend *b, const char *id, enum api_grant grant, enum cvm_op op,
		  const char *arg, struct err *err)
{
	int r;
	struct cvm *vm = find_for(b, id, grant, &r, err);

	if (vm)
		cvm_do(vm, op, arg);
	return r;
}

static int exedev_restart(struct backend *b, const char *id, struct err *err)
{
	return simple(b, id, GRANT_RESTART, OP_RESTART, NULL, err);
}

static int exedev_pause(struct backend *b, const char *id, struct err *err)
{
	return simple(b, id, GRANT_PAUSE, OP_PAUSE, NULL, err);
}

static int exedev_resume(struct backend *b, const char *id, struct err *err)
{
	return simple(b, id, GRANT_RESUME, OP_RESUME, NULL, err);
}

static int exedev_rename(struct backend *b, const char *id, const char *name, struct err *err)
{
	return simple(b, id, GRANT_RENAME, OP_RENAME, name, err);
}

static int exedev_resize(struct backend *b, const char *id, unsigned cpus, uint64_t memory,
			 uint64_t disk, struct err *err)
{
	struct buf flags = BUF_INIT;
	char number[16], *text;
	int r;

	snprintf(number, sizeof(number), "%u", cpus);
	api_size(&flags, "memory", memory);
	if (cpus)
		api_flag(&flags, "cpu", number);
	api_size(&flags, "disk", disk);
	text = buf_take_string(&flags);
	r = simple(b, id, GRANT_RESIZE, OP_RESIZE, text, err);
	free(text);
	return r;
}

/* --- tags and comment ----------------------------------------------------- */

static int check_tags(const char *tags, struct err *err)
{
	char *copy = xstrdup(tags), *save = NULL;
	int r = 0;

	for (char *t = strtok_r(copy, " ", &save); t && r == 0; t = strtok_r(NULL, " ", &save))
		if (!islower((unsigned char)*t) ||
		    strspn(t, "abcdefghijklmnopqrstuvwxyz0123456789_-") != strlen(t))
			r = err_set(err, -EINVAL, "a tag of exe.dev begins with a letter a-z and "
				    "has a-z, 0-9, _ and -, not \"%s\"", t);
		else if (!strcmp(t, EXE_TAG) || !strncmp(t, EXE_TAG "-", strlen(EXE_TAG) + 1))
			r = err_set(err, -EINVAL, "tags that begin with " EXE_TAG " are its own");
	free(copy);
	return r;
}

static int exedev_annotate(struct backend *b, const char *id, const char *tags, const char *comment,
			   struct err *err)
{
	struct cvm *vm = find(b, id, err);
	int r;

	if (!vm)
		return -ENOENT;
	if (tags && (r = check_tags(tags, err)) < 0)
		return r;
	if (comment && strlen(comment) > COMMENT_MAX)
		return err_set(err, -EINVAL, "a comment at exe.dev has at most %d bytes",
			       COMMENT_MAX);
	r = 0;
	if (vm->rec.phase == CVM_NEW && !vm->ask && !vm->rec.source[0]) {
		/* It is born with them. */
		snprintf(vm->rec.vm.tags, sizeof(vm->rec.vm.tags), "%s", tags ? tags : "");
		snprintf(vm->rec.vm.comment, sizeof(vm->rec.vm.comment), "%s",
			 comment ? comment : "");
		cvm_save(vm);
		return 0;
	}
	if (comment && strcmp(comment, vm->rec.vm.comment))
		r = simple(b, id, GRANT_COMMENT, OP_COMMENT, comment, err);
	/* What has to be added and removed is found out when it is their turn. */
	if (r == 0 && tags)
		r = simple(b, id, GRANT_TAG, OP_TAG, tags, err);
	return r == 0 && tags ? simple(b, id, GRANT_TAG, OP_UNTAG, tags, err) : r;
}

/* --- ports: one is behind the VM's own address, the others have their number  */

static int port_index(const struct cvm *vm, unsigned port)
{
	for (unsigned i = 0; i < vm->rec.port_count; i++)
		if (vm->rec.ports[i] == port)
			return (int)i;
	return -1;
}

static int ask_port(struct backend *b, const char *id, unsigned port, struct err *err)
{
	char number[16];

	snprintf(number, sizeof(number), "%u", port);
	return simple(b, id, GRANT_SHARE_PORT, OP_PORT, number, err);
}

static int exedev_port_open(struct backend *b, const char *id, unsigned port, struct err *err)
{
	struct cvm *vm = find(b, id, err);
	int r;

	if (!vm)
		return -ENOENT;
	if (port_index(vm, port) >= 0)
		return 0;
	if (vm->rec.port_count == CVM_PORTS)
		return err_set(err, -ENOSPC, "at most %d ports are opened", CVM_PORTS);
	r = ask_port(b, id, port, err);
	if (r < 0)
		return r;
	memmove(vm->rec.ports + 1, vm->rec.ports, vm->rec.port_count * sizeof(*vm->rec.ports));
	vm->rec.ports[0] = port;
	vm->rec.port_count++;
	cvm_save(vm);
	return 0;
}

static int exedev_port_close(struct backend *b, const char *id, unsigned port, struct err *err)
{
	struct cvm *vm = find(b, id, err);
	int i, r = 0;

	if (!vm)
		return -ENOENT;
	i = port_index(vm, port);
	if (i < 0)
		return 0;
	if (i == 0 && vm->rec.port_count > 1)
		r = ask_port(b, id, vm->rec.ports[1], err);
	else if (i == 0 && !strcmp(vm->rec.vm.proxy_share, "public"))
		r = simple(b, id, GRANT_SHARE_PRIVATE, OP_PRIVATE, NULL, err);
	if (r < 0)
		return r;
	vm->rec.port_count--;
	memmove(vm->rec.ports + i, vm->rec.ports + i + 1,
		(vm->rec.port_count - (unsigned)i) * sizeof(*vm->rec.ports));
	cvm_save(vm);
	return 0;
}

static int exedev_port_url(struct backend *b, const char *id, unsigned port, struct buf *out)
{
	struct cvm *vm = cvm_find(exe_of(b), id);
	int i = vm ? port_index(vm, port) : -1;

	if (i < 0 || !vm->rec.vm.https_url[0])
		return -ENOENT;
	if (i == 0)
		buf_printf(out, "%s", vm->rec.vm.https_url);
	else if (port >= 3000 && port <= 9999)
		buf_printf(out, "%s:%u", vm->rec.vm.https_url, port);
	else
		return -ENOENT;
	return 0;
}

/* Only what is behind the VM's own address can be shown to everybody. */
static void exedev_port_get(struct backend *b, const char *id, unsigned port, const char *key,
			    struct buf *out)
{
	struct cvm *vm = cvm_find(exe_of(b), id);
	bool first = vm && port_index(vm, port) == 0;

	buf_printf(out, "%s",
		   first && vm->rec.vm.proxy_share[0] ? vm->rec.vm.proxy_share : "private");
}

static int exedev_port_set(struct backend *b, const char *id, unsigned port, const char *key,
			   const char *value, struct err *err)
{
	struct cvm *vm = find(b, id, err);

	if (!vm)
		return -ENOENT;
	if (!strcmp(value, "private") && port_index(vm, port) != 0)
		return 0;
	if (!strcmp(value, "private"))
		return simple(b, id, GRANT_SHARE_PRIVATE, OP_PRIVATE, NULL, err);
	if (strcmp(value, "public"))
		return err_set(err, -EINVAL, "visibility is private or public, not \"%s\"", value);
	if (port_index(vm, port) != 0)
		return err_set(err, -EINVAL, "only the port that was opened last can be public at "
			       "exe.dev: that is %u", vm->rec.port_count ? vm->rec.ports[0] : 0);
	return simple(b, id, GRANT_SHARE_PUBLIC, OP_PUBLIC, NULL, err);
}

/* --- what is told --------------------------------------------------------- */

static void exedev_info(struct backend *b, const char *id, struct buf *out)
{
	const struct cvm *vm = cvm_find(exe_of(b), id);

	if (vm)
		cvm_info(vm, out);
}

static void exedev_describe(struct backend *b, struct buf *out)
{
	struct exe *e = exe_of(b);
	uint64_t requests, limited;

	http_count(e->http, &requests, &limited);
	buf_printf(out, "api=%s token=\"%s\"", e->api ? e->api : EXE_API, token_source(e->token));
	if (e->control) {
		const char *comma = " grants=";

		for (unsigned i = 0; i < GRANT_COUNT; i++)
			if (e->grants & e->grants_known & 1u << i) {
				buf_printf(out, "%s%s", comma, api_grant_names[i]);
				comma = ",";
			}
	}
	buf_printf(out, " vms=%u requests=%llu limited=%llu", HASH_COUNT(e->vms),
		   (unsigned long long)requests, (unsigned long long)limited);
}

static int exedev_check(struct backend *b, const char *key, const char *value, struct err *err)
{
	if (!strcmp(key, "image") && (strpbrk(value, " \t\n'\"\\") || value[0] == '-'))
		return err_set(err, -EINVAL, "an image of exe.dev is exeuntu or the reference of a "
			       "container image, such as ubuntu:24.04");
	if (!strcmp(key, "integrations") && strpbrk(value, "\n'\"\\"))
		return err_set(err, -EINVAL, "integrations are names, separated by commas");
	return 0;
}

static const char *const conf_keys[] = {
	"api", "token_file", "signing_key", "identity", "known_hosts", "ca_file", "show", "hosts",
	"sudo", "login", "refresh", "settle", "stat", "ssh_gap", NULL,
};
static const char *const port_keys[] = { "visibility", NULL };
static const char *const draft_keys[] = { "integrations", NULL };

const struct backend_ops exedev_backend_ops = {
	.name		= "exe.dev",
	.conf_keys	= conf_keys,
	.draft_keys	= draft_keys,
	.default_image	= "exeuntu",
	.own_sizes	= true,
	.caps		= BACKEND_CAP_RESTART | BACKEND_CAP_PAUSE | BACKEND_CAP_CLONE |
			  BACKEND_CAP_PORTS | BACKEND_CAP_RESIZE,
	.open		= exedev_open,
	.close		= exedev_close,
	.create		= exedev_create,
	.destroy	= exedev_destroy,
	.restart	= exedev_restart,
	.pause		= exedev_pause,
	.resume		= exedev_resume,
	.resize		= exedev_resize,
	.port_open	= exedev_port_open,
	.port_close	= exedev_port_close,
	.port_url	= exedev_port_url,
	.port_keys	= port_keys,
	.port_get	= exedev_port_get,
	.port_set	= exedev_port_set,
	.rename		= exedev_rename,
	.annotate	= exedev_annotate,
	.check		= exedev_check,
	.info		= exedev_info,
	.describe	= exedev_describe,
};
