/* argv and the config file into struct options; see sbxfs(1) and sbxfs.conf(5). */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <ini.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "facts.h"

const char options_usage[] =
	"usage: sbxfs [-fdhV] [-c CONFIG] [-o OPTION[,OPTION...]] MOUNTPOINT\n"
	"\n"
	"  -f           stay in the foreground and log to standard error\n"
	"  -d           the same, with debugging messages\n"
	"  -c CONFIG    the config file (else ~/.config/sbxfs/config, /etc/sbxfs/config)\n"
	"  -o OPTIONS   log=error|warn|info|debug, fuse_debug, or options of mount such as\n"
	"               allow_other\n"
	"  -h, -V       this help, the version\n"
	"\n"
	"Then: mkdir MOUNTPOINT/NAME; cat MOUNTPOINT/.sbxfs/README\n"
	"To end it: fusermount3 -u MOUNTPOINT (the sandboxes stay)\n";

/* --- folders --------------------------------------------------------------------- */

static const char *home(void)
{
	const char *dir = getenv("HOME");
	struct passwd *pw;

	if (dir && *dir == '/')
		return dir;
	pw = getpwuid(getuid());
	return pw && pw->pw_dir ? pw->pw_dir : "/";
}

static char *xdg_dir(const char *variable, const char *below_home)
{
	const char *dir = getenv(variable);

	return dir && *dir == '/' ? xasprintf("%s/sbxfs", dir) :
				    xasprintf("%s/%s/sbxfs", home(), below_home);
}

/* Sockets have short paths: not below a deep state folder if that can be helped. */
static char *runtime_dir(void)
{
	const char *dir = getenv("XDG_RUNTIME_DIR");

	if (dir && *dir == '/')
		return xasprintf("%s/sbxfs", dir);
	return getuid() == 0 ? xstrdup("/run/sbxfs") : xasprintf("/tmp/sbxfs-%u", getuid());
}

/* In /tmp anybody could have made it first. */
static int check_private(const char *dir, struct err *err)
{
	struct stat st;

	if (mkdir(dir, 0700) == 0 || errno == ENOENT)
		return 0;
	if (lstat(dir, &st) < 0)
		return err_sys(err, -errno, "%s", dir);
	if (!S_ISDIR(st.st_mode) || st.st_uid != getuid() || (st.st_mode & 077))
		return err_set(err, -EPERM, "%s is not a private folder (0700) of this user", dir);
	return 0;
}

/* --- the config file --------------------------------------------------------------- */

struct parse {
	struct options *o;
	FILE *file;
	struct err *err;	/* of the first bad line */
	bool bad;
	bool in_line;			/* the last read ended within a line */
	int line, bad_line;
	char *default_backend;
};

/* inih does not tell its callbacks the line: count what it reads. A long one is read in parts. */
static char *read_line(char *text, int size, void *stream)
{
	struct parse *p = stream;
	char *got = fgets(text, size, p->file);

	if (!p->in_line)
		p->line++;
	p->in_line = got && !strchr(got, '\n');
	return got;
}

static char *expand(const char *value)
{
	if (value[0] == '~' && (value[1] == '/' || !value[1]))
		return xasprintf("%s%s", home(), value + 1);
	return xstrdup(value);
}

static int bad_value(struct parse *p, const char *key, const char *value, const char *wanted)
{
	return err_set(p->err, -EINVAL, "%s = %s: %s", key, value, wanted);
}

static void backends_set(struct options *o, const char *value)
{
	char *copy = xstrdup(value), *save = NULL;
	unsigned n = 0;

	for (unsigned i = 0; o->backends && o->backends[i]; i++)
		free(o->backends[i]);
	free(o->backends);
	o->backends = xcalloc(strlen(value) + 2, sizeof(*o->backends));
	for (char *name = strtok_r(copy, " ,\t", &save); name; name = strtok_r(NULL, " ,\t", &save))
		o->backends[n++] = xstrdup(name);
	free(copy);
}

