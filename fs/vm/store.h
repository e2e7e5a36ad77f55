/*
 * What is kept on disk of each sandbox, below <state>/vms/ID/ (0700):
 * record.json, written before a backend is asked for anything (and on disk before one
 * asks somebody else: flush.h), and jobs/. A record says what was promised (to be made,
 * made, to be destroyed); what is true is asked of the backend at the start.
 */
#ifndef SBXFS_VM_STORE_H
#define SBXFS_VM_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "backend.h"

struct err;

#define RECORD_PORTS_MAX 64
#define RECORD_TAGS_MAX 512	/* bytes, the NUL among them */
#define RECORD_COMMENT_MAX 1024

/* The script that a sandbox's draft asked for: it runs before all jobs, once. */
enum setup_state { SETUP_NONE, SETUP_PENDING, SETUP_STARTED, SETUP_DONE };

struct record {
	char id[64];		/* its folder, and what the backend knows it by: never changes */
	char name[64];		/* what users call it */
	char backend[32];
	struct vm_spec spec;
	int64_t created;	/* ms since the epoch */
	bool made;		/* its backend has told of it: it is not to be made again */
	bool destroying;
	bool foreign;		/* not made by sbxfs */
	bool protect;
	char tags[RECORD_TAGS_MAX];	/* one blank between two */
	char comment[RECORD_COMMENT_MAX];
	int64_t ttl, idle;	/* ms as they were asked for; 0: none */
	int64_t expires;	/* by ttl: ms since the epoch; 0: never */
	int64_t trashed;	/* when it was put in the trash; 0: it is not there */
	bool was_running;	/* … and ran until then */
	bool revive;	/* it came back from there and is to be started once it has stopped */
	enum setup_state setup;
	char placed[256];	/* why it is not with the backend that was asked for; "" */
	uint16_t ports[RECORD_PORTS_MAX];
	unsigned port_count;
};

/* Write <vms>/<record.id>/record.json atomically, making the folder; flushed (flush.h). */
int store_write(const char *vms, const struct record *, struct err *);
/*
 * The same of one that is there, by the helper thread (write_file_soon): for what its backend
 * would tell again.
 */
int store_write_soon(const char *vms, const struct record *, struct err *);
/*
 * Remove the folder of that id, its name at once, so that what comes later under that
 * id never meets the old files, and all in it soon (remove_soon). One that is not there is fine.
 */
int store_remove(const char *vms, const char *trash, const char *id, struct err *);
/* Move path to a fresh name below trash, which is put into *moved, to be freed. */
int trash_move(const char *trash, const char *path, char **moved);
/* What lies there goes, by the helper thread (remove_soon). */
void trash_empty(const char *trash);
/*
 * Call each(user, record) for every sandbox recorded; a folder whose record
 * cannot be read is named to bad(user, name, why) and left alone.
 */
int store_load(const char *vms, void (*each)(void *user, const struct record *),
	       void (*bad)(void *user, const char *name, const char *why), void *user,
	       struct err *);
/* The text of a record, to be given to cJSON_free; and back: 0 or -EINVAL. */
char *store_print(const struct record *);
int store_parse(const char *text, struct record *);
/* Fill spec->tag with fresh random letters and digits. */
void store_new_tag(struct vm_spec *);
/* len random bytes as 2*len hexadecimal digits and a NUL. */
void random_hex(char *out, unsigned len);
/* mkdir -p, mode 0700. */
int make_dirs(const char *path, struct err *);
/* Write a whole small file by a temporary one and rename; synced when asked. */
int write_file(const char *path, const void *data, unsigned len, bool sync, struct err *);
/* The whole of a file of at most max bytes, NUL terminated, to be freed; NULL and errno. */
char *read_file(const char *path, unsigned max);

#endif
