/* Records of sandboxes on disk; see store.h. */
#include "store.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "flush.h"
#include "remove.h"

#define RECORD_MAX (64 * 1024)

void random_hex(char *out, unsigned len)
{
	uint8_t raw[64];

	if (len > sizeof(raw) || getrandom(raw, len, 0) != (ssize_t)len)
		abort();	/* getrandom(2) does not fail for so few bytes */
	for (unsigned i = 0; i < len; i++)
		sprintf(out + 2 * i, "%02x", raw[i]);
}

void store_new_tag(struct vm_spec *spec)
{
	random_hex(spec->tag, 8);
}

int make_dirs(const char *path, struct err *err)
{
	char *copy = xstrdup(path);
	int r = 0;

	for (char *p = copy + 1; r == 0; p++) {
		char c = *p;

		if (c && c != '/')
			continue;
		*p = 0;
		if (mkdir(copy, 0700) < 0 && errno != EEXIST)
			r = err_sys(err, -errno, "cannot make the folder %s", copy);
		*p = c;
		if (!c)
			break;
	}
	free(copy);
	return r;
}

char *read_file(const char *path, unsigned max)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct buf text = BUF_INIT;
	ssize_t n = 0;

	if (fd < 0)
		return NULL;
	do {
		buf_commit(&text, (size_t)n);
		n = read(fd, buf_reserve(&text, 4096), 4096);
	} while (n > 0 && buf_size(&text) + (size_t)n <= max);
	close(fd);
	if (n != 0) {
		buf_finish(&text);
		errno = n > 0 ? EFBIG : EIO;
		return NULL;
	}
	return buf_take_string(&text);
}

/* --- records ---------------------------------------------------------------- */

int store_write(const char *vms, const struct record *r, struct err *err)
{
	char *dir = xasprintf("%s/%s", vms, r->id);
	char *path = xasprintf("%s/record.json", dir), *text = store_print(r);
	int result = 0, synced;

	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		result = err_sys(err, -errno, "cannot make the folder %s", dir);
	if (result == 0)
		result = write_file(path, text, (unsigned)strlen(text), true, err);
	if (result == 0 && (synced = flush_path(vms)) < 0)
		result = err_sys(err, synced, "cannot sync %s", vms);
	free(dir);
	free(path);
	cJSON_free(text);
	return result;
}

int store_write_soon(const char *vms, const struct record *r, struct err *err)
{
	char *path = xasprintf("%s/%s/record.json", vms, r->id), *text = store_print(r);
	int result = write_file_soon(path, text, (unsigned)strlen(text), err);

	free(path);
	cJSON_free(text);
	return result;
}

int trash_move(const char *trash, const char *path, char **moved)
{
	char tag[33];
	int r = 0;

	random_hex(tag, 16);
	*moved = xasprintf("%s/%s", trash, tag);
	if (rename(path, *moved) < 0) {
		r = -errno;
		free(*moved);
		*moved = NULL;
	}
	return r;
}

void trash_empty(const char *trash)
{
	DIR *d = opendir(trash);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		char *path = xasprintf("%s/%s", trash, e->d_name);

		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			remove_soon(path);
		free(path);
	}
	if (d)
		closedir(d);
}

int store_remove(const char *vms, const char *trash, const char *id, struct err *err)
{
	char *dir = xasprintf("%s/%s", vms, id), *moved = NULL;
	char *record = xasprintf("%s/record.json", dir);
	int r;

	drop_file_soon(record);
	free(record);
	r = trash_move(trash, dir, &moved);
	if (r == 0) {
		flush_path(vms);
		remove_soon(moved);
	}
	if (r < 0 && r != -ENOENT)
		err_sys(err, r, "cannot remove %s", dir);
	free(dir);
	free(moved);
	return r == -ENOENT ? 0 : r;
}

/* The record in dir/name, or NULL and why. */
static const char *load_record(const char *dir, const char *name, const char *id, struct record *r)
{
	char *path = xasprintf("%s/%s", dir, name), *text = read_file(path, RECORD_MAX);
	const char *why = NULL;

	if (!text)
		why = strerror(errno);
	else if (store_parse(text, r) < 0 || strcmp(r->id, id))
		why = "record.json is not a record";
	free(text);
	free(path);
	return why;
}

static void load_one(const char *vms, const char *name,
		     void (*each)(void *user, const struct record *),
		     void (*bad)(void *user, const char *name, const char *why), void *user)
{
	char *dir = xasprintf("%s/%s", vms, name);
	struct record r;
	const char *why = load_record(dir, "record.json", name, &r);

	/* The power went before it was on disk: what was there before it is true enough. */
	if (why && load_record(dir, "record.json.new", name, &r))
		bad(user, name, why);
	else
		each(user, &r);
	free(dir);
}

int store_load(const char *vms, void (*each)(void *user, const struct record *),
	       void (*bad)(void *user, const char *name, const char *why), void *user,
	       struct err *err)
{
	DIR *d = opendir(vms);
	struct dirent *e;

	if (!d)
		return err_sys(err, -errno, "cannot read %s", vms);
	while ((e = readdir(d)))
		if (e->d_name[0] != '.')
			load_one(vms, e->d_name, each, bad, user);
	closedir(d);
	return 0;
}
