/*
 * Which host key is pinned: the one that exe.dev publishes for itself and all VMs
 * (https://exe.dev/docs/faq/host-key), or with known_hosts = FILE what that file has for
 * the host, as ssh-keygen -F reads it (patterns, hashed names, ports).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "exe.h"
#include "log.h"
#include "proc.h"

#define LOOKUP_MS 10000

static const char published[] =
	"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQDEKtEcRW8OBtro5B/MG+EaisD+ZVwwHFa5m7M8wFwBlMmP"
	"JJssY+1aGBRW3b9InAeCnTU2Kt7gazqbg/9od1KnK6x5piQNVQZ4C/lrjsC2ScBrOydnw9ry9G2+voFCAk+d"
	"QGabIrIT6gqqDJNOqxgFiG/lA3Xx6KwpfwI2BH5f3ab2fHCR2BGAC5jlB2RJXPgly80hMxYEHqexhJxYRwC+"
	"deeLrQSG795we9rSzPmdz58t9+9jLTKkyyqWKe/hmBvty1AYrEmRsefu6/TUrIGi/UWJfa+RBIQtFgWqN6xT"
	"1F6rRwELeVOfwwr5tZbsmgWY5frZU3EOtVWcF7Ve3gfL";

struct host_key {
	struct list link;
	struct exe *exe;
	char *host;		/* as ssh-keygen -F wants it: "host" or "[host]:port" */
	char *key;		/* "" when the file has none; NULL: being looked up */
	struct proc *proc;
};

/* The first line that is no comment and no marker: "patterns type key". */
static char *first_key(const char *out)
{
	char *copy = xstrdup(out), *save = NULL, *key = NULL;

	for (char *l = strtok_r(copy, "\n", &save); l && !key; l = strtok_r(NULL, "\n", &save)) {
		char *words = NULL, *type, *data;

		if (*l == '#' || *l == '@' || !strtok_r(l, " \t", &words))
			continue;
		type = strtok_r(NULL, " \t", &words);
		data = strtok_r(NULL, " \t", &words);
		if (type && data)
			key = xasprintf("%s %s", type, data);
	}
	free(copy);
	return key ? key : xstrdup("");
}

static void looked_up(void *user, int status, const char *out, const char *err_out)
{
	struct host_key *k = user;
	struct cvm *vm, *next;

	k->proc = NULL;
	k->key = first_key(status == 0 ? out : "");
	if (!k->key[0])
		log_warn("exe.dev: %s has no key of %s", k->exe->known_hosts, k->host);
	HASH_ITER(hh, k->exe->vms, vm, next)
		cvm_key_came(vm);
}

static void look_up(struct host_key *k)
{
	const char *argv[] = { "ssh-keygen", "-F", k->host, "-f", k->exe->known_hosts, NULL };
	struct err err = ERR_NONE;

	if (proc_run(k->exe->loop, argv, LOOKUP_MS, looked_up, k, &k->proc, &err) < 0) {
		log_error("exe.dev: %s", err.text);
		k->key = xstrdup("");
	}
}

const char *exe_host_key(struct exe *e, const char *host, int port)
{
	char *name;
	struct host_key *k;

	if (!e->known_hosts)
		return published;
	name = port == 22 ? xstrdup(host) : xasprintf("[%s]:%d", host, port);
	list_for_each(known, &e->keys, struct host_key, link)
		if (!strcmp(known->host, name)) {
			free(name);
			return known->key;
		}
	k = xcalloc(1, sizeof(*k));
	k->exe = e;
	k->host = name;
	list_add_tail(&e->keys, &k->link);
	look_up(k);
	return k->key;
}

void hostkeys_finish(struct exe *e)
{
	list_for_each_safe(k, &e->keys, struct host_key, link) {
		list_del(&k->link);
		proc_cancel(k->proc);
		free(k->host);
		free(k->key);
		free(k);
	}
}
