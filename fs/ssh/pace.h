/*
 * Connections to a service that minds bursts, one at a time: endpoint.h says for
 * whom. A turn is had from its callback until pace_done or pace_cancel, and the next one
 * gap_ms later.
 *
 * A service that drops connection requests does so for minutes, and each further
 * one prolongs that: so after one that was not answered nobody has a turn for
 * PACE_SILENT_MS, doubled up to PACE_SILENT_MAX_MS while that goes on.
 */
#ifndef SBXFS_SSH_PACE_H
#define SBXFS_SSH_PACE_H

#include <stdbool.h>
#include <stdint.h>

#include "list.h"

struct loop;
struct pace;
struct pace_turn;

#define PACE_SILENT_MS (60 * 1000)
#define PACE_SILENT_MAX_MS (4 * 60 * 1000)

/* go: it is this one's turn. !go: the service is silent, now or since it waits. */
typedef void pace_cb(struct pace_turn *, bool go);

struct pace_turn {
	struct list link;
	struct pace *pace;	/* NULL: neither waiting nor had */
	pace_cb *cb;
};

/* Wait for a turn; cb runs once, later from the loop. The turn is the caller's memory. */
void pace_ask(struct loop *, const char *service, unsigned gap_ms, struct pace_turn *, pace_cb *);
/* The connection was answered (accepted or refused), or it was not. */
void pace_done(struct pace_turn *, bool answered);
/* Neither. Harmless when not waiting and without a turn (all zero). */
void pace_cancel(struct pace_turn *);
/* How long it stays silent as far as we know, in ms; 0: it is not. */
int64_t pace_silent(const char *service);

#endif
