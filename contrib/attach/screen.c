/* See screen.h. */
#include "screen.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Modes that outlast the program that set them; of these the cursor and wrapping are usually on. */
static const int known_modes[] = {
	1, 7, 9, 25, 47, 66, 1000, 1002, 1003, 1004, 1005, 1006, 1047, 1049, 2004,
};

static bool usually_on(int mode)
{
	return mode == 7 || mode == 25;
}

static void set_mode(struct screen *s, int number, bool on)
{
	bool known = false;
	size_t i;

	for (i = 0; i < sizeof(known_modes) / sizeof(known_modes[0]); i++)
		known |= known_modes[i] == number;
	for (i = 0; i < s->mode_count && s->modes[i].number != number; i++)
		;
	if (!known || (i == s->mode_count && i == SCREEN_MODES))
		return;
	s->modes[i].number = number;
	s->modes[i].on = on;
	if (i == s->mode_count)
		s->mode_count++;
}

/* ESC [ ? 1049 ; 25 h */
static void note_modes(struct screen *s, bool on)
{
	char *p = s->sequence + 3, *end;

	while (*p >= '0' && *p <= '9') {
		set_mode(s, (int)strtol(p, &end, 10), on);
		p = *end == ';' ? end + 1 : end;
	}
}

/* Does the terminal answer this? Device attributes, status, sizes, colours, settings. */
static bool is_question(const struct screen *s)
{
	const char *body = s->sequence + 2;
	char last = s->sequence[s->len - 1];

	switch (s->sequence[1]) {
	case ']':
		return strstr(body, ";?") != NULL;
	case 'P':
		return body[0] == '+' || body[0] == '$';
	case '[':
		return last == 'c' || last == 'n' || last == 'x' ||
		       (last == 't' && atoi(body) >= 11) ||
		       (last == 'p' && strchr(body, '$')) ||
		       (last == 'q' && body[0] == '>') ||
		       (last == 'u' && body[0] == '?');
	}
	return s->sequence[1] == 'Z';
}

/* The sequence is whole: keep it or not. Returns how many bytes of it go to out. */
static size_t finish(struct screen *s, char *out)
{
	size_t len = s->len;
	char last = len ? s->sequence[len - 1] : 0;
	bool keep;

	s->sequence[len] = 0;
	keep = s->too_long || !is_question(s);
	if (!s->too_long && s->state == CONTROL && s->sequence[2] == '?' &&
	    (last == 'h' || last == 'l'))
		note_modes(s, last == 'h');
	s->state = TEXT;
	s->len = 0;
	s->too_long = false;
	if (keep && out)
		memcpy(out, s->sequence, len);
	return keep && out ? len : 0;
}

size_t screen_rest(const struct screen *s, char *out)
{
	memcpy(out, s->sequence, s->len);
	return s->len;
}

/* Does c end the sequence that is being read? */
static bool ends(struct screen *s, char c)
{
	switch (s->state) {
	case ESCAPE:
		if (c == '[' || c == ']' || c == 'P') {
			s->state = c == '[' ? CONTROL : STRING;
			return false;
		}
		return c < ' ' || c > '/';	/* ESC ( B has an intermediate */
	case CONTROL:
		return c >= '@' && c <= '~';
	case STRING:
		if (c == 033)
			s->state = STRING_ESCAPE;
		return c == 007;
	case STRING_ESCAPE:
		s->state = STRING;
		return c == '\\';
	default:
		return false;
	}
}

size_t screen_feed(struct screen *s, const char *data, size_t n, char *out)
{
	size_t done = 0;

	for (size_t i = 0; i < n; i++) {
		char c = data[i];

		if (s->state == TEXT && c != 033) {
			if (out && c != 005)	/* ENQ is a question too */
				out[done++] = c;
			continue;
		}
		if (s->len == SCREEN_SEQUENCE - 1) {
			if (out) {
				memcpy(out + done, s->sequence, s->len);
				done += s->len;
			}
			s->len = 0;
			s->too_long = true;
		}
		s->sequence[s->len++] = c;
		if (s->state == TEXT)
			s->state = ESCAPE;
		else if (ends(s, c))
			done += finish(s, out ? out + done : NULL);
	}
	return done;
}

size_t screen_modes(const struct screen *s, bool enter, char *out)
{
	size_t done = 0;

	for (size_t i = 0; i < s->mode_count; i++) {
		int number = s->modes[i].number;
		bool on = s->modes[i].on;

		if (on != usually_on(number))
			done += (size_t)snprintf(out + done, 16, "\033[?%d%c", number,
						 (enter ? on : !on) ? 'h' : 'l');
	}
	return done;
}
