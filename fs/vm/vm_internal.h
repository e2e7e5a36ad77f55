/* What fleet.c, vm.c and job.c share; nobody else includes it. */
#ifndef SBXFS_VM_INTERNAL_H
#define SBXFS_VM_INTERNAL_H

#include <uthash.h>

#include "buf.h"
#include "command.h"
#include "endpoint.h"
#include "err.h"
#include "fleet.h"
#include "list.h"
#include "loop.h"
#include "store.h"
#include "vm.h"

struct ssh;
struct job;
struct lane;
struct errand;

/* What ends jobs in the guest, one errand at a time; see job_kill.c. */
struct killer {
	struct ssh_channel *channel;
	struct list wanted, sent;	/* jobs to be ended; those that are being ended */
	struct list errands;		/* signals to be sent */
	struct errand *errand;		/* the one that is carried out; NULL: jobs are ended */
	unsigned lane;			/* the server of these many lanes had no channel for it */
	bool alone;			/* one job at a time: of several some would not end */
	struct loop_timer retry;
	struct loop_timer deadline;	/* the guest is to have answered by then */
};

/* See guest.c. */
struct guest {
	bool looked_at;			/* since it booted */
	char *missing;			/* programs and such; NULL: nothing */
	enum command_limit limit;
	struct lane *lane;
	struct ssh_channel *channel;	/* of the look that is being taken */
	struct buf said;
};

enum link_state {
	LINK_NONE,	/* no endpoint: -> CONNECTING */
	LINK_IDLE,	/* not connected, nothing wrong: -> CONNECTING when needed */
	LINK_CONNECTING,/* requests wait: -> UP, DOWN (or CONNECTING again while the VM boots) */
	LINK_UP,	/* -> CONNECTING (it broke), DOWN (it fell silent), IDLE */
	LINK_DOWN,	/* known dead, requests fail; probed now and then: -> UP */
};

struct vm {
	UT_hash_handle hh;	/* fleet->vms by record.id */
	UT_hash_handle hh_name;	/* fleet->by_name by record.name, while it is shown */
	bool shown;
	bool name_lent;		/* the kernel may have it in mind: lend.c */
	struct fleet *fleet;	/* NULL once gone */
	unsigned refs;
	uint64_t serial;
	struct record record;
	struct backend *backend;	/* NULL: its backend is not configured */
	enum vm_state state;
	bool adopted;		/* it was there before this daemon */
	bool reported;		/* the backend has told a state */
	char label[96];		/* for vm_label */
	int64_t active_at;	/* the latest sign of life, ms since the epoch; life.c */
	int64_t stamped;	/* … and what of it is on disk */
	int64_t not_before;	/* its end was refused: tried again then, ms since the epoch */
	int64_t stop_asked;	/* trash.c: when, by clock_ms; 0: not since it ran last */
	bool stop_taken;	/* … and it will be told that it has stopped */
	bool takes_none;	/* it had stopped when it was destroyed: no memory */
	bool starting;		/* it was stopped, and its backend has accepted to start it */
	bool turning;		/* … to pause it, or to let it go on */
	bool leaving;		/* its backend has accepted to end what runs there, or to suspend it */
	bool start_again;	/* … and start was asked for since */
	struct vm_spec before;	/* what it was before the latest resize */
	const char *last_status;
	int64_t changed;	/* the status */
	int64_t booted;		/* when the backend last said that it is up */
	struct err error;
	char *why_down;			/* why it is unreachable or failed; or NULL */
	struct endpoint to;
	bool has_endpoint;
	enum link_state link;
	bool kept;		/* suspended, and its connections are held until it is back */
	bool seen_up;		/* logged in at least once since it booted */
	struct ssh *ssh;
	struct loop_timer retry;	/* the next attempt, or the idle check */
	unsigned attempts;
	int64_t last_used;
	struct disk *disk;
	struct waiter disk_waiter;
	struct wait_list news;
	char *cwd, *env;
	uint64_t timeout_ms;
	/* jobs, oldest first; numbers are never used again */
	struct list jobs;
	struct job *jobs_by_id;
	unsigned job_count;
	struct list queue;	/* those in state queued, in the order of their creation */
	uint64_t last_number, last_serial;
	int64_t first_cut;	/* broken links that were made anew at once: since when, … */
	unsigned cuts;		/* … and how many */
	struct job *latest;
	struct job *setup;	/* job 0, until it is over; setup.c */
	char *jobs_dir;
	unsigned active;	/* jobs that are starting or running */
	struct list lanes;	/* connections that jobs run on; see lane.c */
	struct lane *opening;	/* one more is being made */
	struct loop_timer lane_timer;	/* no other is made before */
	int64_t last_start;	/* of a job */
	struct killer killer;
	struct guest guest;
};