static int set_size(struct parse *p, const char *key, const char *value, uint64_t *size)
{
	if (size_parse(value, size) < 0 || *size == 0)
		return bad_value(p, key, value, "a size is written as 512M or 10G");
	return 0;
}

static int set_large(struct parse *p, const char *key, const char *value, uint64_t *size)
{
	if (size_parse_large(value, size) < 0)
		return bad_value(p, key, value, "a size is written as 512M or 10G");
	return 0;
}

static int set_mount(struct parse *p, const char *key, const char *value)
{
	if (!strcmp(key, "cache"))
		return set_size(p, key, value, &p->o->cache);
	if (strcmp(key, "backends"))
		return err_set(p->err, -EINVAL, "[mount] has no key %s", key);
	backends_set(p->o, value);
	for (unsigned i = 0; p->o->backends[i]; i++) {
		for (unsigned n = 0; n < i; n++)
			if (!strcmp(p->o->backends[n], p->o->backends[i]))
				return bad_value(p, key, value, "each backend once");
		if (!backend_find(p->o->backends[i]))
			return err_set(p->err, -EINVAL, "there is no backend %s in this sbxfs",
				       p->o->backends[i]);
	}
	return 0;
}

static int set_number(struct parse *p, const char *key, const char *value, unsigned max,
		      unsigned *number)
{
	size_t digits = strspn(value, "0123456789");
	unsigned long n = strtoul(value, NULL, 10);
	char wanted[64];

	if (digits == 0 || digits > 9 || value[digits] || n < 1 || n > max) {
		snprintf(wanted, sizeof(wanted), "a number from 1 to %u", max);
		return bad_value(p, key, value, wanted);
	}
	*number = (unsigned)n;
	return 0;
}

static int set_duration(struct parse *p, const char *key, const char *value, uint64_t *ms)
{
	if (duration_parse(value, ms) < 0)
		return bad_value(p, key, value, "a time is written as 30s, 5m or 1h30m");
	return 0;
}

/* What can be switched off with 0. */
static int set_size_or_none(struct parse *p, const char *key, const char *value, uint64_t *size)
{
	*size = 0;
	return !strcmp(value, "0") ? 0 : set_size(p, key, value, size);
}

static int set_time_or_none(struct parse *p, const char *key, const char *value, int64_t *ms)
{
	uint64_t n = 0;
	int r = !strcmp(value, "none") ? 0 : set_duration(p, key, value, &n);

	*ms = (int64_t)n;
	return r;
}

static int set_fleet_limit(struct parse *p, const char *key, const char *value)
{
	struct fleet_limits *l = &p->o->limits;

	if (!strcmp(key, "sandboxes"))
		return set_number(p, key, value, 1000000, &l->sandboxes);
	if (!strcmp(key, "memory"))
		return set_size(p, key, value, &l->memory);
	if (!strcmp(key, "disk"))
		return set_size(p, key, value, &l->disk);
	if (!strcmp(key, "free"))
		return set_size_or_none(p, key, value, &l->free);
	if (!strcmp(key, "age"))
		return set_time_or_none(p, key, value, &l->age);
	if (!strcmp(key, "trash"))
		return set_time_or_none(p, key, value, &l->trash);
	return err_set(p->err, -EINVAL, "[limits] has no key %s", key);
}

static int set_limit(struct parse *p, const char *key, const char *value)
{
	struct job_conf *jobs = &p->o->jobs;

	if (!strcmp(key, "jobs"))
		return set_number(p, key, value, 1000000, &jobs->history);
	if (!strcmp(key, "connections"))
		return set_number(p, key, value, 100, &jobs->connections);
	if (!strcmp(key, "spool")) {
		if (set_size(p, key, value, &jobs->spool) < 0 || jobs->spool < 64 * 1024)
			return bad_value(p, key, value, "a size of at least 64K");
		return 0;
	}
	return set_fleet_limit(p, key, value);
}

