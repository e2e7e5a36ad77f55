/* jobs/ of a sandbox, and the folder of each job. */
#include "job_node.h"

#include <errno.h>
#include <string.h>

#include "buf.h"
#include "command.h"
#include "dirbuf.h"
#include "err.h"
#include "job.h"
#include "scratch.h"
#include "text.h"
#include "tree_internal.h"
#include "value.h"
#include "vm.h"

/* --- the small files of a job ------------------------------------------------------ */

static void status_print(struct node *node, struct buf *out)
{
	job_status_print(node->job, out);
}

static void info_print(struct node *node, struct buf *out)
{
	job_info_print(node->job, out, false);
}

static void info_json_print(struct node *node, struct buf *out)
{
	job_info_print(node->job, out, true);
}

static void cwd_print(struct node *node, struct buf *out)
{
	value_print(out, job_cwd(node->job));
}

static int busy(struct node *node, int r, struct err *err)
{
	return r == -EBUSY ? err_set(err, r, "job %s has been started: this cannot change",
				     job_id(node->job)) : r;
}

static int cwd_store(struct node *node, const char *value, struct err *err)
{
	int r = value_check_cwd(value, err);

	return r < 0 ? r : busy(node, job_set_cwd(node->job, value), err);
}

static void env_print(struct node *node, struct buf *out)
{
	value_print(out, job_env(node->job));
}

static int env_store(struct node *node, const char *value, struct err *err)
{
	int r = value_check_env(value, err);

	return r < 0 ? r : busy(node, job_set_env(node->job, value), err);
}

static void tty_print(struct node *node, struct buf *out)
{
	value_print(out, job_tty(node->job));
}

static int tty_store(struct node *node, const char *value, struct err *err)
{
	return job_set_tty(node->job, value, err);
}

static void timeout_print(struct node *node, struct buf *out)
{
	value_print_timeout(out, job_timeout(node->job));
}

static int timeout_store(struct node *node, const char *value, struct err *err)
{
	uint64_t ms;
	int r = value_parse_timeout(value, &ms, err);

	if (r == 0 && job_set_timeout(node->job, ms) < 0)
		r = err_set(err, -EBUSY, "job %s has ended: it has no timeout any more",
			    job_id(node->job));
	return r;
}

static void ctl_print(struct node *node, struct buf *out)
{
	buf_printf(out, "kill signal eof\n");
}

static int ctl_eof(struct job *job, struct err *err)
{
	int r = job_stdin_eof(job);

	if (r == -EAGAIN)
		return err_set(err, r, "job %s has not read its input so far yet", job_id(job));
	return r < 0 ? err_set(err, -EPIPE, "the input of job %s has ended", job_id(job)) : 0;
}

static int ctl_verb(struct node *node, const char *verb, struct err *err)
{
	if (!strncmp(verb, "signal", 6) && (!verb[6] || verb[6] == ' ' || verb[6] == '\t'))
		return job_signal(node->job, verb + 6 + strspn(verb + 6, " \t"), err);
	if (!strcmp(verb, "kill"))
		return job_kill(node->job, err);
	if (!strcmp(verb, "eof"))
		return ctl_eof(node->job, err);
	return err_set(err, -EINVAL, "a job's ctl knows kill, signal NAME and eof, not \"%s\"",
		       verb);
}

static int ctl_store(struct node *node, const char *value, struct err *err)
{
	return value_each_line(node, value, ctl_verb, err);
}

static const struct text_file job_texts[] = {
	{ "status", &text_ro_ops, status_print, NULL, TEXT_VALUE },
	{ "ctl", &text_rw_ops, ctl_print, ctl_store, TEXT_VERBS },
	{ "cwd", &text_rw_ops, cwd_print, cwd_store, TEXT_VALUE },
	{ "env", &text_rw_ops, env_print, env_store, TEXT_LINES },
	{ "tty", &text_rw_ops, tty_print, tty_store, TEXT_VALUE },
	{ "timeout", &text_rw_ops, timeout_print, timeout_store, TEXT_VALUE },
	{ "info", &text_ro_ops, info_print, NULL, TEXT_VALUE },
	{ "info.json", &text_ro_ops, info_json_print, NULL, TEXT_VALUE },
};

/* --- a job's folder -------------------------------------------------------------------- */