struct fleet {
	struct loop *loop;
	char *vms_dir, *trash_dir, *state_dir, *run_dir, *data_dir;
	int lock_fd;
	struct vm *vms;		/* all, by id */
	struct vm *by_name;	/* those in the top folder */
	uint64_t last_serial;
	struct slot {		/* a configured backend */
		struct fleet *fleet;
		const struct backend_ops *ops;
		struct backend *backend;
		struct backend_conf conf;
		bool ready;
		char why[ERR_TEXT_MAX];
		char *state_dir, *run_dir;
	} *slots;
	unsigned slot_count;
	struct vm_spec defaults, given;	/* given: only what the configuration says */
	struct job_conf jobs;
	struct fleet_limits limits;
	int64_t ttl, idle;	/* of new ones: ms, 0: none */
	struct slot *overflow;	/* NULL: none */
	bool closing;		/* the daemon ends */
	bool same_boot;		/* the daemon before this one ran since the host booted */
	struct draft *drafts;	/* by name */
	struct loop_timer life;
	int64_t life_due;	/* what it is set for; INT64_MAX: nothing */
	struct disk_cache *cache;	/* of all sandboxes' root/ */
	const char *(*get)(void *user, const char *section, const char *key);
	void *user;
	struct loop_later reconcile;
	bool (*recall)(void *user);	/* names from the kernel; or NULL */
	void *recall_user;
	bool recall_works;
	struct events *events;
	uid_t caller_uid;	/* who asks now; -1: nobody */
	pid_t caller_thread;
	int64_t changed;
	struct failure {
		int64_t when;
		char operation[16], path[128], text[ERR_TEXT_MAX];
	} failures[100];
	unsigned failure_count;	/* ever; the slot is count % 100 */
};

/* fleet.c */
struct vm *fleet_find_id(struct fleet *, const char *id);
struct slot *fleet_slot(struct fleet *, const char *backend);
struct vm *fleet_add(struct fleet *, const struct record *);
/* It is gone: forgotten, and removed from the disk. */
void fleet_remove(struct vm *);
/* Put it into the top folder under its name, and take it out of there. */
void fleet_show_name(struct fleet *, struct vm *);
void fleet_hide_name(struct fleet *, struct vm *);

/* create.c */
/* base, or that with a suffix: a name that nobody has. */
void fleet_free_name(struct fleet *, const char *base, char out[64]);
/* 0 when a sandbox of that backend may be called so now; backend may be NULL. */
int fleet_name_free(struct fleet *, struct backend *, const char *name, struct err *);
/* Away with it: into the trash where that is possible, else destroyed. */
int vm_remove(struct vm *, struct err *);
/* For good. The vm may be gone when this returns. */
int vm_destroy(struct vm *, struct err *);

/* What a new sandbox shall be: the defaults, changed by what a draft says. */
struct plan {
	struct slot *slot;
	struct record record;	/* but name, id, backend, times */
	bool placed;		/* its backend was asked for: no other one will do */
	const char *env, *setup;	/* borrowed; NULL: none */
};
/* slot NULL: the default backend. */
void plan_init(struct fleet *, struct plan *, struct slot *);
/* As fleet_create. */
int plan_make(struct fleet *, struct plan *, const char *name, struct err *);

/* draft.c */
void drafts_load(struct fleet *);
void drafts_close(struct fleet *);
void drafts_expire(struct fleet *);
int64_t drafts_due(const struct fleet *);	/* ms since the epoch; INT64_MAX */

/* settings.c */
void settings_load(struct vm *);

/* setup.c */
/* It is to be set up, if that has not begun: job 0 is queued. */
void setup_begin(struct vm *);
/* What a daemon before has begun. */
void setup_load(struct vm *);
struct facts;
void setup_facts(struct vm *, struct facts *);

/* ports.c */
/* It has come up: its backend is asked for all of them. */
void ports_ask(struct vm *);

/* limits.c */
/* What the sandboxes of that backend take of the limits. */
void limits_usage(struct fleet *, const struct backend *, struct fleet_usage *);
/*
 * May that much be added for the sandbox called name? -EDQUOT and which limit, -ENOSPC the
 * host's disk is nearly full. The trash is emptied where that helps.
 */
int limits_admit(struct fleet *, const struct backend *, const char *name,
		 const struct fleet_usage *more, struct err *);
