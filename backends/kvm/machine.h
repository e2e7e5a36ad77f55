/*
 * The KVM backend's parts, for each other: kvm.c (the backend), machine.c (a VM's states),
 * machine_new.c (its beginning), machine_ask.c (what is asked of it), machine_files.c (its
 * folder), machine_info.c (what is told of it), make.c (its files), layer.c (its disks),
 * run.c (its QEMU), uplink.c (its network), news.c (what QEMU and the guest say), save.c
 * (a running machine into files), freeze.c (a disk that no longer changes), snapshot.c (snapshots,
 * restore, suspend, clones), template.c (machines that others start from),
 * template_make.c, template_check.c (are they sound?), pool.c (machines that wait for a
 * name), cost.c (what one takes on the host).
 *
 * A machine has at most one QEMU, and one process that is its network. What the record
 * says (record.h) is written before the thing is done, so that a crash at any moment leaves a
 * record that tells how to go on.
 */
#ifndef SBXFS_KVM_MACHINE_H
#define SBXFS_KVM_MACHINE_H

#include <stdbool.h>
#include <uthash.h>

#include "accel.h"
#include "backend.h"
#include "identity.h"
#include "loop.h"
#include "record.h"

struct cJSON;
struct buf;
struct endpoint;
struct image;
struct port;
struct proc;
struct qmp;
struct save;
struct template_check;
struct uplink;

/* How long things may take, in milliseconds; emulation is five to twenty times slower. */
enum {
	BOOT_TRIAL_MS	= 20 * 1000,	/* QEMU's start until the guest is ready: KVM to try */
	BOOT_KVM_MS	= 60 * 1000,	/* KVM that is known to work */
	BOOT_TCG_MS	= 180 * 1000,
	STOP_KVM_MS	= 30 * 1000,	/* an orderly shutdown; then by force */
	STOP_TCG_MS	= 60 * 1000,
	QUIT_MS		= 5 * 1000,	/* QEMU's own end; then SIGKILL */
	KILL_MS		= 60 * 1000,	/* the end after SIGKILL; then it has failed */
	STEP_MS		= 60 * 1000,	/* ssh-keygen, qemu-img */
	FULL_DISK_MS	= 10 * 1000,	/* between looks for room on a full disk */
	FIND_PID_MS	= 50,		/* a child between fork and exec has no name yet */
	CLONE_KVM_MS	= 20 * 1000,	/* from the saved state until the guest has its identity */
	CLONE_TCG_MS	= 90 * 1000,
	SYNC_MS		= 20 * 1000,	/* the guest's sync; then without it */
	ANSWER_MS	= 20 * 1000,	/* QEMU's, to what it does at once; then that is told */
	SAVE_MS		= 120 * 1000,	/* a machine's memory into a file, if it is small */
};

/* Files in a VM's folder, beside vm.json. */
#define FILE_DISK "disk.qcow2"
#define FILE_CLIENT_KEY "id_ed25519"
#define FILE_HOST_KEY "host_ed25519"
#define FILE_CONSOLE "console.log"
#define FILE_QEMU_LOG "qemu.log"
#define FILE_NET_LOG "net.log"
#define FILE_LOCK "lock"		/* held by the QEMU that runs and by its network */

enum accel_choice { ACCEL_CHOICE_AUTO, ACCEL_CHOICE_KVM, ACCEL_CHOICE_TCG };

struct kvm {
	struct backend base;
	struct loop *loop;
	const struct backend_events *events;
	void *user;
	char *state_dir, *run_dir, *images;
	char *qemu;			/* its path, or its name when it is not there */
	char *net_program;		/* sbxfs-net */
	char *allow;			/* what guests may reach of the host; see net/frame.h */
	struct err unready;		/* code 0: ready */
	enum accel_choice choice;
	bool templates;			/* they are used, and made */
	unsigned pool;			/* machines that shall wait for a name */
	struct loop_timer pool_fill;
	struct vm_spec pool_spec;	/* the sandbox that was made last */
	char pool_image[PATH_MAX];	/* its image_dir; "" there was none yet */
	uint64_t last_hidden;		/* numbers the names of hidden machines */
	struct machine *making;		/* the template that is being made */
	struct template_check *check;	/* of the template that is being read */
	unsigned template_failures;
	struct accel accel;
	struct loop_later start;
	struct machine *machines;
};

