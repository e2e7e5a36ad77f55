/* See place.h. */
#include "place.h"

#include <fcntl.h>
#include <mntent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void die(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "sbx-attach: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	exit(255);
}

/* All texts, kept to the end: there are few, and the program is short. */
static struct kept {
	struct kept *next;
	char *s;
} *all_kept;

char *text(const char *fmt, ...)
{
	struct kept *k = malloc(sizeof(*k));
	va_list ap;

	va_start(ap, fmt);
	if (!k || vasprintf(&k->s, fmt, ap) < 0)
		abort();
	va_end(ap);
	k->next = all_kept;
	all_kept = k;
	return k->s;
}

static bool is_sandbox(const char *path)
{
	return access(text("%s/jobs", path), F_OK) == 0;
}

/* The mount that has it; mntent knows how blanks are written there. */
static char *find_in_mounts(const char *name)
{
	FILE *table = setmntent("/proc/self/mounts", "re");
	struct mntent *m;

	while (table && (m = getmntent(table))) {
		char *path = text("%s/%s", m->mnt_dir, name);

		if (!strcmp(m->mnt_type, "fuse.sbxfs") && is_sandbox(path)) {
			endmntent(table);
			return path;
		}
	}
	if (table)
		endmntent(table);
	return NULL;
}

char *place_find(const char *given)
{
	const char *root = getenv("SBXFS_ROOT");
	char *name = text("%s", given), *path;
	size_t len = strlen(name);

	while (len > 1 && name[len - 1] == '/')
		name[--len] = 0;
	if (strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, "..")) {
		if (!is_sandbox(name))
			die("there is no sandbox %s", name);
		return name;
	}
	path = text("%s/%s", root && *root ? root : ".", name);
	if (is_sandbox(path))
		return path;
	path = find_in_mounts(name);
	if (!path)
		die("there is no sandbox %s: give its path, or set SBXFS_ROOT to the mount point "
		    "of sbxfs", name);
	return path;
}

char *file_line(const char *dir, const char *name)
{
	int fd = open(text("%s/%s", dir, name), O_RDONLY | O_CLOEXEC);
	char line[1024];
	ssize_t n = fd < 0 ? 0 : read(fd, line, sizeof(line) - 1);

	if (fd >= 0)
		close(fd);
	line[n > 0 ? n : 0] = 0;
	line[strcspn(line, "\n")] = 0;
	return text("%s", line);
}

bool file_put(const char *dir, const char *name, const char *value)
{
	int fd = open(text("%s/%s", dir, name), O_WRONLY | O_CLOEXEC);
	size_t len = strlen(value);
	bool taken = fd >= 0 && write(fd, value, len) == (ssize_t)len;

	if (fd >= 0)
		close(fd);
	return taken;
}
