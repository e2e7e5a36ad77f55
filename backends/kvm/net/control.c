/* The words of the control socket: see control.h. */
#include "control.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define PORT_LAST 65535

static const struct word {
	const char *name;
	unsigned numbers;
	unsigned first_from, first_to, second_to;
} words[] = {
	[CONTROL_OPEN] = { "open", 2, 1, PORT_LAST, PORT_LAST },
	[CONTROL_CLOSE] = { "close", 1, 1, PORT_LAST, 0 },
	[CONTROL_KEEP] = { "keep", 1, 0, 1, 0 },
	[CONTROL_FRAMES] = { "frames", 0, 0, 0, 0 },
	[CONTROL_END] = { "end", 0, 0, 0, 0 },
	[CONTROL_HELLO] = { "hello", 1, 1, PORT_LAST, 0 },
	[CONTROL_PORT] = { "port", 2, 1, PORT_LAST, PORT_LAST },
	[CONTROL_FAILED] = { "failed", 2, 1, PORT_LAST, PORT_LAST },
	[CONTROL_READY] = { "ready", 0, 0, 0, 0 },
};
_Static_assert(sizeof(words) / sizeof(*words) == CONTROL_VERBS, "a line a verb");

/* " NUMBER" at *at, which moves behind it. */
static bool take_number(const char **at, const char *end, unsigned long *n)
{
	const char *p = *at;

	if (p == end || *p != ' ')
		return false;
	*n = 0;
	for (p++; p < end && *p >= '0' && *p <= '9' && p - *at < 10; p++)
		*n = *n * 10 + (unsigned long)(*p - '0');
	if (p == *at + 1)
		return false;
	*at = p;
	return true;
}

int control_parse(struct control *c, const char *line, size_t len)
{
	const char *end = line + len;
	unsigned long n[2] = { 0, 0 };

	for (int verb = 0; verb < CONTROL_VERBS; verb++) {
		const struct word *w = &words[verb];
		size_t name = strlen(w->name);
		const char *at = line + name;

		if (len < name || memcmp(line, w->name, name) || (at < end && *at != ' '))
			continue;
		for (unsigned i = 0; i < w->numbers; i++)
			if (!take_number(&at, end, &n[i]))
				return -EBADMSG;
		if (at != end || (w->numbers && (n[0] < w->first_from || n[0] > w->first_to)) ||
		    n[1] > w->second_to)
			return -EBADMSG;
		*c = (struct control){ (enum control_verb)verb, (unsigned)n[0], (unsigned)n[1] };
		return 0;
	}
	return -EBADMSG;
}

size_t control_print(const struct control *c, char line[CONTROL_LINE_MAX])
{
	const struct word *w = &words[c->verb];
	int n;

	if (w->numbers == 2)
		n = snprintf(line, CONTROL_LINE_MAX, "%s %u %u\n", w->name, c->a, c->b);
	else if (w->numbers == 1)
		n = snprintf(line, CONTROL_LINE_MAX, "%s %u\n", w->name, c->a);
	else
		n = snprintf(line, CONTROL_LINE_MAX, "%s\n", w->name);
	return (size_t)n;
}