enum todo {
	TODO_NOTHING,
	TODO_ADOPT,
	TODO_MAKE,
	TODO_START,
	TODO_STOP,
	TODO_RESTART,
	TODO_DESTROY,
	TODO_PAUSE,
	TODO_RESUME,
	TODO_SUSPEND,
	TODO_SNAPSHOT,
	TODO_RESTORE,
	TODO_NAMED,			/* taken from the pool */
};

/* What goes on with a machine that lasts, and during which nothing else can begin. */
enum op {
	OP_NONE,
	OP_SNAPSHOT,
	OP_RESTORE,
	OP_SUSPEND,
	OP_ORIGIN,			/* another one is cloned from it */
	OP_TEMPLATE,
};

/* What follows when the process has ended. */
enum after {
	AFTER_UNASKED,			/* it ended by itself: look why */
	AFTER_STOP,
	AFTER_FAIL,			/* with machine.why */
	AFTER_RESTART,
	AFTER_TCG,			/* KVM does not do, for machine.no_kvm: once more without */
	AFTER_DESTROY,
	AFTER_COLD,			/* its saved state does not do, for machine.why: boot it */
	AFTER_SUSPEND,
	AFTER_RESTORE,
};

/* The way of a start, by the clock: what took how long shows in info. */
enum stage {
	STAGE_ASKED,			/* (or named, from the pool) */
	STAGE_FILES,			/* its keys and disk are made */
	STAGE_QEMU,			/* QEMU answers */
	STAGE_STATE,			/* QEMU has taken in the saved state */
	STAGE_UP,			/* the guest says that it is ready */
	STAGES,
};

struct machine;

/* A machine that no user knows: of the pool, or one that becomes a template. */
struct hidden {
	void (*state)(struct machine *, enum vm_state, const struct err *);
	void (*word)(struct machine *, enum identity_word);
	/* It goes on from its saved state and waits for its identity. NULL: it gets one. */
	void (*arrived)(struct machine *);
	/* It is gone; the last that is heard of it. */
	void (*gone)(struct machine *);
};

struct machine {
	struct kvm *kvm;
	char *dir;			/* state_dir/NAME */
	struct record rec;
	enum vm_state state;		/* as last reported, or about to be */
	struct loop_later later;	/* what was asked goes on from the loop */
	enum todo todo;
	const struct hidden *hidden;	/* NULL: a sandbox */
	void *secret;			/* of who hides it */
	bool damaged;			/* its record could not be read */
	struct proc *steps[3];		/* ssh-keygen, qemu-img: at once */
	char *workshop;			/* the folder that make.c has them write to */
	/* copies of it, and it as a copy */
	enum op op;
	char op_name[64];		/* the snapshot that op is about */
	char making[LAYER_ID];		/* the layer that is being made for it */
	void (*disk_made)(struct machine *, const struct err *);
	char save_to[LAYER_ID];		/* the layer that is getting its memory, or just its disk */
	struct save *save;
	void (*frozen)(struct machine *, const char *layer, const struct err *);
	struct loop_timer sync;		/* until the guest has synced */
	struct loop_timer switching;	/* until QEMU writes to the next layer */
	bool was_running;		/* it is to go on after op */
	char origin[LAYER_ID];		/* the layer that it is being cloned from */
	struct machine *cloned_from;	/* whose op it waits for */
	bool loading;			/* QEMU takes in its saved state */
	bool from_pool;
	struct port *ports;		/* ports.c */
	int64_t stages[STAGES];		/* ms of clock_ms; 0: not come by */
	bool resize;			/* the disk is larger than its saved state knows */
	/* the process; run.c */
	bool alive;
	struct loop_child child;
	unsigned looks;			/* for the process that holds its lock, in vain */
	bool qemu_ended;		/* and its network not yet */
	enum todo unplugged;		/* what waits for the end of the network that was kept */
	int qemu_status;
	struct uplink *uplink;		/* NULL: none, or legacy */
	bool legacy;			/* adopted, and the network is part of QEMU: legacy.c */
	bool legacy_looked;		/* it is known which ports that has open */
	struct qmp *qmp;		/* NULL: not connected */
	struct identity_port *port;	/* likewise */
	struct loop_timer deadline;	/* of the step that is going on */
	struct loop_timer turning;	/* until QEMU has paused it, or made it go on */
	struct loop_timer full;		/* the host's disk is full: looks for room */
	enum after after;
	struct err why;
	int64_t began;			/* when this QEMU was started */
	bool trial;			/* KVM, and not known to work here */
	struct err no_kvm;		/* a trial has failed: this start does without */
	int64_t no_kvm_ms;		/* it was given that long; 0: it died */
	bool crashed;			/* QEMU did, in this start: once more, and not again */
	bool guest_ready;		/* what the guest said last */
	off_t console_from;		/* where its console stood when it was last reset */
	char shutdown[32];		/* QEMU's reason for its end */
	char user[32];			/* who logs in */
	UT_hash_handle hh;
};

