/* What was found out about KVM on this host: see accel.h. */
#include "accel.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "json.h"
#include "log.h"

#define FOUND_MAX 100

static cJSON *entries(const struct accel *a)
{
	return cJSON_GetObjectItemCaseSensitive(a->found, "found");
}

void accel_init(struct accel *a, const char *state_dir, const char *qemu)
{
	struct stat st = { 0 };
	struct utsname u;

	stat(qemu, &st);
	uname(&u);
	a->path = xasprintf("%s/.accel.json", state_dir);
	a->qemu = xasprintf("%s %lld %lld", qemu, (long long)st.st_size, (long long)st.st_mtime);
	a->host = xasprintf("%s %s", u.release, u.version);
	a->found = json_load(a->path, NULL);
	if (!a->found)
		a->found = cJSON_CreateObject();
	if (!cJSON_IsArray(entries(a))) {
		cJSON_DeleteItemFromObjectCaseSensitive(a->found, "found");
		cJSON_AddArrayToObject(a->found, "found");
	}
}

void accel_finish(struct accel *a)
{
	cJSON_Delete(a->found);
	free(a->path);
	free(a->qemu);
	free(a->host);
	*a = (struct accel){ 0 };
}

static const cJSON *find(const struct accel *a, const char *image_dir)
{
	const cJSON *e;

	cJSON_ArrayForEach (e, entries(a))
		if (!strcmp(json_string(e, "qemu"), a->qemu) &&
		    !strcmp(json_string(e, "host"), a->host) &&
		    !strcmp(json_string(e, "image"), image_dir))
			return e;
	return NULL;
}

enum accel_verdict accel_lookup(const struct accel *a, const char *image_dir, const char **why)
{
	const cJSON *e = find(a, image_dir);

	*why = json_string(e, "why");
	if (!e)
		return ACCEL_UNKNOWN;
	return strcmp(json_string(e, "accel"), "kvm") ? ACCEL_TCG : ACCEL_KVM;
}

void accel_store(struct accel *a, const char *image_dir, enum accel_verdict verdict,
		 const char *why)
{
	cJSON *e, *list = entries(a);
	struct err err;

	if (find(a, image_dir))
		return;
	while (cJSON_GetArraySize(list) >= FOUND_MAX)
		cJSON_DeleteItemFromArray(list, 0);
	e = cJSON_CreateObject();
	cJSON_AddStringToObject(e, "qemu", a->qemu);
	cJSON_AddStringToObject(e, "host", a->host);
	cJSON_AddStringToObject(e, "image", image_dir);
	cJSON_AddStringToObject(e, "accel", verdict == ACCEL_KVM ? "kvm" : "tcg");
	cJSON_AddStringToObject(e, "why", why);
	cJSON_AddItemToArray(list, e);
	if (json_save(a->path, a->found, &err) < 0)
		log_warn("%s", err.text);
}

int accel_device(struct err *err)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd >= 0) {
		close(fd);
		return 0;
	}
	if (errno == EACCES)
		return err_set(err, -EACCES, "/dev/kvm is there but not for this user: "
			       "have root add you to the group it belongs to");
	if (errno == ENOENT)
		return err_set(err, -ENODEV, "this machine has no /dev/kvm");
	return err_sys(err, -errno, "/dev/kvm cannot be opened");
}

static bool has_flag(const char *line, const char *flag)
{
	const char *at = strstr(line, flag);

	return at && at[-1] == ' ' && strchr(" \n", at[strlen(flag)]);
}

/* True too when the kernel does not say. */
static bool cpu_virtualizes(void)
{
	FILE *f = fopen("/proc/cpuinfo", "re");
	bool answer = true;
	char *line = NULL;
	size_t size = 0;

	while (f && getline(&line, &size, f) > 0) {
		if (!strncmp(line, "flags\t", 6)) {
			answer = has_flag(line, "vmx") || has_flag(line, "svm");
			break;
		}
	}
	free(line);
	if (f)
		fclose(f);
	return answer;
}

int accel_promising(struct err *err)
{
	int r = accel_device(err);

	if (r == 0 && !cpu_virtualizes())
		r = err_set(err, -ENODEV, "there is /dev/kvm, but no hardware for it: "
			    "the CPU shows neither vmx nor svm");
	return r;
}
