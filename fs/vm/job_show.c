/* What is told of a job: exit, status, info. */
#include "job_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "facts.h"

uint64_t job_dropped(const struct job *j)
{
	return j->dropped + stream_dropped(j->stream);
}

static int signal_number(const char *name)
{
	static const struct { const char *name; int number; } known[] = {
		{ "HUP", 1 }, { "INT", 2 }, { "QUIT", 3 }, { "ILL", 4 }, { "TRAP", 5 },
		{ "ABRT", 6 }, { "BUS", 7 }, { "FPE", 8 }, { "KILL", 9 }, { "USR1", 10 },
		{ "SEGV", 11 }, { "USR2", 12 }, { "PIPE", 13 }, { "ALRM", 14 }, { "TERM", 15 },
		{ "STKFLT", 16 }, { "XCPU", 24 }, { "XFSZ", 25 }, { "VTALRM", 26 },
		{ "PROF", 27 }, { "IO", 29 }, { "PWR", 30 }, { "SYS", 31 },
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (!strcmp(known[i].name, name))
			return known[i].number;
	return 0;
}

int job_exit_print(struct job *j, struct buf *out)
{
	int number;

	if (j->state != JOB_DONE)
		return -EAGAIN;
	switch (j->result) {
	case RESULT_EXITED:
		buf_printf(out, "%d\n", j->status);
		break;
	case RESULT_SIGNALED:
		number = signal_number(j->signal);
		/* a signal whose number is not known here: the fact is that it ended by one */
		buf_printf(out, "%d\n", number ? 128 + number : 255);
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

void job_info_print(struct job *j, struct buf *out)
{
	struct facts *f = facts_create();
	struct buf status = BUF_INIT;
	char *text;

	job_status_print(j, &status);
	text = buf_take_string(&status);
	text[strcspn(text, "\n")] = 0;
	facts_text(f, "id", j->id);
	facts_text(f, "status", text);
	free(text);
	if (j->why)
		facts_text(f, "reason", j->why);
	if (j->state == JOB_QUEUED && j->vm && strcmp(vm_status(j->vm), "running"))
		facts_text(f, "waits_for", "the sandbox to run");
	else if (j->state == JOB_QUEUED)
		facts_text(f, "waits_for", "a free channel of the connection");
	if (job_cwd(j)[0])
		facts_text(f, "cwd", job_cwd(j));
	if (j->tty)
		facts_text(f, "tty", j->tty);
	facts_time(f, "created", j->created);
	facts_time(f, "started", j->started);
	facts_time(f, "ended", j->ended);
	if (j->started && j->ended)
		facts_number(f, "duration_ms", j->ended - j->started);
	facts_number(f, "cmd_bytes", (int64_t)j->text_size);
	facts_number(f, "stdin_bytes", (int64_t)j->stdin_size);
	facts_number(f, "stdout_bytes", (int64_t)stream_size(j->stream, STREAM_OUT));
	facts_number(f, "stderr_bytes", (int64_t)stream_size(j->stream, STREAM_ERR));
	if (job_dropped(j))
		facts_number(f, "dropped_bytes", (int64_t)job_dropped(j));
	facts_print(f, out);
	facts_destroy(f);
}

int64_t job_mtime(const struct job *j)
{
	return j->ended ? j->ended : j->started ? j->started : j->created;
}