/* --- machine.c, machine_new.c, machine_ask.c, machine_files.c, machine_info.c --------- */

struct machine *machine_find(struct kvm *, const char *name);
const char *machine_state_word(enum vm_state);	/* "being created" */
/* A new VM: recorded on disk, its making begun. 0, or < 0 with nothing left. */
int machine_create(struct kvm *, const char *name, const struct vm_spec *,
		   const struct image *, struct err *err);
/* A VM that is recorded: taken up where it was, from the loop. */
void machine_adopt(struct kvm *, const char *name);
/* One that no user has known: removed, from the loop. */
void machine_discard(struct kvm *, const char *name);
/* As the ops of backend.h. */
int machine_start(struct machine *, struct err *err);
int machine_stop(struct machine *, struct err *err);
int machine_restart(struct machine *, struct err *err);
int machine_destroy(struct machine *, struct err *err);
int machine_pause(struct machine *, struct err *err);
int machine_resume(struct machine *, struct err *err);
void machine_info(const struct machine *, struct buf *out);
/* Let go: forget it, leave its process alone. */
void machine_free(struct machine *);

/* For make.c and run.c, from the loop. */
void machine_report(struct machine *, enum vm_state, const struct err *);
int machine_save(struct machine *);	/* logs its failure */
void machine_made(struct machine *);
void machine_failed(struct machine *, const struct err *);
void machine_stopped(struct machine *, const struct err *why);
void machine_gone(struct machine *);	/* its process; all else goes now. Frees it. */
void machine_look_again(struct machine *);	/* soon: its process could not be found yet */
void machine_changed(struct machine *);
/* It stands still for an op that goes by, or goes on again. */
void machine_still(struct machine *, bool still);
/* What was asked of it did not come to be, and it is as it was. */
void machine_trouble(struct machine *, const char *operation, const struct err *);
void machine_stage(struct machine *, enum stage);
/* Go on with it from the loop. */
void machine_ask(struct machine *, enum todo);
/* "cannot WHAT NAME: it is STATE" */
int machine_refuse(const struct machine *, const char *what, struct err *err);
/* Does another operation go on? Then -EBUSY. */
int machine_busy(const struct machine *, const char *what, struct err *err);
/* The same, or is something to be done that has not begun, and would be forgotten? */
int machine_occupied(const struct machine *, const char *what, struct err *err);
/* A new one, of which nobody else knows. */
struct machine *machine_new(struct kvm *, const char *name);
/* Its folder and first record; it is among kvm->machines then. The caller has filled in rec. */
int machine_record(struct machine *, struct err *err);
char *machine_disk(const struct machine *);	/* the file that it writes to; free it */
void machine_node(const struct machine *, char node[24]);	/* QEMU's name of that */
char *machine_path(const struct machine *, const char *file);	/* free it */
char *machine_read(const struct machine *, const char *file);	/* NULL: cannot; free it */
char *machine_socket(const struct machine *, const char *end);	/* name in its folder; free it */
bool machine_kvm(const struct machine *);	/* does it run on KVM? */
/* Why its kernel panicked, or else the last line of its console. */
void machine_console_end(const struct machine *, char *said, size_t size);
/* Has its kernel panicked since machine_mark_console? Then said is why. */
bool machine_panicked(const struct machine *, char *said, size_t size);
void machine_mark_console(struct machine *);

