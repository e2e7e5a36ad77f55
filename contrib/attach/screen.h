/*
 * What a program on a terminal has sent to the screen, looked at on its way.
 *
 * Two things need it. Output that is shown a second time must not ask the terminal anything
 * (its answer would be typed into the program); and whoever leaves, or comes later, needs the
 * modes that are on (the second screen, mouse reports, a hidden cursor). Escape sequences
 * as in ECMA-48, private modes as in xterm. Pure.
 */
#ifndef SBX_SCREEN_H
#define SBX_SCREEN_H

#include <stdbool.h>
#include <stddef.h>

#define SCREEN_MODES 16
#define SCREEN_SEQUENCE 256

struct screen {
	enum {
		TEXT,
		ESCAPE,			/* ESC was seen */
		CONTROL,		/* ESC [ … to a final byte */
		STRING,			/* ESC ] … or ESC P … to BEL or ESC \ */
		STRING_ESCAPE,		/* … and ESC in it */
	} state;
	char sequence[SCREEN_SEQUENCE];	/* the one that is being read */
	size_t len;
	bool too_long;			/* it is passed on in parts, unexamined */
	struct { int number; bool on; } modes[SCREEN_MODES];
	size_t mode_count;
};

/*
 * Look at n bytes. out, of n + SCREEN_SEQUENCE bytes, gets them without the questions; the start of
 * a sequence is held back until its end comes. Returns how many. out NULL: only look.
 */
size_t screen_feed(struct screen *, const char *data, size_t n, char *out);
/* What is held back, to be shown before the rest of it is shown without being fed for out. */
size_t screen_rest(const struct screen *, char *out);
/*
 * Sequences that bring a fresh terminal into these modes (enter), or back to its usual ones.
 * out has 16 bytes for each of SCREEN_MODES. Returns how many were written.
 */
size_t screen_modes(const struct screen *, bool enter, char *out);

#endif
