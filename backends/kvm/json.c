/* JSON files: see json.h. Used for the records, image.json and what was found about KVM. */
#include "json.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"

#define FILE_MAX (1 << 20)

static int read_all(int fd, struct buf *out)
{
	ssize_t n;

	do {
		n = read(fd, buf_reserve(out, 4096), 4096);
		if (n > 0)
			buf_commit(out, (size_t)n);
		if (buf_size(out) > FILE_MAX)
			return -EFBIG;
	} while (n > 0);
	return n < 0 ? -errno : 0;
}

struct cJSON *json_load(const char *path, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), r;
	struct buf text = BUF_INIT;
	cJSON *json = NULL;

	r = fd < 0 ? -errno : read_all(fd, &text);
	if (fd >= 0)
		close(fd);
	if (r < 0) {
		err_sys(err, r, "cannot read %s", path);
	} else {
		json = cJSON_ParseWithLength((char *)buf_peek(&text), buf_size(&text));
		if (!cJSON_IsObject(json)) {
			cJSON_Delete(json);
			json = NULL;
			err_set(err, -EBADMSG, "%s is damaged", path);
		}
	}
	buf_finish(&text);
	return json;
}

static int write_all(int fd, const char *text)
{
	size_t left = strlen(text);

	while (left) {
		ssize_t n = write(fd, text, left);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		left -= (size_t)n;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

int sync_folder(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;

	if (fd < 0)
		return -errno;
	if (fsync(fd) < 0)
		r = -errno;
	close(fd);
	return r;
}

static int replace(const char *path, const char *text)
{
	char *beside = xasprintf("%s.new", path), *folder = xstrdup(path);
	int fd, r;

	*strrchr(folder, '/') = '\0';
	fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	r = fd < 0 ? -errno : write_all(fd, text);
	if (fd >= 0)
		close(fd);
	if (r == 0 && rename(beside, path) < 0)
		r = -errno;
	if (r == 0)
		r = sync_folder(folder);
	else
		unlink(beside);
	free(folder);
	free(beside);
	return r;
}

int json_save(const char *path, const struct cJSON *json, struct err *err)
{
	char *text = cJSON_Print(json);
	int r = text ? replace(path, text) : -ENOMEM;

	free(text);
	return r < 0 ? err_sys(err, r, "cannot write %s", path) : 0;
}

const char *json_string(const struct cJSON *json, const char *key)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, key));

	return s ? s : "";
}

uint64_t json_u64(const struct cJSON *json, const char *key)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);

	if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble < 0x1p53))
		return 0;
	return (uint64_t)item->valuedouble;
}

bool json_bool(const struct cJSON *json, const char *key)
{
	return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, key));
}

void json_add_u64(struct cJSON *json, const char *key, uint64_t value)
{
	cJSON_AddNumberToObject(json, key, (double)value);
}

int json_copy(const struct cJSON *json, const char *key, char *to, size_t size)
{
	const char *s = json_string(json, key);

	if (!s[0] || strlen(s) >= size)
		return -EBADMSG;
	strcpy(to, s);
	return 0;
}
