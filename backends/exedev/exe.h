/* What the files of the exe.dev backend share; nobody else includes it. */
#ifndef SBXFS_EXEDEV_EXE_H
#define SBXFS_EXEDEV_EXE_H

#include <stdbool.h>
#include <stdint.h>
#include <uthash.h>

#include "api.h"
#include "backend.h"
#include "cvm_record.h"
#include "err.h"
#include "list.h"
#include "loop.h"

struct http;
struct proc;
struct token;

#define EXE_API "https://exe.dev/exec"
/* Own VMs carry this tag, and another one with the record's random tag behind a dash. */
#define EXE_TAG "sbxfs"

/*
 * The args: of TAG and UNTAG all tags that it shall have; of PORT, RESIZE, CLEAN words; of
 * RENAME and COMMENT a text; of the others none.
 */
enum cvm_op { OP_RESTART, OP_PAUSE, OP_RESUME, OP_RENAME, OP_TAG, OP_UNTAG, OP_COMMENT, OP_RESIZE,
	      OP_PORT, OP_PUBLIC, OP_PRIVATE, OP_STAT, OP_UNMARK, OP_CLEAN };

enum show { SHOW_ALL, SHOW_OWN, SHOW_TAG };

struct exe {
	struct backend base;
	struct loop *loop;
	const struct backend_events *events;
	void *user;
	char *state_dir;
	/* the configuration */
	char *identity, *known_hosts, *login, *hosts, *api;
	enum show show;
	char show_tag[64];
	bool sudo;
	bool control;			/* there is a way to ask the service: else only hosts */
	bool needs_token;
	int64_t refresh_ms, settle_ms, stat_ms;
	unsigned gap_ms;
	/* asking */
	struct http *http;
	struct token *token;
	struct list asks;
	unsigned grants, grants_known;	/* bits of enum api_grant */
	unsigned missing;		/* of those known: the service has no such command */
	unsigned probe;			/* the grant being found out; GRANT_COUNT: none */
	struct ask *probing;
	bool probe_anew;		/* there is another token since that was sent */
	bool ready_told, is_ready;
	char unready[ERR_TEXT_MAX];
	/* the fleet */
	struct cvm *vms;
	struct ask *listing;		/* `ls`, under way */
	int64_t listing_began;
	bool listing_wanted;		/* another one: the one under way may be too early */
	bool listed;			/* at least once */
	int64_t doubted;		/* that one began, and lacked most; 0: the last did not */
	unsigned listing_failures;
	struct loop_timer refresh;	/* the next `ls` */
	struct list tombs;		/* names that were removed since the `ls` under way began */
	struct list keys;		/* of known_hosts: see hostkey.c */
	struct loop_timer stats;
	struct loop_timer saver;	/* of those that are unsaved, one a turn */
	struct loop_later start;
};

/* --- exedev.c --- */

struct exe *exe_of(struct backend *);
/* NULL: *err says that there is none. */
struct cvm *exe_find(struct backend *, const char *id, struct err *);
/* Have cvm_do do it, if it may be asked for that. */
int exe_simple(struct backend *, const char *id, enum api_grant, enum cvm_op, const char *arg,
	       struct err *);

/* --- conf.c --- */

int exe_take_conf(struct exe *, const struct backend_conf *, struct err *);
/* The certificates to trust, as curl(1) has it; NULL: the system's. Borrowed. */
const char *exe_ca_file(const struct backend_conf *);

/* --- notes.c: ops --- */

int exe_annotate(struct backend *, const char *id, const char *tags, const char *comment,
		 struct err *);
int exe_port_open(struct backend *, const char *id, unsigned port, struct err *);
int exe_port_close(struct backend *, const char *id, unsigned port, struct err *);
int exe_port_url(struct backend *, const char *id, unsigned port, struct buf *out);
void exe_port_get(struct backend *, const char *id, unsigned port, const char *key,
		  struct buf *out);
int exe_port_set(struct backend *, const char *id, unsigned port, const char *key,
		 const char *value, struct err *);

/* --- ask.c: a request with its token, and what it means --- */

struct ask;
/*
 * The answer; not_sent: certainly nothing has reached the service (the verdict is UNCLEAR).
 * Borrowed for the call.
 */
typedef void ask_cb(void *user, const struct api_answer *, bool not_sent);
/* Ask the line (taken). cb runs exactly once, later, unless ask_cancel came first. */
struct ask *exe_ask(struct exe *, enum api_grant, char *line, ask_cb *, void *user);
void ask_cancel(struct ask *);		/* takes NULL */
/* Nothing of it has been sent (or the service has said that it was not run). */
bool ask_is_waiting(const struct ask *);	/* takes NULL */
void asks_cancel(struct exe *);
/* The token is there, or is not: whoever waits for it goes on. */
void asks_go_on(struct exe *);
/* 0, or -EACCES with a sentence: the token is known not to allow it. */
int exe_may(const struct exe *, enum api_grant, struct err *);
/* Find out what the token allows, and which capabilities follow. */
void exe_find_grants(struct exe *);
/* The same anew: the token is another one. */
void exe_new_token(struct exe *);
/* Tell the fleet whether VMs can be made, when that changed. why NULL: they can. */
void exe_tell_ready(struct exe *, const char *why);

