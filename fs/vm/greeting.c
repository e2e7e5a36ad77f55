/*
 * The first line that a job's shell prints: its token and its process id. It tells that
 * the text is about to run; nobody else is to see it.
 */
#include "command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void greeting_init(struct greeting *g, const char *token)
{
	memset(g, 0, sizeof(*g));
	snprintf(g->token, sizeof(g->token), "%s", token);
}

/* How many bytes at the end of data may be the beginning of the token. */
static size_t partial_token(const struct greeting *g, const char *data, size_t len)
{
	size_t n = len < COMMAND_TOKEN ? len : COMMAND_TOKEN - 1;

	while (n > 0 && memcmp(data + len - n, g->token, n))
		n--;
	return n;
}

static void hold(struct greeting *g, const char *data, size_t len)
{
	memcpy(g->held, data, len);
	g->held_len = len;
}

static void feed(struct greeting *g, const char *data, size_t len, struct buf *out)
{
	const char *token = memmem(data, len, g->token, COMMAND_TOKEN), *end;
	size_t keep = token ? 0 : partial_token(g, data, len), left;

	buf_put(out, data, token ? (size_t)(token - data) : len - keep);
	if (!token) {
		hold(g, data + len - keep, keep);
		return;
	}
	left = len - (size_t)(token - data);
	end = memchr(token, '\n', left);
	if (end) {
		char number[16];

		/* strtol ends at the carriage return that a terminal adds, if not before */
		snprintf(number, sizeof(number), "%.*s",
			 (int)(end - token - COMMAND_TOKEN), token + COMMAND_TOKEN);
		g->pid = (int)strtol(number, NULL, 10);
		g->over = true;
		buf_put(out, end + 1, left - (size_t)(end + 1 - token));
	} else if (left < sizeof(g->held)) {
		hold(g, token, left);
	} else {
		g->over = true;		/* not as we wrote it: then it is the job's */
		buf_put(out, token, left);
	}
}

void greeting_feed(struct greeting *g, const void *data, size_t len, struct buf *out)
{
	struct buf whole = BUF_INIT;

	if (g->over) {
		buf_put(out, data, len);
	} else if (g->held_len == 0) {
		feed(g, data, len, out);
	} else {
		buf_put(&whole, g->held, g->held_len);
		buf_put(&whole, data, len);
		g->held_len = 0;
		feed(g, (char *)buf_peek(&whole), buf_size(&whole), out);
		buf_finish(&whole);
	}
}

void greeting_end(struct greeting *g, struct buf *out)
{
	buf_put(out, g->held, g->held_len);
	g->held_len = 0;
	g->over = true;
}
