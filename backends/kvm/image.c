/* Finding images and reading image.json: see image.h. sbxfs-image writes them. */
#include "image.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "json.h"

/* The path of a file of the image, if it is there. */
static bool locate(const char *dir, const char *file, char path[PATH_MAX])
{
	return snprintf(path, PATH_MAX, "%s/%s", dir, file) < PATH_MAX && !access(path, R_OK);
}

/* A disk that was imported whole boots by itself, from a kernel of its own. */
static int locate_all(struct image *image, bool own_kernel)
{
	if (own_kernel)
		return locate(image->dir, "root.qcow2", image->disk) ? 0 : -ENOENT;
	if (!locate(image->dir, "vmlinux", image->kernel) &&
	    !locate(image->dir, "vmlinuz", image->kernel))
		return -ENOENT;
	if (!locate(image->dir, "initrd", image->initrd))
		return -ENOENT;
	return locate(image->dir, "root.qcow2", image->disk) ? 0 : -ENOENT;
}

int image_load(struct image *image, const char *dir, struct err *err)
{
	char *path = xasprintf("%s/image.json", dir);
	cJSON *j;
	int r = -EINVAL;

	memset(image, 0, sizeof(*image));
	snprintf(image->dir, sizeof(image->dir), "%s", dir);
	j = json_load(path, NULL);
	if (!j) {
		err_set(err, r, "the image in %s is not complete: it has no image.json", dir);
		goto out;
	}
	image->disk_size = json_u64(j, "disk_size");
	image->min_memory = json_u64(j, "min_memory");
	snprintf(image->cmdline, sizeof(image->cmdline), "%s", json_string(j, "cmdline"));
	if (json_copy(j, "user", image->user, sizeof(image->user)) || !image->disk_size) {
		err_set(err, r, "%s is damaged", path);
		goto out;
	}
	r = locate_all(image, !strcmp(json_string(j, "boot"), "disk"));
	if (r < 0)
		r = err_set(err, -EINVAL, "the image in %s is not complete", dir);
out:
	cJSON_Delete(j);
	free(path);
	return r;
}

static bool valid_name(const char *name)
{
	size_t len = strlen(name);

	if (!len || len >= 64 || !isalnum((unsigned char)name[0]))
		return false;
	return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-") == len;
}

int image_find(struct image *image, const char *images, const char *name, struct err *err)
{
	char *path, *dir;
	int r;

	if (!valid_name(name))
		return err_set(err, -EINVAL, "'%s' is no image name", name);
	path = xasprintf("%s/%s", images, name);
	dir = realpath(path, NULL);
	if (dir)
		r = image_load(image, dir, err);
	else
		r = err_set(err, -EINVAL,
			    "there is no image '%s' in %s: make it with 'sbxfs-image build %s'",
			    name, images, name);
	free(dir);
	free(path);
	return r;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void image_names(const char *images, struct buf *out)
{
	char *names[256];
	struct dirent *entry;
	DIR *dir = opendir(images);
	size_t n = 0;

	while (dir && n < 256 && (entry = readdir(dir))) {
		char *file = xasprintf("%s/%s/image.json", images, entry->d_name);

		if (valid_name(entry->d_name) && !access(file, R_OK))
			names[n++] = xstrdup(entry->d_name);
		free(file);
	}
	if (dir)
		closedir(dir);
	qsort(names, n, sizeof(*names), by_name);
	for (size_t i = 0; i < n; i++) {
		buf_printf(out, "%s%s", i ? "," : "", names[i]);
		free(names[i]);
	}
}