static int set_default(struct parse *p, const char *key, const char *value)
{
	struct vm_spec *s = &p->o->defaults;

	if (!strcmp(key, "memory"))
		return set_large(p, key, value, &s->memory);
	if (!strcmp(key, "disk"))
		return set_large(p, key, value, &s->disk);
	if (!strcmp(key, "timeout"))
		return set_duration(p, key, value, &p->o->jobs.timeout_ms);
	if (!strcmp(key, "cpus"))
		return set_number(p, key, value, 255, &s->cpus);
	if (!strcmp(key, "image")) {
		if (!*value || strlen(value) >= sizeof(s->image))
			return bad_value(p, key, value, "the name of an image");
		snprintf(s->image, sizeof(s->image), "%s", value);
		return 0;
	}
	if (!strcmp(key, "ttl"))
		return set_time_or_none(p, key, value, &p->o->ttl);
	if (!strcmp(key, "idle"))
		return set_time_or_none(p, key, value, &p->o->idle);
	if (!strcmp(key, "backend")) {
		free(p->default_backend);
		p->default_backend = xstrdup(value);
		return 0;
	}
	if (!strcmp(key, "on_use")) {
		if (strcmp(value, "wait") && strcmp(value, "start"))
			return bad_value(p, key, value, "wait or start");
		p->o->jobs.start_on_use = !strcmp(value, "start");
		return 0;
	}
	if (!strcmp(key, "overflow")) {
		free(p->o->overflow);
		p->o->overflow = xstrdup(value);
		return 0;
	}
	return err_set(p->err, -EINVAL, "[defaults] has no key %s", key);
}

static int set_backend(struct parse *p, const char *section, const char *key, const char *value)
{
	const struct backend_ops *ops = backend_find(section);
	struct options *o = p->o;

	if (!ops)
		return err_set(p->err, -EINVAL, "there is no section [%s]", section);
	for (const char *const *k = ops->conf_keys; k && *k; k++) {
		if (strcmp(*k, key))
			continue;
		o->settings = xrealloc(o->settings, (o->setting_count + 1) * sizeof(*o->settings));
		o->settings[o->setting_count++] = (struct setting){
			xstrdup(section), xstrdup(key), expand(value) };
		return 0;
	}
	return err_set(p->err, -EINVAL, "[%s] has no key %s", section, key);
}

/* For inih: 1 is good, 0 is bad. It goes on after a bad line; only the first is told. */
static int on_key(void *user, const char *section, const char *key, const char *value)
{
	struct parse *p = user;
	int r;

	if (p->bad)
		return 0;
	if (!strcmp(section, "mount"))
		r = set_mount(p, key, value);
	else if (!strcmp(section, "defaults"))
		r = set_default(p, key, value);
	else if (!strcmp(section, "limits"))
		r = set_limit(p, key, value);
	else
		r = set_backend(p, section, key, value);
	p->bad = r < 0;
	p->bad_line = p->line;
	return r == 0;
}

static bool is_among(char *const *names, const char *name)
{
	while (*names && strcmp(*names, name))
		names++;
	return *names;
}

/* The default backend goes to the front. */
static int order_backends(struct parse *p)
{
	char **b = p->o->backends;

	if (p->o->overflow && !is_among(b, p->o->overflow))
		return err_set(p->err, -EINVAL,
			       "[defaults] overflow = %s is not among [mount] backends",
			       p->o->overflow);
	if (!p->default_backend)
		return 0;
	for (unsigned i = 0; b[i]; i++)
		if (!strcmp(b[i], p->default_backend)) {
			char *name = b[i];

			memmove(b + 1, b, i * sizeof(*b));
			b[0] = name;
			return 0;
		}
	return err_set(p->err, -EINVAL, "[defaults] backend = %s is not among [mount] backends",
		       p->default_backend);
}

