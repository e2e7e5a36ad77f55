/* What is known of the system in a sandbox; see guest.c. */
#ifndef SBXFS_VM_GUEST_H
#define SBXFS_VM_GUEST_H

#include "vm_internal.h"

/* A job's channel has closed: have a look, unless that was done since it booted. */
void vm_guest_look(struct vm *, struct lane *);
/* It boots, or is another machine. */
void vm_guest_changed(struct vm *);
void vm_guest_finish(struct vm *);

#endif