/* --- listing.c: what the service has, and what that changes --- */

/* An `ls` that begins from now on is wanted, in ms. */
void exe_list(struct exe *, int64_t ms);
/* That name is gone as of now: an older `ls` may still have it. */
void exe_bury(struct exe *, const char *name);
void listing_finish(struct exe *);

/* --- hostkey.c --- */

/* The key to pin for host, or NULL: it is being looked up, and cvm_key_came follows. */
const char *exe_host_key(struct exe *, const char *host, int port);
void hostkeys_finish(struct exe *);

/* --- cvm.c: one VM --- */

struct cvm_task {		/* something asked for, in order, one at a time */
	struct list link;
	enum cvm_op op;
	char *arg;
	unsigned tries;
};

struct cvm {
	UT_hash_handle hh;	/* exe->vms by rec.id */
	struct exe *exe;
	struct cvm_record rec;
	bool fixed;		/* of `hosts`: no service knows it, nothing is recorded */
	bool told;		/* the fleet has heard of it */
	bool there;		/* at the service, as far as is known: an `ls` without it is news */
	enum vm_state state;	/* told last */
	struct endpoint to;	/* told last, with VM_UP */
	bool up_pending, up_lazy;	/* VM_UP is to be told when the host key is known */
	struct ask *ask;	/* under way */
	struct list tasks;
	struct loop_timer timer;	/* the next attempt */
	unsigned tries;
	int64_t changed_at;	/* a change of ours ended: an `ls` from before says nothing */
	int64_t unclear_at;	/* `new` or `cp` was sent and its outcome is not known; 0: it is */
	int64_t look_after;	/* waits for an `ls` that began then or later; 0: it does not */
	bool taken;		/* the last answer was that the name is */
	char *last_words;	/* of the service, about an attempt that failed */
	unsigned removals;	/* `rm` was answered so often, and it is to be gone */
	struct buf *stats;	/* lines for info; NULL: none yet */
	bool unsaved;		/* what `ls` told last is not in the record yet */
};

struct cvm *cvm_add(struct exe *, const struct cvm_record *);
struct cvm *cvm_find(struct exe *, const char *id);
void cvm_free(struct cvm *);
/* Tell the fleet of a state. lazy: of VM_UP, nothing has to be proved now. */
void cvm_tell(struct cvm *, enum vm_state, bool lazy, const struct err *);
void cvm_tell_about(struct cvm *);
void cvm_trouble(struct cvm *, const char *operation, int code, const char *text);
void cvm_save(struct cvm *);
/*
 * Soon, by the helper thread: of what `ls` would tell again to who was killed before. One VM a
 * turn of the loop.
 */
void cvm_save_soon(struct cvm *);
/* Its tag at the service: "sbxfs-…". */
const char *cvm_tag(const struct cvm *, char out[64]);
/* A host key was found: who waits for one goes on. */
void cvm_key_came(struct cvm *);
/* `ls`, begun at `began`, has it so (NULL: has it not). */
void cvm_listed(struct cvm *, const struct api_vm *, int64_t began);
/* Does an `ls` that began then say anything of it? */
bool cvm_heeds(const struct cvm *, int64_t began);
/* What was adopted from the records goes on. */
void cvm_resume(struct cvm *);
/* The service has it no more: record and VM go, and the fleet is told. */
void cvm_forget(struct cvm *);
/* `ls` has failed: what the records say of it is all there is. */
void cvm_unlisted(struct cvm *);
void cvm_info(const struct cvm *, struct buf *out);
/* The growing waits between attempts: 0.5 s to 30 s. */
int64_t cvm_backoff(unsigned tries);

/* --- cvm_make.c: create, clone, destroy --- */

void cvm_make(struct cvm *);
void cvm_make_soon(struct cvm *);	/* for ops: they must not call events */
void cvm_make_listed(struct cvm *, const struct api_vm *);
void cvm_destroy(struct cvm *);
void cvm_destroy_listed(struct cvm *, const struct api_vm *);

/* --- cvm_task.c: what is asked of one that exists --- */

void cvm_do(struct cvm *, enum cvm_op, const char *arg);
void cvm_tasks_go(struct cvm *);
void cvm_tasks_finish(struct cvm *);
/* The name that it may have already, since it was asked for; or NULL. */
const char *cvm_new_name(const struct cvm *);
/* A clone was born with the random tag of its source as well: off with it. */
void cvm_clean_tags(struct cvm *);

#endif