static int config_read(struct options *o, const char *path, bool must, struct err *err)
{
	struct parse p = { .o = o, .err = err, .file = fopen(path, "re") };
	int line, r = 0;

	if (!p.file) {
		r = -errno;
		return !must && (r == -ENOENT || r == -ENOTDIR) ? -EAGAIN /* try the next place */ :
			err_sys(err, r, "cannot read %s", path);
	}
	line = ini_parse_stream(read_line, &p, on_key, &p);
	if (line < 0 || ferror(p.file)) {
		r = err_set(err, -EIO, "cannot read %s", path);
	} else if (p.bad && p.bad_line == line) {
		char text[ERR_TEXT_MAX];

		snprintf(text, sizeof(text), "%s", err->text);
		r = err_set(err, -EINVAL, "%.200s, line %d: %s", path, line, text);
	} else if (line > 0) {
		r = err_set(err, -EINVAL, "%.200s, line %d: neither [section] nor key = value",
			    path,
			    line);
	} else {
		r = order_backends(&p);
		if (r < 0)
			err_prefix(err, "%.200s", path);
	}
	fclose(p.file);
	free(p.default_backend);
	return r;
}

static int config_find(struct options *o, const char *given, struct err *err)
{
	char *path;
	int r;

	if (given)
		return config_read(o, given, true, err);
	path = xdg_dir("XDG_CONFIG_HOME", ".config");
	path = xrealloc(path, strlen(path) + 8);
	strcat(path, "/config");
	r = config_read(o, path, false, err);
	free(path);
	if (r == -EAGAIN)
		r = config_read(o, "/etc/sbxfs/config", false, err);
	return r == -EAGAIN ? 0 : r;
}

/* --- the command line ------------------------------------------------------------------ */

static int set_log(struct options *o, const char *level, struct err *err)
{
	static const char *const names[] = { "error", "warn", "info", "debug" };

	for (unsigned i = 0; i < 4; i++)
		if (!strcmp(level, names[i])) {
			o->log_level = i;
			return 0;
		}
	return err_set(err, -EINVAL, "log=%s: it is one of error, warn, info, debug", level);
}

static char *absolute(const char *path)
{
	char *cwd, *whole;

	if (*path == '/')
		return xstrdup(path);
	cwd = getcwd(NULL, 0);
	whole = xasprintf("%s/%s", cwd ? cwd : "", path);
	free(cwd);
	return whole;
}

/* What mount(8) and fstab put there for themselves, and what is always so here. */
static bool for_mount_only(const char *option)
{
	static const char *const names[] = {
		"rw", "auto", "noauto", "user", "nouser", "users", "_netdev", "nofail", "defaults",
		"dev", "suid", "nodev", "nosuid", "exec", NULL,
	};

	for (unsigned i = 0; names[i]; i++)
		if (!strcmp(option, names[i]))
			return true;
	return !strncmp(option, "x-", 2);
}

static int set_mount_options(struct options *o, const char *text, char **config, struct err *err)
{
	char *copy = xstrdup(text), *save = NULL;
	int r = 0;

	for (char *s = strtok_r(copy, ",", &save); s && r == 0; s = strtok_r(NULL, ",", &save)) {
		if (!strncmp(s, "log=", 4)) {
			r = set_log(o, s + 4, err);
		} else if (!strncmp(s, "config=", 7)) {
			free(*config);
			*config = absolute(s + 7);
		} else if (!strcmp(s, "fuse_debug")) {
			o->debug_fuse = true;
		} else if (!for_mount_only(s)) {
			char *longer = xasprintf("%s%s%s", o->fuse_options,
						 *o->fuse_options ? "," : "", s);

			free(o->fuse_options);
			o->fuse_options = longer;
		}
	}
	free(copy);
	return r;
}

/*
 * The real path of the folder that holds it, and its name: the mount point itself is
 * not looked at, since a dead mount on it would answer with an error.
 */
