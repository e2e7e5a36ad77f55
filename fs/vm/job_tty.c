/*
 * The terminals of jobs: written to the file `tty` before the start, resized later.
 *
 * What a script on standard input needs, a terminal cannot give: bytes that arrive as they
 * were sent. So a job with a terminal has its text on the command line, always.
 */
#include "job_internal.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE_MAX_CELLS 65535		/* struct winsize has unsigned shorts */
#define TERM_MAX 63
#define TERM_USUAL "xterm-256color"

struct tty {
	unsigned cols, rows;
	const char *term;		/* borrowed; TERM_USUAL when it was not told */
};

/* 1 to 65535, without sign or blanks; 0 when it is something else. */
static unsigned parse_cells(const char *s, char **end)
{
	unsigned long n = isdigit((unsigned char)*s) ? strtoul(s, end, 10) : 0;

	return n <= SIZE_MAX_CELLS ? (unsigned)n : 0;
}

static bool parse(const char *text, struct tty *tty)
{
	char *end;

	tty->cols = parse_cells(text, &end);
	if (!tty->cols || *end != 'x')
		return false;
	tty->rows = parse_cells(end + 1, &end);
	if (!tty->rows)
		return false;
	tty->term = *end == ' ' ? end + 1 : TERM_USUAL;
	if (*end && *end != ' ')
		return false;
	for (const char *p = tty->term; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("-+._", *p))
			return false;
	return *tty->term && strlen(tty->term) <= TERM_MAX;
}

const char *job_tty(const struct job *j)
{
	return j->tty ? j->tty : "";
}

static void resize(struct job *j, const struct tty *to)
{
	const char *type = strchr(j->tty, ' ');		/* stays what it started with */
	char *text = xasprintf("%ux%u%s", to->cols, to->rows, type ? type : "");

	free(j->tty);
	j->tty = text;
	if (j->channel)
		ssh_channel_terminal(j->channel, "", to->cols, to->rows);
}

int job_set_tty(struct job *j, const char *value, struct err *err)
{
	struct tty tty;

	if (*value && !parse(value, &tty))
		return err_set(err, -EINVAL, "tty is COLUMNSxROWS, as in 80x24, and the terminal's "
					     "type behind a blank if it is not " TERM_USUAL);
	if (j->state == JOB_DONE)
		return err_set(err, -ESRCH, "job %s is over", j->id);
	if (j->state != JOB_COLLECTING && !*value)
		return err_set(err, -EBUSY, "job %s has been started: it keeps its terminal",
			       j->id);
	if (j->state != JOB_COLLECTING && !j->tty)
		return err_set(err, -EBUSY, "job %s has been started without a terminal", j->id);
	if (j->state != JOB_COLLECTING) {
		resize(j, &tty);
	} else {
		free(j->tty);
		j->tty = *value ? xstrdup(value) : NULL;
	}
	return 0;
}

bool job_tty_fits(const struct job *j, const struct command *c)
{
	return !j->tty || !c->script_on_stdin;
}

void job_open_tty(struct job *j)
{
	struct tty tty;

	if (j->tty && parse(j->tty, &tty))
		ssh_channel_terminal(j->channel, tty.term, tty.cols, tty.rows);
}
