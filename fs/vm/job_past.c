/*
 * Results on disk, and the jobs that an earlier daemon left there.
 *
 * One that has no result was there when its daemon died. Whether it had been started then
 * is told by the mode of its `cmd`, which is changed before the guest is asked. What the host
 * has done since it booted can be relied on; of what it did before a part may not have come
 * to its disk, so that a job from then may have run whatever the mode is.
 */
#include "job_internal.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "flush.h"
#include "log.h"

#define RESULT_MAX (4 * 1024 * 1024)	/* of the file; most of it is the environment */

#define MODE_STARTED 0700	/* 0600 before */

int job_note_start(struct job *j)
{
	return fchmod(j->text_fd, MODE_STARTED) < 0 ? -errno : 0;
}

bool jobs_same_boot(const char *state_dir)
{
	char *path = xasprintf("%s/boot", state_dir), *was = read_file(path, 256);
	char *is = read_file("/proc/sys/kernel/random/boot_id", 256);
	bool same = is && was && !strcmp(is, was);
	struct err err = ERR_NONE;

	if (is && !same && write_file(path, is, (unsigned)strlen(is), false, &err) < 0)
		log_warn("%s", err.text);
	free(was);
	free(is);
	free(path);
	return same;
}

void job_save_result(struct job *j)
{
	cJSON *json = cJSON_CreateObject();
	char *path = xasprintf("%s/result", j->dir), *text;
	size_t len;
	int fd;

	cJSON_AddStringToObject(json, "result", job_result_names[j->result]);
	cJSON_AddNumberToObject(json, "status", j->status);
	cJSON_AddStringToObject(json, "signal", j->signal);
	cJSON_AddStringToObject(json, "why", j->why ? j->why : "");
	cJSON_AddNumberToObject(json, "created", (double)j->created);
	cJSON_AddNumberToObject(json, "started", (double)j->started);
	cJSON_AddNumberToObject(json, "ended", (double)j->ended);
	cJSON_AddNumberToObject(json, "duration_ms", (double)j->duration_ms);
	cJSON_AddStringToObject(json, "cwd", job_cwd(j));
	cJSON_AddStringToObject(json, "env", job_env(j));
	if (j->tty)
		cJSON_AddStringToObject(json, "tty", j->tty);
	cJSON_AddNumberToObject(json, "pid", j->greeting.pid);
	cJSON_AddNumberToObject(json, "timeout_ms", (double)j->timeout_ms);
	cJSON_AddNumberToObject(json, "stdin_bytes", (double)j->stdin_size);
	cJSON_AddNumberToObject(json, "dropped", (double)stream_refused(j->stream));
	text = cJSON_PrintUnformatted(json);
	len = strlen(text);
	/* Half of it, after a crash, is no JSON: such a job is lost, like one without a result. */
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, len) != (ssize_t)len)
		log_warn("job=%s cannot write %s: %s", j->id, path, strerror(errno));
	job_close_fd(&fd);
	cJSON_free(text);
	cJSON_Delete(json);
	free(path);
}

/* Numbers are never used again, also when the folder of the last one has gone. */
void jobs_save_number(struct vm *vm)
{
	char *path = xasprintf("%s/latest", vm->jobs_dir), text[32];
	struct err err = ERR_NONE;
	int n = snprintf(text, sizeof(text), "%" PRIu64 "\n", vm->last_number);

	if (write_file(path, text, (unsigned)n, false, &err) < 0)
		log_warn("vm=%s %s", vm_name(vm), err.text);
	free(path);
}

static double number_of(const cJSON *json, const char *key)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);

	return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

static void string_to(char *to, size_t size, const cJSON *json, const char *key)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, key));

	snprintf(to, size, "%s", s ? s : "");
}

static char *string_dup(const cJSON *json, const char *key)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, key));

	return xstrdup(s ? s : "");
}

