/* Make this machine what an identity says. */
#ifndef SBXFS_KVM_GUEST_APPLY_H
#define SBXFS_KVM_GUEST_APPLY_H

#include <stddef.h>

struct identity;

/* 0, or a negative errno with what failed in why. What is right already is left alone. */
int identity_apply(const struct identity *, char *why, size_t size);

/* Set the clock to the identity's time; 0 or a negative errno. */
int identity_apply_time(const struct identity *);
/* What is secret, or of this machine alone, goes: it becomes a template. */
void identity_forget(void);

#endif
