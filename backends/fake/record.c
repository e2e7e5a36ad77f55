/*
 * What the fake backend keeps on disk: a record a sandbox below dir/records,
 * in lines of "key value", written beside and renamed. It is there before
 * anything else of the sandbox is and goes last.
 */
#include "fake.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"

static const char *const state_names[] = {
	[VM_CREATING] = "creating", [VM_BOOTING] = "booting", [VM_UP] = "up",
	[VM_PAUSED] = "paused", [VM_STOPPED] = "stopped", [VM_DESTROYING] = "destroying",
	[VM_FAILED] = "failed",
};
_Static_assert(sizeof(state_names) / sizeof(*state_names) == VM_FAILED + 1, "a name a state");

static int sync_folder(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = 0;

	if (fd < 0)
		return -errno;
	if (fsync(fd) < 0)
		r = -errno;
	close(fd);
	return r;
}

static int write_all(int fd, const struct buf *text)
{
	const uint8_t *p = buf_peek(text);
	size_t left = buf_size(text);

	while (left) {
		ssize_t n = write(fd, p, left);

		if (n < 0)
			return -errno;
		p += n;
		left -= (size_t)n;
	}
	return 0;
}

static int save(const char *path, const struct buf *text, bool sync)
{
	char *beside = xasprintf("%s.new", path);
	int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int r = fd < 0 ? -errno : write_all(fd, text);

	if (r == 0 && sync && fsync(fd) < 0)
		r = -errno;
	if (fd >= 0)
		close(fd);
	if (r == 0 && rename(beside, path) < 0)
		r = -errno;
	if (r < 0)
		unlink(beside);
	free(beside);
	return r;
}

int record_write(const struct box *box, bool sync, struct err *err)
{
	char *folder = xasprintf("%s/records", box->fake->dir);
	char *path = xasprintf("%s/%s", folder, box->name);
	struct buf text = BUF_INIT;
	int r;

	buf_printf(&text, "state %s\nimage %s\ncpus %u\nmemory %llu\ndisk %llu\ntag %s\n",
		   state_names[box->state], box->spec.image, box->spec.cpus,
		   (unsigned long long)box->spec.memory, (unsigned long long)box->spec.disk,
		   box->spec.tag);
	if (box->foreign)
		buf_printf(&text, "foreign yes\n");
	if (box->spec.no_network)
		buf_printf(&text, "network off\n");
	if (box->state == VM_FAILED)
		buf_printf(&text, "why %d %s\n", box->why.code, box->why.text);
	r = save(path, &text, sync);
	if (r == 0 && sync)
		r = sync_folder(folder);
	if (r < 0)
		err_sys(err, r, "cannot write %s", path);
	buf_finish(&text);
	free(path);
	free(folder);
	return r;
}

static void parse(struct box *box, const char *key, const char *value)
{
	int n;

	if (!strcmp(key, "image"))
		snprintf(box->spec.image, sizeof(box->spec.image), "%s", value);
	else if (!strcmp(key, "tag"))
		snprintf(box->spec.tag, sizeof(box->spec.tag), "%s", value);
	else if (!strcmp(key, "foreign"))
		box->foreign = true;
	else if (!strcmp(key, "network"))
		box->spec.no_network = true;
	else if (!strcmp(key, "cpus"))
		box->spec.cpus = (unsigned)strtoul(value, NULL, 10);
	else if (!strcmp(key, "memory"))
		box->spec.memory = strtoull(value, NULL, 10);
	else if (!strcmp(key, "disk"))
		box->spec.disk = strtoull(value, NULL, 10);
	else if (!strcmp(key, "why") && sscanf(value, "%d %n", &box->why.code, &n) == 1)
		snprintf(box->why.text, sizeof(box->why.text), "%s", value + n);
	for (int s = 0; !strcmp(key, "state") && s <= VM_FAILED; s++)
		if (!strcmp(value, state_names[s]))
			box->state = (enum vm_state)s;
}

int record_read(struct box *box, struct err *err)
{
	char *path = xasprintf("%s/records/%s", box->fake->dir, box->name);
	FILE *f = fopen(path, "re");
	char line[ERR_TEXT_MAX + 64];
	int r = 0;

	if (!f)
		r = err_sys(err, -errno, "cannot read %s", path);
	while (f && fgets(line, sizeof(line), f)) {
		char *value = strchr(line, ' ');

		line[strcspn(line, "\n")] = 0;
		if (value) {
			*value = 0;
			parse(box, line, value + 1);
		}
	}
	if (f)
		fclose(f);
	free(path);
	return r;
}

int record_remove(const struct box *box, struct err *err)
{
	char *path = xasprintf("%s/records/%s", box->fake->dir, box->name);
	int r = 0;

	if (unlink(path) < 0 && errno != ENOENT)
		r = err_sys(err, -errno, "cannot remove %s", path);
	free(path);
	return r;
}

static int empty_folder(DIR *dir)
{
	struct dirent *e;
	int r = 0;

	while (r == 0 && (e = readdir(dir))) {
		DIR *sub;
		int fd;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (unlinkat(dirfd(dir), e->d_name, 0) == 0)
			continue;
		if (errno != EISDIR && errno != EPERM)
			return -errno;
		fchmodat(dirfd(dir), e->d_name, 0700, 0);	/* a job may have closed it */
		fd = openat(dirfd(dir), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		sub = fd < 0 ? NULL : fdopendir(fd);
		if (!sub)
			return -errno;
		r = empty_folder(sub);
		closedir(sub);
		if (r == 0 && unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR) < 0)
			r = -errno;
	}
	return r;
}

int record_remove_tree(const char *path, struct err *err)
{
	DIR *dir = opendir(path);
	int r;

	if (!dir)
		return errno == ENOENT ? 0 : err_sys(err, -errno, "cannot open %s", path);
	r = empty_folder(dir);
	closedir(dir);
	if (r == 0 && rmdir(path) < 0)
		r = -errno;
	return r < 0 ? err_sys(err, r, "cannot remove %s", path) : 0;
}
