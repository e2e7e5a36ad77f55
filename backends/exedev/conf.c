/* The section [exe.dev] of the configuration, and what the environment adds; called by exedev.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "exe.h"

#define REFRESH_MS 30000
#define SETTLE_MS 45000		/* the service stops a command after 30 s */
#define STAT_MS (10 * 60 * 1000)
#define GAP_MS 1000

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

int exe_take_conf(struct exe *e, const struct backend_conf *conf, struct err *err)
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

/* As curl(1) has it. */
const char *exe_ca_file(const struct backend_conf *conf)
{
	const char *path = conf->get(conf, "ca_file");

	if (!path)
		path = getenv("CURL_CA_BUNDLE");
	if (!path)
		path = getenv("SSL_CERT_FILE");
	return path && *path ? path : NULL;
}