/* --- make.c -------------------------------------------------------------- */

/* Make all files but the record; ends in machine_made or machine_failed. */
void make_files(struct machine *);
void make_cancel(struct machine *);
/* Remove all files, the record last, and the folder. 0, or < 0 and *err. */
int make_remove(struct kvm *, const char *name, struct err *err);
/* A folder and what is in it; 0, or a negative errno. */
int remove_folder(const char *path);
/*
 * A new layer over parent, of the same size, as m->making. next runs when it has been
 * made and is on the disk, or not. 0, or < 0 and next does not run.
 */
int make_disk(struct machine *, const char *parent,
	      void (*next)(struct machine *, const struct err *), struct err *err);

/* --- run.c, run_start.c, run_end.c, run_adopt.c --------------------------------- */

/*
 * Start QEMU; ends in VM_UP or machine_failed; in machine_stopped if nothing could be begun and it
 * is suspended with its connections, which stay.
 */
void run_start(struct machine *);
/* Is there what a start needs, as far as that can be seen? 0, or < 0 and *err. */
int run_check_start(const struct machine *, struct err *err);
/* Take up the QEMU of it that is alive, with reports; false when there is none. */
bool run_adopt(struct machine *);
void run_stop(struct machine *);
void run_restart(struct machine *);
void run_pause(struct machine *, bool pause);
/* Kill it, if it is there, and then machine_gone. */
void run_destroy(struct machine *);
/* Drop the connections and stop watching; the process stays. */
void run_let_go(struct machine *);
/* How a process ended that nobody watched. */
void run_ended_unseen(struct machine *);
/* A record was read: are its sockets where it says? Before all else that is done with it. */
void run_find_sockets(struct machine *);
/* Where its processes were reached, when they are no more. */
void run_remove_sockets(const char *run_dir, const char *name);

/* For news.c. Something is wrong: end it, or without KVM begin anew, unless it ends already. */
void run_give_up(struct machine *, const struct err *why);
/* It boots, from now on: with a deadline. */
void run_await_boot(struct machine *);
/* It is up: what that shows about KVM. */
void run_note_accel(struct machine *);

/* Its saved state cannot be used: it boots instead, and says so. */
void run_cold(struct machine *, const struct err *why);
/* End it at once; after says what follows. */
void run_end(struct machine *, enum after);
/* Kill its QEMU if there is one; nobody will hear of the end. */
void run_kill(struct machine *);
/* It waited in the pool and is a sandbox from now on. */
void run_named(struct machine *);
/* Its network is no more. True: it should be. */
bool run_network_ended(struct machine *);
/* The connections that were kept for a machine which is suspended are not wanted. */
void run_release(struct machine *);
/* Nothing of one that is stopped is left; false: something was, which is ended: ask again. */
bool run_is_over(struct machine *);
/* Can it be told anything now? */
bool run_reachable(const struct machine *);
/* The accelerator that the next start would take; false: that is not known yet. */
bool run_expect_accel(struct kvm *, const char *image_dir, char accel[8]);

/* --- news.c -------------------------------------------------------------- */

