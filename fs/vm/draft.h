/*
 * Drafts: what a sandbox shall be, before it is made (.sbxfs/new/NAME). A draft is no
 * sandbox and costs nothing; it is kept over a restart, and goes a day after its last change.
 *
 * Each file of a draft is a key with a value: the one that was written, or the default.
 */
#ifndef SBXFS_VM_DRAFT_H
#define SBXFS_VM_DRAFT_H

#include <stdbool.h>
#include <stdint.h>

struct buf;
struct err;
struct fleet;

struct draft;

/* -EEXIST, -EINVAL a bad name, -EDQUOT there are too many. */
int draft_create(struct fleet *, const char *name, struct err *);
/* Borrowed, or NULL. */
struct draft *draft_find(struct fleet *, const char *name);
void draft_each(struct fleet *, void (*each)(void *user, struct draft *), void *user);
const char *draft_name(const struct draft *);
int64_t draft_changed(const struct draft *);	/* ms since the epoch */
int draft_rename(struct draft *, const char *name, struct err *);
void draft_remove(struct draft *);

/*
 * Its keys: those of its backend that this can do. lines: its value may have several lines,
 * and >> adds one.
 */
void draft_keys(struct draft *, void (*each)(void *user, const char *key, bool lines), void *user);
bool draft_has(struct draft *, const char *key);
/* No value of it, and so free for a file of whoever edits it: 0. Else -EINVAL and why. */
int draft_name_free(struct draft *, const char *name, struct err *);
/* The value as it is written or by default, with a newline; nothing when it is empty. */
void draft_print(struct draft *, const char *key, struct buf *out);
/* -EINVAL and what is allowed, -ESTALE. An empty value is the default again. */
int draft_set(struct draft *, const char *key, const char *value, struct err *);
/* The sandbox of that name is made; the draft is gone. Or < 0 as fleet_create, nothing changed. */
int draft_make(struct draft *, const char *name, struct err *);

#endif