/* Returns whether there is a result. */
static bool load_result(struct job *j, bool never_ran)
{
	char *path = xasprintf("%s/result", j->dir), *text = read_file(path, RESULT_MAX), name[32];
	cJSON *json = text ? cJSON_Parse(text) : NULL;
	bool found = json;

	j->result = json || !never_ran ? RESULT_LOST : RESULT_CANCELLED;
	if (json) {
		string_to(name, sizeof(name), json, "result");
		for (unsigned i = 0; i <= RESULT_CANCELLED; i++)
			if (!strcmp(name, job_result_names[i]))
				j->result = i;
		j->status = (int)number_of(json, "status");
		string_to(j->signal, sizeof(j->signal), json, "signal");
		j->why = string_dup(json, "why");
		j->created = (int64_t)number_of(json, "created");
		j->started = (int64_t)number_of(json, "started");
		j->ended = (int64_t)number_of(json, "ended");
		j->greeting.pid = (int)number_of(json, "pid");
		j->timeout_ms = (uint64_t)number_of(json, "timeout_ms");
		j->stdin_size = (uint64_t)number_of(json, "stdin_bytes");
		j->dropped = (uint64_t)number_of(json, "dropped");
		j->duration_ms = (int64_t)number_of(json, "duration_ms");
		j->cwd = string_dup(json, "cwd");
		j->env = string_dup(json, "env");
		if (cJSON_HasObjectItem(json, "tty"))
			j->tty = string_dup(json, "tty");
	} else {
		j->why = xstrdup(never_ran ? "sbxfs ended before the job was started" :
					     "sbxfs ended before the job did");
	}
	if (j->why && !*j->why) {
		free(j->why);
		j->why = NULL;
	}
	cJSON_Delete(json);
	free(text);
	free(path);
	return found;
}

static void load_job(struct vm *vm, const char *id)
{
	struct job *j = job_new(vm, id, !job_is_number(id));
	char *path = xasprintf("%s/cmd", j->dir);
	bool found, started = false;
	struct stat st;

	j->state = JOB_DONE;
	j->eof = true;
	if (stat(path, &st) == 0) {
		started = (st.st_mode & 0777) == MODE_STARTED;
		j->text_size = (uint64_t)st.st_size;
		j->created = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
	}
	free(path);
	found = load_result(j, vm->fleet->same_boot && !started);
	j->stream = stream_open(j->dir, true, vm->fleet->jobs.spool);
	if (!found)
		job_save_result(j);	/* for good, whatever is known of it later */
	if (job_is_number(id) && strtoull(id, NULL, 10) > vm->last_number)
		vm->last_number = strtoull(id, NULL, 10);
}

static int by_age(const void *a, const void *b)
{
	const struct job *const *x = a, *const *y = b;

	if ((*x)->created != (*y)->created)
		return (*x)->created < (*y)->created ? -1 : 1;
	return strverscmp((*x)->id, (*y)->id);
}

static void sort_jobs(struct vm *vm)
{
	struct job **all = xcalloc(vm->job_count, sizeof(*all));
	unsigned n = 0;

	list_for_each(j, &vm->jobs, struct job, link)
		all[n++] = j;
	qsort(all, n, sizeof(*all), by_age);
	list_init(&vm->jobs);
	for (unsigned i = 0; i < n; i++)
		list_add_tail(&vm->jobs, &all[i]->link);
	free(all);
}

void jobs_load(struct vm *vm)
{
	char *path = xasprintf("%s/latest", vm->jobs_dir), *text;
	DIR *d = opendir(vm->jobs_dir);
	struct dirent *e;
	uint64_t last = 0;

	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.' && e->d_type == DT_DIR && strlen(e->d_name) < 64)
			load_job(vm, e->d_name);
	if (d)
		closedir(d);
	sort_jobs(vm);
	text = read_file(path, 256);
	if (text && sscanf(text, "%" SCNu64, &last) == 1 && last > vm->last_number)
		vm->last_number = last;
	if (!list_empty(&vm->jobs))
		vm->latest = list_entry(vm->jobs.prev, struct job, link);
	free(text);
	free(path);
}
