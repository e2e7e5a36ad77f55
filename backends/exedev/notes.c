/*
 * Tags, comment and ports of a VM: ops of exedev.c's table. What is asked for goes to the
 * service by cvm_do; what is remembered beside it stands in the record.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "exe.h"

#define COMMENT_MAX 200

/* --- tags and comment ------------------------------------------------------------------ */

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

int exe_annotate(struct backend *b, const char *id, const char *tags, const char *comment,
			   struct err *err)
{
	struct cvm *vm = exe_find(b, id, err);
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
		r = exe_simple(b, id, GRANT_COMMENT, OP_COMMENT, comment, err);
	/* What has to be added and removed is found out when it is their turn. */
	if (r == 0 && tags)
		r = exe_simple(b, id, GRANT_TAG, OP_TAG, tags, err);
	return r == 0 && tags ? exe_simple(b, id, GRANT_TAG, OP_UNTAG, tags, err) : r;
}

/* --- ports: one is behind the VM's own address, the others have their number ----------- */

static int port_index(const struct cvm *vm, unsigned port)
{
	for (unsigned i = 0; i < vm->rec.port_count; i++)
		if (vm->rec.ports[i] == port)
			return (int)i;
	return -1;
}

/* Will another port than that be shown to everybody, when all is done that was asked for? */
static bool other_is_public(const struct cvm *vm, unsigned port)
{
	bool public = !strcmp(vm->rec.vm.proxy_share, "public");
	int behind = vm->rec.vm.proxy_port;

	list_for_each(t, &vm->tasks, struct cvm_task, link) {
		if (t->op == OP_PUBLIC || t->op == OP_PRIVATE)
			public = t->op == OP_PUBLIC;
		if (t->op == OP_PORT)
			behind = atoi(t->arg);
	}
	return public && behind != (int)port;
}

/* Put that port behind its own address. "public" was said of another one: it ends before. */
static int ask_port(struct cvm *vm, const char *id, unsigned port, struct err *err)
{
	struct backend *b = &vm->exe->base;
	char number[16];
	int r = exe_may(vm->exe, GRANT_SHARE_PORT, err);

	snprintf(number, sizeof(number), "%u", port);
	if (r == 0 && other_is_public(vm, port))
		r = exe_simple(b, id, GRANT_SHARE_PRIVATE, OP_PRIVATE, NULL, err);
	return r < 0 ? r : exe_simple(b, id, GRANT_SHARE_PORT, OP_PORT, number, err);
}

int exe_port_open(struct backend *b, const char *id, unsigned port, struct err *err)
{
	struct cvm *vm = exe_find(b, id, err);
	int r;

	if (!vm)
		return -ENOENT;
	if (port_index(vm, port) >= 0)
		return 0;
	if (vm->rec.port_count == CVM_PORTS)
		return err_set(err, -ENOSPC, "at most %d ports are opened", CVM_PORTS);
	r = ask_port(vm, id, port, err);
	if (r < 0)
		return r;
	memmove(vm->rec.ports + 1, vm->rec.ports, vm->rec.port_count * sizeof(*vm->rec.ports));
	vm->rec.ports[0] = port;
	vm->rec.port_count++;
	cvm_save(vm);
	return 0;
}

int exe_port_close(struct backend *b, const char *id, unsigned port, struct err *err)
{
	struct cvm *vm = exe_find(b, id, err);
	int i, r = 0;

	if (!vm)
		return -ENOENT;
	i = port_index(vm, port);
	if (i < 0)
		return 0;
	if (i == 0 && vm->rec.port_count > 1)
		r = ask_port(vm, id, vm->rec.ports[1], err);
	else if (i == 0 && other_is_public(vm, 0))
		r = exe_simple(b, id, GRANT_SHARE_PRIVATE, OP_PRIVATE, NULL, err);
	if (r < 0)
		return r;
	vm->rec.port_count--;
	memmove(vm->rec.ports + i, vm->rec.ports + i + 1,
		(vm->rec.port_count - (unsigned)i) * sizeof(*vm->rec.ports));
	cvm_save(vm);
	return 0;
}

int exe_port_url(struct backend *b, const char *id, unsigned port, struct buf *out)
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
void exe_port_get(struct backend *b, const char *id, unsigned port, const char *key,
			    struct buf *out)
{
	struct cvm *vm = cvm_find(exe_of(b), id);
	bool first = vm && port_index(vm, port) == 0;

	buf_printf(out, "%s",
		   first && vm->rec.vm.proxy_share[0] ? vm->rec.vm.proxy_share : "private");
}

int exe_port_set(struct backend *b, const char *id, unsigned port, const char *key,
			   const char *value, struct err *err)
{
	struct cvm *vm = exe_find(b, id, err);

	if (!vm)
		return -ENOENT;
	if (!strcmp(value, "private") && port_index(vm, port) != 0)
		return 0;
	if (!strcmp(value, "private"))
		return exe_simple(b, id, GRANT_SHARE_PRIVATE, OP_PRIVATE, NULL, err);
	if (strcmp(value, "public"))
		return err_set(err, -EINVAL, "visibility is private or public, not \"%s\"", value);
	if (port_index(vm, port) != 0)
		return err_set(err, -EINVAL, "only the port that was opened last can be public at "
			       "exe.dev: that is %u", vm->rec.port_count ? vm->rec.ports[0] : 0);
	return exe_simple(b, id, GRANT_SHARE_PUBLIC, OP_PUBLIC, NULL, err);
}