const struct job_entry job_entries[] = {
	{ "cmd", &cmd_ops, 0 },
	{ "stdin", &stdin_ops, 0 },
	{ "stdout", &stream_ops, STREAM_OUT },
	{ "stderr", &stream_ops, STREAM_ERR },
	{ "log", &stream_ops, STREAM_LOG },
	{ "exit", &exit_ops, 0 },
	{ NULL, NULL, 0 },
};

struct node *job_entry_get(struct node *dir, const char *name)
{
	for (const struct job_entry *e = job_entries; e->name; e++)
		if (!strcmp(e->name, name)) {
			struct node *node = node_get(dir, name, e->ops, dir->vm, dir->job);

			node->arg = (void *)(uintptr_t)e->which;
			return node;
		}
	return NULL;
}

static int job_dir_lookup(struct node *dir, const char *name, struct node **child)
{
	if (job_removed(dir->job))
		return -ESTALE;
	*child = job_entry_get(dir, name);
	for (size_t i = 0; !*child && i < sizeof(job_texts) / sizeof(job_texts[0]); i++)
		if (!strcmp(job_texts[i].name, name))
			*child = text_node_get(dir, &job_texts[i]);
	return *child ? 0 : scratch_lookup(dir, name, child);
}

static int job_dir_list(struct node *dir, struct dirbuf *out)
{
	for (const struct job_entry *e = job_entries; e->name; e++)
		dirbuf_add(out, e->name, S_IFREG);
	for (size_t i = 0; i < sizeof(job_texts) / sizeof(job_texts[0]); i++)
		dirbuf_add(out, job_texts[i].name, S_IFREG);
	scratch_list(dir, out);
	return 0;
}

const struct node_ops job_dir_ops = {
	.kind = "job", .mode = S_IFDIR | 0755,
	.lookup_now = job_dir_lookup, .list = job_dir_list,
	.create = scratch_create, .unlink = scratch_unlink, .rename = scratch_rename,
};

/* --- jobs/ -------------------------------------------------------------------------------- */

static int latest_readlink(struct req *req, struct node *node)
{
	struct job *job = job_latest(node->vm);

	if (!job)
		return -ENOENT;
	req_reply_readlink(req, job_id(job));
	return 0;
}

static int latest_stat(struct node *node, struct stat *st)
{
	struct job *job = job_latest(node->vm);

	st->st_size = job ? (off_t)strlen(job_id(job)) : 0;
	return 0;
}

const struct node_ops jobs_latest_ops = {
	.kind = "latest", .mode = S_IFLNK | 0777, .stat = latest_stat, .readlink = latest_readlink,
};

static int jobs_lookup(struct node *dir, const char *name, struct node **child)
{
	struct job *job;

	if (!strcmp(name, "latest") && job_latest(dir->vm)) {
		*child = node_get(dir, name, &jobs_latest_ops, dir->vm, NULL);
		return 0;
	}
	job = job_find(dir->vm, name);
	if (!job)
		return -ENOENT;
	*child = node_get(dir, name, &job_dir_ops, dir->vm, job);
	return 0;
}

static void list_job(void *user, struct job *job)
{
	dirbuf_add(user, job_id(job), S_IFDIR);
}

static int jobs_list(struct node *dir, struct dirbuf *out)
{
	if (job_latest(dir->vm))
		dirbuf_add(out, "latest", S_IFLNK);
	job_each(dir->vm, list_job, out);
	return 0;
}

static int jobs_mkdir(struct req *req, struct node *dir, const char *name, mode_t mode)
{
	struct err err = ERR_NONE;
	struct node *child;
	struct job *job;
	struct stat st;

	if (job_create(dir->vm, name, &job, &err) < 0)
		return req_fail(dir, "mkdir", name, &err);
	child = node_get(dir, name, &job_dir_ops, dir->vm, job);
	job_unref(job);
	node_stat_init(child, &st);
	req_reply_entry(req, child, &st, 0);
	node_unref(child);
	return 0;
}

static int jobs_rmdir(struct req *req, struct node *dir, const char *name)
{
	struct job *job = job_find(dir->vm, name);
	struct err err = ERR_NONE;

	if (!job)
		return -ENOENT;
	if (job_remove(job, &err) < 0)
		return req_fail(dir, "rmdir", name, &err);
	req_reply_err(req, 0);
	return 0;
}

const struct node_ops jobs_ops = {
	.kind = "jobs", .mode = S_IFDIR | 0755,
	.lookup_now = jobs_lookup, .list = jobs_list, .mkdir = jobs_mkdir, .rmdir = jobs_rmdir,
};
