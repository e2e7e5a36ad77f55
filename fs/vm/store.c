/* Records of sandboxes on disk; see store.h. */
#include "store.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"

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

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path) < 0 && errno != ENOENT ? -errno : 0;
}

int remove_tree(const char *path)
{
	int r = nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);

	if (r == -1)
		r = errno == ENOENT ? 0 : -errno;
	return r;
}

static int write_synced(const char *path, const void *data, unsigned len, bool sync)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), r = 0;
	const char *p = data;

	if (fd < 0)
		return -errno;
	while (len > 0 && r == 0) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			r = -errno;
			break;
		}
		p += n;
		len -= (unsigned)n;
	}
	if (r == 0 && sync && fsync(fd) < 0)
		r = -errno;
	if (close(fd) < 0 && r == 0)
		r = -errno;
	return r;
}

static int sync_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;

	if (fd < 0)
		return -errno;
	if (fsync(fd) < 0)
		r = -errno;
	close(fd);
	return r;
}

int write_file(const char *path, const void *data, unsigned len, bool sync, struct err *err)
{
	char *temp = xasprintf("%s.new", path), *dir = xstrdup(path);
	int r = write_synced(temp, data, len, sync);

	*strrchr(dir, '/') = 0;
	if (r == 0 && rename(temp, path) < 0)
		r = -errno;
	if (r == 0 && sync)
		r = sync_dir(dir);
	if (r < 0) {
		unlink(temp);
		err_sys(err, r, "cannot write %s", path);
	}
	free(temp);
	free(dir);
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
	int result = 0;

	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		result = err_sys(err, -errno, "cannot make the folder %s", dir);
	if (result == 0)
		result = write_file(path, text, (unsigned)strlen(text), true, err);
	if (result == 0 && sync_dir(vms) < 0)
		result = err_sys(err, -errno, "cannot sync %s", vms);
	free(dir);
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

int store_remove(const char *vms, const char *trash, const char *id, struct err *err)
{
	char *dir = xasprintf("%s/%s", vms, id), *moved = NULL;
	int r = trash_move(trash, dir, &moved);

	if (r == 0)
		sync_dir(vms);
	if (r == 0)
		r = remove_tree(moved);
	if (r < 0 && r != -ENOENT)
		err_sys(err, r, "cannot remove %s", dir);
	free(dir);
	free(moved);
	return r == -ENOENT ? 0 : r;
}

static void load_one(const char *vms, const char *name,
		     void (*each)(void *user, const struct record *),
		     void (*bad)(void *user, const char *name, const char *why), void *user)
{
	char *path = xasprintf("%s/%s/record.json", vms, name), *text = read_file(path, RECORD_MAX);
	struct record r;

	if (!text)
		bad(user, name, strerror(errno));
	else if (store_parse(text, &r) < 0 || strcmp(r.id, name))
		bad(user, name, "record.json is not a record");
	else
		each(user, &r);
	free(path);
	free(text);
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