static char *mountpoint_path(const char *given)
{
	char *path = absolute(given), *real, *slash, *result = NULL;

	while (strlen(path) > 1 && path[strlen(path) - 1] == '/')
		path[strlen(path) - 1] = 0;
	slash = strrchr(path, '/');
	if (!strcmp(slash, "/.") || !strcmp(slash, "/..") || !slash[1]) {
		real = realpath(path, NULL);
		if (real)
			result = xstrdup(real);
	} else {
		*slash = 0;
		real = realpath(*path ? path : "/", NULL);
		*slash = '/';
		if (real)
			result = xasprintf("%s%s", strcmp(real, "/") ? real : "", slash);
	}
	free(real);
	if (!result)
		return path;
	free(path);
	return result;
}

static int parse_argv(struct options *o, int argc, char *argv[], char **config, struct err *err)
{
	static const struct option long_options[] = {
		{ "help", no_argument, NULL, 'h' }, { "version", no_argument, NULL, 'V' }, { 0 },
	};
	int c, r = 0;

	opterr = 0;
	while (r == 0 && (c = getopt_long(argc, argv, "fdc:o:hV", long_options, NULL)) != -1) {
		switch (c) {
		case 'd':
			o->log_level = LOG_LEVEL_DEBUG;
			/* fall through */
		case 'f':
			o->foreground = true;
			break;
		case 'c':
			free(*config);
			*config = absolute(optarg);
			break;
		case 'o':
			r = set_mount_options(o, optarg, config, err);
			break;
		case 'h':
			o->help = true;
			return 0;
		case 'V':
			o->version = true;
			return 0;
		default:
			return err_set(err, -EINVAL,
				       "there is no option %s, or it lacks its value; "
				       "sbxfs -h lists them", argv[optind - 1]);
		}
	}
	/* mount(8) gives the source of the fstab line before the mount point. */
	if (r == 0 && (optind >= argc || argc - optind > 2))
		r = err_set(err, -EINVAL, "name one mount point; sbxfs -h tells how");
	if (r == 0)
		o->mountpoint = mountpoint_path(argv[argc - 1]);
	return r;
}

int options_parse(struct options *o, int argc, char *argv[], struct err *err)
{
	char *config = NULL;
	int r;

	memset(o, 0, sizeof(*o));
	o->log_level = LOG_LEVEL_INFO;
	o->jobs = JOB_CONF_DEFAULT;
	o->fuse_options = xstrdup("");
	o->limits = FLEET_LIMITS_DEFAULT;
	o->state_dir = xdg_dir("XDG_STATE_HOME", ".local/state");
	o->data_dir = xdg_dir("XDG_DATA_HOME", ".local/share");
	o->run_dir = runtime_dir();
	backends_set(o, backend_find("kvm") ? "kvm" : backend_registry[0] ?
		     backend_registry[0]->name : "");
	r = parse_argv(o, argc, argv, &config, err);
	if (r == 0 && !o->help && !o->version)
		r = config_find(o, config, err);
	if (r == 0 && !o->help && !o->version)
		r = check_private(o->run_dir, err);
	free(config);
	return r;
}

void options_finish(struct options *o)
{
	for (unsigned i = 0; i < o->setting_count; i++) {
		free(o->settings[i].section);
		free(o->settings[i].key);
		free(o->settings[i].value);
	}
	for (unsigned i = 0; o->backends && o->backends[i]; i++)
		free(o->backends[i]);
	free(o->backends);
	free(o->overflow);
	free(o->settings);
	free(o->mountpoint);
	free(o->fuse_options);
	free(o->state_dir);
	free(o->run_dir);
	free(o->data_dir);
}

const char *options_get(void *user, const char *section, const char *key)
{
	const struct options *o = user;
	const char *value = NULL;

	for (unsigned i = 0; i < o->setting_count; i++)
		if (!strcmp(o->settings[i].section, section) && !strcmp(o->settings[i].key, key))
			value = o->settings[i].value;	/* the last one counts */
	return value;
}