bool limits_disk_is_low(struct fleet *);
/* Is there a machine of it, or will there be one for all that was promised? */
bool vm_takes_memory(const struct vm *);

/* life.c */
void life_start(struct fleet *);	/* when the records are there */
void life_stop(struct fleet *);
void life_load(struct vm *);
/* The daemon ends: what is not on disk yet of the latest sign of life. */
void life_save(struct vm *);
/* A sign of life. */
void life_used(struct vm *);
/* Something may end it sooner than was known. */
void life_soon(struct vm *);
/* It needs to be looked at: its state or its place has changed. */
void life_attend(struct vm *);
/* Drafts may be due sooner than was known. */
void life_look(struct fleet *);
/* "30m", "none" or "" (0). */
int life_parse(const char *key, const char *value, int64_t *ms, struct err *);

/* trash.c */
/* What it is called in news: its name, or NAME@TIME in the trash. */
const char *vm_label(struct vm *);
bool trash_takes(const struct vm *);
int trash_put(struct vm *, struct err *);
/* What lies there does not run. */
void trash_keep_stopped(struct vm *);
/* It came back: start it when it ran before. */
void trash_revive(struct vm *);
/* What lies there longest and is not being destroyed; of that backend, or of any (NULL). */
struct vm *trash_oldest(struct fleet *, const struct backend *of);
int trash_drop(struct vm *, const char *why, struct err *);
/* The host's disk is low: the oldest one goes, then the next. */
void trash_pressure(struct fleet *);

/* verbs.c */
/* May anything be asked of it? -ESTALE, -EBUSY while it is destroyed, -ENODEV. */
int vm_check_open(struct vm *, struct err *);
/* An accepted request failed, and the VM is as it was before it. */
void vm_trouble(struct vm *, const char *operation, const struct err *);

/* notes.c */
/* What its backend says of names and notes. */
void vm_learn(struct vm *, const struct vm_about *);
void vm_set_name(struct vm *, const char *name);
/* Checked and in the form that is kept. -EINVAL and what is allowed. */
int notes_parse_tags(const char *value, char out[RECORD_TAGS_MAX], struct err *);
int notes_parse_comment(const char *value, char out[RECORD_COMMENT_MAX], struct err *);

/* vm.c */
int vm_save(struct vm *, struct err *);		/* its record */
/* A changed copy of its record is written and takes effect: all or nothing. Not its name. */
int vm_update(struct vm *, const struct record *, struct err *);
/* Nothing runs in it any more: it is destroyed, or lies in the trash. */
void vm_close(struct vm *, const char *why);
/* It came back and was running all the while. */
void vm_reopen(struct vm *);
bool vm_is_closed(const struct vm *);
/* A link that is known to be dead is tried now. */
void vm_link_probe(struct vm *);
struct vm *vm_create(struct fleet *, const struct record *);
/* It is gone: jobs end, waiters are woken; the fleet's reference is dropped. */
void vm_forget(struct vm *);
/* The daemon ends: as vm_forget, but what is on disk stays for the next one. */
void vm_detach(struct vm *);
/* A fact from the backend. */
void vm_report(struct vm *, enum vm_state, const struct endpoint *, const struct err *);
/* It stands still for a while though its state is what it was, or goes on. */
void vm_still(struct vm *, bool still);
/* A job waits: where the configuration says so, what does not run is started. */
void vm_wake(struct vm *);
/* What a job of it waits for that is queued: "the sandbox to ..." */
const char *vm_waits_for(const struct vm *);
/* Can jobs run now? Connects an idle link. */
bool vm_link_wanted(struct vm *);
/* Something changed that shows. */
void vm_touch(struct vm *);

/* lend.c: names below root/ that the kernel keeps for a moment */
void names_lend(struct vm *);		/* no job runs */
void names_recall(struct vm *);		/* one is about to, or the link is gone */
void name_recall(struct vm *);		/* its own is not shown any more */

/* job.c */
void jobs_load(struct vm *);
/* Has the host not been booted since a daemon last asked that? Noted for the next one. */
bool jobs_same_boot(const char *state_dir);
/* Start what can be started. */
void jobs_pump(struct vm *);
/* End what is marked for it, send what is to be sent. */
void killer_go(struct vm *);
/* The VM will not run them: those not started are cancelled. */
void jobs_cancel_queued(struct vm *, const char *why);
/* The sandbox is gone: all end, all are forgotten. */
void jobs_forget(struct vm *);
/* The daemon ends: running ones are lost, those not started cancelled; the spools stay. */
void jobs_leave(struct vm *);

#endif
