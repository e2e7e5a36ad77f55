/* Sums of a template's files: see template_sum.h. */
#include "template_sum.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "json.h"
#include "layer.h"

#define PAGE 4096
#define CHUNK (64 * PAGE)
#define HEX_MAX (2 * EVP_MAX_MD_SIZE + 1)

static const char *const files[] = { LAYER_DISK, LAYER_RAM, LAYER_STATE };
#define FILES (sizeof(files) / sizeof(*files))

/* --- one file ------------------------------------------------------------------ */

static bool all_zero(const uint8_t *data, size_t len)
{
	return len == 0 || (data[0] == 0 && memcmp(data, data + 1, len - 1) == 0);
}

/* Of each page with something in it: its place, big-endian, and its bytes. */
static void add_pages(EVP_MD_CTX *sum, const uint8_t *data, size_t len, uint64_t at)
{
	for (size_t done = 0; done < len; done += PAGE) {
		size_t n = len - done < PAGE ? len - done : PAGE;
		uint8_t place[8];

		if (all_zero(data + done, n))
			continue;
		for (int i = 0; i < 8; i++)
			place[i] = (uint8_t)((at + done) >> (56 - 8 * i));
		EVP_DigestUpdate(sum, place, sizeof(place));
		EVP_DigestUpdate(sum, data + done, n);
	}
}

/* As many bytes as there are, up to len; pread may stop at a page's end. */
static ssize_t read_all(int fd, uint8_t *data, size_t len, off_t at)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, data + done, len - done, at + (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static int add_file(EVP_MD_CTX *sum, int fd)
{
	static uint8_t data[CHUNK];
	off_t at = 0;
	ssize_t n;

	/* From data to data: a hole costs a look. At the end, or where holes are unknown, -1. */
	while ((at = lseek(fd, at, SEEK_DATA)) >= 0) {
		at -= at % PAGE;
		n = read_all(fd, data, sizeof(data), at);
		if (n < 0)
			return (int)n;
		add_pages(sum, data, (size_t)n, (uint64_t)at);
		at += n;
	}
	return errno == ENXIO ? 0 : -errno;
}

static int sum_fd(int fd, char hex[HEX_MAX])
{
	EVP_MD_CTX *sum = EVP_MD_CTX_new();
	uint8_t digest[EVP_MAX_MD_SIZE];
	unsigned len = 0;
	int r = -ENOMEM;

	if (sum && EVP_DigestInit_ex(sum, EVP_sha256(), NULL))
		r = add_file(sum, fd);
	if (r == 0 && !EVP_DigestFinal_ex(sum, digest, &len))
		r = -EIO;
	for (unsigned i = 0; i < len; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	EVP_MD_CTX_free(sum);
	return r;
}

static int open_in(const char *folder, const char *file)
{
	char *path = xasprintf("%s/%s", folder, file);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fd = -errno;
	free(path);
	return fd;
}

/* --- all of them ------------------------------------------------------------------ */

static char *time_of_change(const struct stat *st)
{
	return xasprintf("%lld.%09ld", (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
}

static int describe(const char *folder, const char *file, cJSON *list)
{
	int fd = open_in(folder, file), r;
	char hex[HEX_MAX] = "", *changed;
	struct stat st;
	cJSON *j;

	if (fd < 0)
		return fd;
	r = fsync(fd) < 0 || fstat(fd, &st) < 0 ? -errno : sum_fd(fd, hex);
	close(fd);
	if (r < 0)
		return r;
	j = cJSON_AddObjectToObject(list, file);
	changed = time_of_change(&st);
	json_add_u64(j, "size", (uint64_t)st.st_size);
	cJSON_AddStringToObject(j, "changed", changed);
	cJSON_AddStringToObject(j, "sha256", hex);
	free(changed);
	return 0;
}

int template_sum_write(const char *folder, const struct cJSON *about, char *said, size_t size)
{
	cJSON *whole = cJSON_Duplicate(about, true), *list = cJSON_CreateObject();
	char *path = xasprintf("%s/template.json", folder);
	struct err err = ERR_NONE;
	int r = 0;

	cJSON_AddItemToObject(whole, "files", list);
	for (size_t i = 0; r == 0 && i < FILES; i++) {
		r = describe(folder, files[i], list);
		if (r < 0)
			err_sys(&err, r, "cannot read %s/%s", folder, files[i]);
	}
	if (r == 0)
		r = json_save(path, whole, &err);
	if (r < 0)
		snprintf(said, size, "%.*s", (int)size - 1, err.text);
	free(path);
	cJSON_Delete(whole);
	return r;
}

static const cJSON *described(const cJSON *about, const char *file)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(about, "files");

	return cJSON_GetObjectItemCaseSensitive(list, file);
}

/* NULL: nothing. */
static const char *what_changed(const char *folder, const char *file, const cJSON *was)
{
	char *path = xasprintf("%s/%s", folder, file), *changed;
	struct stat st;
	int r = stat(path, &st);
	bool same;

	free(path);
	if (!was)
		return "the template was made by an earlier sbxfs";
	if (r < 0)
		return "a file of the template is gone";
	if ((uint64_t)st.st_size != json_u64(was, "size"))
		return "a file of the template is not as long as it was";
	changed = time_of_change(&st);
	same = !strcmp(changed, json_string(was, "changed"));
	free(changed);
	return same ? NULL : "a file of the template was changed after it was made";
}

bool template_sum_unchanged(const char *folder, const struct cJSON *about, const char **why)
{
	*why = NULL;
	for (size_t i = 0; !*why && i < FILES; i++)
		*why = what_changed(folder, files[i], described(about, files[i]));
	return !*why;
}

static int verify_file(const char *folder, const char *file, const cJSON *was)
{
	int fd = open_in(folder, file), r;
	char hex[HEX_MAX] = "";
	struct stat st;

	if (fd < 0)
		return fd == -ENOENT ? -EBADMSG : fd;
	r = fstat(fd, &st) < 0 ? -errno : sum_fd(fd, hex);
	close(fd);
	if (r == 0 && ((uint64_t)st.st_size != json_u64(was, "size") ||
		       strcmp(hex, json_string(was, "sha256"))))
		r = -EBADMSG;
	return r;
}

int template_sum_verify(const char *folder, char *said, size_t size)
{
	char *path = xasprintf("%s/template.json", folder);
	cJSON *about = json_load(path, NULL);
	int r = about ? 0 : -EBADMSG;

	if (r < 0)
		snprintf(said, size, "%s is damaged", path);
	for (size_t i = 0; r == 0 && i < FILES && described(about, files[i]); i++) {
		r = verify_file(folder, files[i], described(about, files[i]));
		if (r == -EBADMSG)
			snprintf(said, size, "%s/%s is damaged", folder, files[i]);
		else if (r < 0)
			snprintf(said, size, "cannot read %s/%s: %s", folder, files[i],
				 strerror(-r));
	}
	cJSON_Delete(about);
	free(path);
	return r;
}