/* Without connections the VM can still be used, and be ended by signals. */
void news_connect(struct machine *);
void news_disconnect(struct machine *);
/* There is a way to its sshd. */
void news_reached(struct machine *);
/* Have QEMU tell of its event MIGRATION. */
void news_want_migration(struct machine *);
/* An op is over: its CPUs go on if they ran before. */
void news_go_on(struct machine *);
/* It is over, and how the CPUs stand is to be seen. */
void news_after_op(struct machine *);

/* --- save.c -------------------------------------------------------------- */

/*
 * Put the memory and the devices of a machine that runs or is paused into a layer.
 * Its CPUs are stopped first. sent: QEMU has given all away, and may go on. done: the files
 * are on the disk, or an error. 0, or < 0 and neither is called.
 */
int save_start(struct machine *, const char *layer, void (*sent)(struct machine *),
	       void (*done)(struct machine *, const struct err *), struct err *err);
/* QEMU's event MIGRATION. */
void save_event(struct machine *, const char *status);
/* QEMU or the connection to it is gone: ends in done. */
void save_lost(struct machine *, const struct err *why);
/* Neither sent nor done are called. Harmless when nothing goes on. */
void save_cancel(struct machine *);

/* --- freeze.c ------------------------------------------------------------ */

/*
 * Make the present of a machine lasting: its disk, and if it runs its memory, stay
 * as they are in its layer, and it goes on in a new one. frozen is called with the
 * layer that is left, or with an error; m->op is the caller's.
 */
int freeze_start(struct machine *, void (*frozen)(struct machine *, const char *layer,
						  const struct err *), struct err *err);
void freeze_word(struct machine *, enum identity_word);
void freeze_cancel(struct machine *);
/* Is it open which layer it writes to, until its QEMU answers? */
bool freeze_unsettled(const struct machine *);
/* QEMU was found at work on this file: did it get the next layer? */
void freeze_settle(struct machine *, const char *file);
/* The same when there is no QEMU. The caller saves the record. */
void freeze_settle_dead(struct machine *);

/* --- snapshot.c ----------------------------------------------------------- */

int snapshot_take(struct machine *, const char *name, struct err *err);
int snapshot_drop(struct machine *, const char *name, struct err *err);
int snapshot_restore(struct machine *, const char *name, struct err *err);
int snapshot_suspend(struct machine *, struct err *err);
void snapshot_each(const struct machine *, void (*each)(void *, const struct vm_snapshot *),
		   void *user);
void snapshot_go_on(struct machine *, enum todo);	/* from the loop */
/* Its QEMU has ended for a restore: the layer of the snapshot, and a new QEMU. */
void snapshot_ended(struct machine *);
/* m is a clone that has no disk yet: see to its origin, then make_files. */
void snapshot_origin(struct machine *);
/* An op cannot go on, for its QEMU is gone or it is being destroyed. */
void snapshot_abandon(struct machine *, const struct err *why);
const struct record_snapshot *snapshot_find(const struct machine *, const char *name);

/* --- template.c ------------------------------------------------------------ */

/* The template that such a machine can start from; NULL and why there is none. Free it. */
char *template_find(struct kvm *, const struct image *, const struct vm_spec *, char *why,
		    size_t size);
/* Its maker was killed: what that has left beside the templates goes. */
void template_discard(const struct record *);
/* It does not do, and what was saved is removed: it will be made again. */
void template_spoil(const char *folder);
/* What it runs on. */
void template_accel(const char *folder, char accel[8]);
/* The size of its disk. */
uint64_t template_disk(const char *folder);
/* Make one for machines like this in the background, unless that is done already. */
void template_make_like(const struct machine *);
/* The same for sbxfs-image: begins now; done is told how it went and where it is. */
int template_make(struct kvm *, const struct image *, const struct vm_spec *,
		  void (*done)(void *user, const char *folder, const struct err *), void *user,
		  struct err *err);
