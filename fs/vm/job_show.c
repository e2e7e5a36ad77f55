/* What is told of a job: exit, status, info. */
#include "job_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "facts.h"

#define COMMAND_SHOWN 200

uint64_t job_dropped(const struct job *j)
{
	return j->dropped + stream_dropped(j->stream);
}

int job_exit_print(struct job *j, struct buf *out)
{
	int number = 0;

	if (j->state != JOB_DONE)
		return -EAGAIN;
	switch (j->result) {
	case RESULT_EXITED:
		buf_printf(out, "%d\n", j->status);
		break;
	case RESULT_SIGNALED:
		signal_name(j->signal, &number);
		/* a signal whose number is not known here: the fact is that it ended by one */
		buf_printf(out, "%d\n", number ? 128 + number : 255);
		break;
	case RESULT_TIMEOUT:
		buf_printf(out, "124\n");
		break;
	case RESULT_LOST:
	case RESULT_CANCELLED:
		buf_printf(out, "%s\n", job_result_names[j->result]);
		break;
	}
	return 0;
}

void job_status_print(struct job *j, struct buf *out)
{
	static const char *const names[] = {
		[JOB_COLLECTING] = "collecting\n", [JOB_QUEUED] = "queued\n",
		[JOB_STARTING] = "queued\n", [JOB_RUNNING] = "running\n",
	};

	if (j->state != JOB_DONE) {
		buf_put(out, names[j->state], strlen(names[j->state]));
		return;
	}
	if (j->result == RESULT_EXITED)
		buf_printf(out, "exited %d", j->status);
	else if (j->result == RESULT_SIGNALED)
		buf_printf(out, "signaled %s", j->signal);
	else
		buf_printf(out, "%s%s%s", job_result_names[j->result],
			   j->result == RESULT_LOST && j->why ? " " : "",
			   j->result == RESULT_LOST && j->why ? j->why : "");
	buf_printf(out, "\n");
}

/* The first line of the text, as far as it can be shown in one line of ASCII. */
static void add_command(struct facts *f, struct job *j)
{
	char head[COMMAND_SHOWN + 1];
	ssize_t n = job_text_read(j, head, COMMAND_SHOWN, 0);

	if (j->state == JOB_DONE)
		job_rest(j);
	if (n <= 0)
		return;
	head[n] = 0;
	head[strcspn(head, "\r\n")] = 0;
	for (char *p = head; *p; p++)
		if ((unsigned char)*p < ' ' || (unsigned char)*p >= 0x7f)
			*p = '?';
	facts_text(f, "command", head);
}

/* Values may be secrets: only the names are told. */
static void add_env_names(struct facts *f, const char *env)
{
	struct buf names = BUF_INIT;
	char *text;

	while (*env) {
		size_t len = strcspn(env, "\n"), name = strcspn(env, "=\n");

		if (name > 0)
			buf_printf(&names, "%s%.*s", buf_size(&names) ? " " : "", (int)name, env);
		env += len + (env[len] == '\n');
	}
	text = buf_take_string(&names);
	if (*text)
		facts_text(f, "env", text);
	free(text);
}

static void add_line(struct facts *f, const char *key, struct buf *line)
{
	char *text = buf_take_string(line);

	text[strcspn(text, "\n")] = 0;
	facts_text(f, key, text);
	free(text);
}

static void add_state(struct facts *f, struct job *j)
{
	struct buf line = BUF_INIT;

	facts_text(f, "id", j->id);
	job_status_print(j, &line);
	add_line(f, "status", &line);
	if (job_exit_print(j, &line) == 0)
		add_line(f, "exit", &line);
	if (j->why)
		facts_text(f, "reason", j->why);
	if (j->state == JOB_QUEUED && j->vm && strcmp(vm_status(j->vm), "running"))
		facts_text(f, "waits_for", vm_waits_for(j->vm));
	else if (j->state == JOB_QUEUED && j->vm && setup_holds(j->vm, j))
		facts_text(f, "waits_for", "the setup of the sandbox, job 0");
	else if (j->state == JOB_QUEUED || j->state == JOB_STARTING)
		facts_text(f, "waits_for", "a free channel of the connection");
}

static void add_settings(struct facts *f, struct job *j)
{
	struct buf line = BUF_INIT;

	if (job_cwd(j)[0])
		facts_text(f, "cwd", job_cwd(j));
	add_env_names(f, job_env(j));
	if (job_timeout(j)) {
		duration_print(&line, job_timeout(j));
		add_line(f, "timeout", &line);
	}
	if (j->tty)
		facts_text(f, "tty", j->tty);
}

void job_info_print(struct job *j, struct buf *out, bool json)
{
	struct facts *f = facts_create();

	add_state(f, j);
	if (j->greeting.pid)
		facts_number(f, "pid", j->greeting.pid);
	add_command(f, j);
	add_settings(f, j);
	facts_time(f, "created", j->created);
	facts_time(f, "started", j->started);
	facts_time(f, "ended", j->ended);
	if (j->started && (j->ended || j->state == JOB_RUNNING))
		facts_number(f, "duration_ms",
			     j->ended ? j->duration_ms : clock_ms() - j->started_clock);
	facts_number(f, "cmd_bytes", (int64_t)j->text_size);
	facts_number(f, "stdin_bytes", (int64_t)j->stdin_size);
	facts_number(f, "stdout_bytes", (int64_t)stream_size(j->stream, STREAM_OUT));
	facts_number(f, "stderr_bytes", (int64_t)stream_size(j->stream, STREAM_ERR));
	facts_number(f, "dropped_bytes", (int64_t)job_dropped(j));
	if (json)
		facts_print_json(f, out);
	else
		facts_print(f, out);
	facts_destroy(f);
}

int64_t job_mtime(const struct job *j)
{
	return j->ended ? j->ended : j->started ? j->started : j->created;
}
