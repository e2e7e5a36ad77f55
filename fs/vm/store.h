/*
 * What is kept on disk of each sandbox, below <state>/vms/NAME/ (0700):
 * record.json, written and synced before a backend is asked for anything, and
 * jobs/. A record says what was promised (to be made, made, to be destroyed);
 * what is true is asked of the backend at the start.
 */
#ifndef SBXFS_VM_STORE_H
#define SBXFS_VM_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "backend.h"

struct err;

struct record {
	char name[64];
	char backend[32];
	struct vm_spec spec;
	int64_t created;	/* ms since the epoch */
	bool made;		/* its backend has told of it: it is not to be made again */
	bool destroying;
};

/* Write <vms>/<record.name>/record.json atomically, synced, making the folder. */
int store_write(const char *vms, const struct record *, struct err *);
/*
 * Remove the folder of that name and everything in it, first of all its name: what
 * comes later under that name never meets the old files. One that is not there is fine.
 */
int store_remove(const char *vms, const char *trash, const char *name, struct err *);
/* Move path to a fresh name below trash, which is put into *moved, to be freed. */
int trash_move(const char *trash, const char *path, char **moved);
/*
 * Call each(user, record) for every sandbox recorded; a folder whose record
 * cannot be read is named to bad(user, name, why) and left alone.
 */
int store_load(const char *vms, void (*each)(void *user, const struct record *),
	       void (*bad)(void *user, const char *name, const char *why), void *user,
	       struct err *);
/* Fill spec->tag with fresh random letters and digits. */
void store_new_tag(struct vm_spec *);
/* len random bytes as 2*len hexadecimal digits and a NUL. */
void random_hex(char *out, unsigned len);
/* mkdir -p, mode 0700. */
int make_dirs(const char *path, struct err *);
/* Remove a tree of files of ours. 0 or the first negative errno; a missing one is fine. */
int remove_tree(const char *path);
/* Write a whole small file by a temporary one and rename; synced when asked. */
int write_file(const char *path, const void *data, unsigned len, bool sync, struct err *);
/* The whole of a file of at most max bytes, NUL terminated, to be freed; NULL and errno. */
char *read_file(const char *path, unsigned max);

#endif