/* "2x512M.tcg,..." for .sbxfs/backends. */
void template_describe(struct kvm *, const struct image *, struct buf *out);
/* There is a new one: those of its size that were changed since they were made go. */
void template_retire(const char *folder, const struct vm_spec *, const char *accel);

/* --- template_check.c ------------------------------------------------------ */

/* It is used: read it whole in the background, unless that was done in this boot. */
void template_check(struct kvm *, const char *folder);
/* It has just been written or read. */
void template_checked(const char *folder);
void template_check_cancel(struct kvm *);

/* --- pool.c ------------------------------------------------------------------ */

/* Look whether machines are missing, soon. */
void pool_check(struct kvm *);
/* One that waits, made for spec, is now called name: 0; or -ENOENT and nothing was done. */
int pool_take(struct kvm *, const char *name, const struct vm_spec *, const char *image_dir);
void pool_close(struct kvm *);

/* --- ports.c ----------------------------------------------------------------- */

/* As the ops of backend.h. */
int ports_open(struct machine *, unsigned guest, struct err *err);
int ports_close(struct machine *, unsigned guest, struct err *err);
int ports_url(const struct machine *, unsigned guest, struct buf *out);
/* Its network can be asked now: for those that were wanted before. */
void ports_connected(struct machine *);
/* A port of the guest is open on that one of the host, or is closed: 0. */
void ports_heard(struct machine *, unsigned guest, unsigned host);
/* Its network has ended, and with it all forwards. */
void ports_forget(struct machine *);
/* All that are open have been heard of, and no others can be opened. */
void ports_looked(struct machine *);
void ports_free(struct machine *);

/* --- legacy.c ------------------------------------------------------------ */

/* After news_connect: says what its network is, and asks which ports it has open. */
void legacy_adopt(struct machine *);
void legacy_close(struct machine *, unsigned host);
/* Why no further port can be opened; returns -EBUSY. */
int legacy_refuse(const struct machine *, unsigned guest, struct err *err);

/* --- uplink.c ---------------------------------------------------------------- */

/*
 * Start its network, which gets the lock too; QEMU's socket NAME.net is listening. Or
 * take up the one that is there, or start another one beside a QEMU that runs. 0, or
 * < 0 and *err: -ENOENT when its QEMU has no such socket, -ECONNREFUSED when it is gone.
 */
int uplink_start(struct machine *, int lock, struct err *err);
int uplink_adopt(struct machine *, struct err *err);
/* Watch it if it is there, so that its end is waited for; nothing is asked of it. */
void uplink_watch(struct machine *);
/* Has told which ports there are, and can be asked. */
bool uplink_ready(const struct machine *);
/* Answered by news_reached or ports_heard, or by trouble. host: rather there; 0: anywhere. */
void uplink_open(struct machine *, unsigned guest, unsigned host);
void uplink_close(struct machine *, unsigned guest);
bool uplink_alive(const struct machine *);
void uplink_kill(struct machine *);	/* then run_network_ended */
/* Forget it; it goes on. */
void uplink_let_go(struct machine *);
/*
 * From now on it goes on without QEMU, if it can, and all connections stay as they are, until
 * uplink_plug gives it the next QEMU. kept: the port of the host where sshd will be reached
 * again; 0: it does not wait, or has ended. reach: a way to the next QEMU, whose socket NAME.net
 * is listening, or < 0 and *err; nothing is changed by it. plug takes that; one that cannot
 * be told is replaced, as one that dies.
 */
void uplink_keep(struct machine *);
unsigned uplink_kept(const struct machine *);
int uplink_reach(const struct machine *, struct err *err);
void uplink_plug(struct machine *, int frames);
pid_t uplink_pid(const struct machine *);	/* 0: none that is known */
/* Kill one that nobody watches. False: there is none. */
bool uplink_end_unseen(struct machine *);

/* --- cost.c ------------------------------------------------------------------ */

/*
 * "cpu_seconds", "memory_private", "memory_shared" and "disk_used" lines; looked at a few times
 * a second.
 */
void cost_print(const struct machine *, struct buf *out);

#endif
