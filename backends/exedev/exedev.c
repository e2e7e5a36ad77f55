/*
 * The exe.dev backend: sandboxes as VMs of an exe.dev account. This file is the table
 * of ops, and start and end.
 *
 *	conf.c			the configuration
 *	notes.c			the ops for tags, comment and ports
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

#include "buf.h"
#include "exe.h"
#include "http.h"
#include "log.h"
#include "token.h"

extern const struct backend_ops exedev_backend_ops;

struct exe *exe_of(struct backend *b)
{
	return container_of(b, struct exe, base);
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

static int open_control(struct exe *e, const struct backend_conf *conf, struct err *err)
{
	const struct token_conf token = {
		.token_file = conf->get(conf, "token_file"),
		.signing_key = conf->get(conf, "signing_key"),
		.changed = token_changed, .user = e,
	};
	const struct http_conf http = {
		.url = e->api ? e->api : EXE_API, .ca_file = exe_ca_file(conf),
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
	loop_timer_cancel(&e->saver);
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
	r = exe_take_conf(e, conf, err);
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
	r = cvm_record_save(&rec, e->state_dir, false, err);
	if (r < 0)
		return r;
	vm = cvm_add(e, &rec);
	cvm_make_soon(vm);
	return 0;
}

struct cvm *exe_find(struct backend *b, const char *id, struct err *err)
{
	struct cvm *vm = cvm_find(exe_of(b), id);

	if (!vm)
		err_set(err, -ENOENT, "exe.dev knows no %s", id);
	return vm;
}

static int exedev_destroy(struct backend *b, const char *id, struct err *err)
{
	struct cvm *vm = exe_find(b, id, err);
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
	struct cvm *vm = exe_find(b, id, err);

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

int exe_simple(struct backend *b, const char *id, enum api_grant grant, enum cvm_op op,
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
	return exe_simple(b, id, GRANT_RESTART, OP_RESTART, NULL, err);
}

static int exedev_pause(struct backend *b, const char *id, struct err *err)
{
	return exe_simple(b, id, GRANT_PAUSE, OP_PAUSE, NULL, err);
}

static int exedev_resume(struct backend *b, const char *id, struct err *err)
{
	return exe_simple(b, id, GRANT_RESUME, OP_RESUME, NULL, err);
}

static int exedev_rename(struct backend *b, const char *id, const char *name, struct err *err)
{
	return exe_simple(b, id, GRANT_RENAME, OP_RENAME, name, err);
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
	r = exe_simple(b, id, GRANT_RESIZE, OP_RESIZE, text, err);
	free(text);
	return r;
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
	.port_open	= exe_port_open,
	.port_close	= exe_port_close,
	.port_url	= exe_port_url,
	.port_keys	= port_keys,
	.port_get	= exe_port_get,
	.port_set	= exe_port_set,
	.rename		= exedev_rename,
	.annotate	= exe_annotate,
	.check		= exedev_check,
	.info		= exedev_info,
	.describe	= exedev_describe,
};
