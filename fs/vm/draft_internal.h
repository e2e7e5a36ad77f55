/* What draft.c and draft_keys.c share; nobody else includes it. */
#ifndef SBXFS_VM_DRAFT_INTERNAL_H
#define SBXFS_VM_DRAFT_INTERNAL_H

#include <cjson/cJSON.h>

#include "draft.h"
#include "vm_internal.h"

struct draft {
	UT_hash_handle hh;
	struct fleet *fleet;
	char name[64];
	int64_t changed;
	cJSON *values;		/* what was written, by key */
};

/* draft_keys.c */
/*
 * What it says, but for the key that is given (NULL: all). strict: what does not go together
 * is an error; else it is passed over.
 */
int draft_plan(struct draft *, const char *without, bool strict, struct plan *, struct err *);
/* May the key have this value, with the others as they are? -EINVAL and what is allowed. */
int draft_check(struct draft *, const char *key, const char *value, struct err *);

#endif
