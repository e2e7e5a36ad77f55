/*
 * The KVM backend's parts, for each other: kvm.c (the backend), machine.c (a
 * VM's states and what was asked of it), make.c (its files), run.c (its QEMU),
 * news.c (what QEMU and the guest say).
 *
 * A machine has at most one process. What the record says (record.h) is
 * written before the thing is done, so that a crash at any moment leaves a
 * record that tells how to go on.
 */
#ifndef SBXFS_KVM_MACHINE_H
#define SBXFS_KVM_MACHINE_H

#include <stdbool.h>
#include <uthash.h>

#include "accel.h"
#include "backend.h"
#include "loop.h"
#include "record.h"

struct endpoint;
struct identity_port;
struct proc;
struct qmp;

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
};

/* Files in a VM's folder, beside vm.json. */
#define FILE_DISK "disk.qcow2"
#define FILE_CLIENT_KEY "id_ed25519"
#define FILE_HOST_KEY "host_ed25519"
#define FILE_CONSOLE "console.log"
#define FILE_QEMU_LOG "qemu.log"
#define FILE_LOCK "lock"		/* held by the QEMU that runs, and only by it */

enum accel_choice { ACCEL_CHOICE_AUTO, ACCEL_CHOICE_KVM, ACCEL_CHOICE_TCG };

struct kvm {
	struct backend base;
	struct loop *loop;
	const struct backend_events *events;
	void *user;
	char *state_dir, *run_dir, *images;
	char *qemu;			/* its path, or its name when it is not there */
	struct err unready;		/* code 0: ready */
	enum accel_choice choice;
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
};

/* What follows when the process has ended. */
enum after {
	AFTER_UNASKED,			/* it ended by itself: look why */
	AFTER_STOP,
	AFTER_FAIL,			/* with machine.why */
	AFTER_RESTART,
	AFTER_TCG,			/* KVM does not do, for machine.no_kvm: once more without */
	AFTER_DESTROY,
};

struct machine {
	struct kvm *kvm;
	char *dir;			/* state_dir/NAME */
	struct record rec;
	enum vm_state state;		/* as last reported, or about to be */
	struct loop_later later;	/* what was asked goes on from the loop */
	enum todo todo;
	struct proc *step;		/* ssh-keygen or qemu-img */
	char *workshop;			/* the folder that make.c has them write to */
	/* the process; run.c */
	bool alive;
	struct loop_child child;
	struct qmp *qmp;		/* NULL: not connected */
	struct identity_port *port;	/* likewise */
	struct loop_timer deadline;	/* of the step that is going on */
	struct loop_timer full;		/* the host's disk is full: looks for room */
	enum after after;
	struct err why;
	int64_t began;			/* when this QEMU was started */
	bool trial;			/* KVM, and not known to work here */
	struct err no_kvm;		/* a trial has failed: this start does without */
	int64_t no_kvm_ms;		/* it was given that long; 0: it died */
	bool guest_ready;		/* what the guest said last */
	off_t console_from;		/* where its console stood when it was last reset */
	char shutdown[32];		/* QEMU's reason for its end */
	char user[32];			/* who logs in */
	UT_hash_handle hh;
};

/* --- machine.c ---------------------------------------------------------- */

struct machine *machine_find(struct kvm *, const char *name);
/* A new VM: recorded on disk, its making begun. 0, or < 0 with nothing left. */
int machine_create(struct kvm *, const char *name, const struct vm_spec *, const char *image_dir,
		   struct err *err);
/* A VM that is recorded: taken up where it was, from the loop. */
void machine_adopt(struct kvm *, const char *name);
/* As the ops of backend.h. */
int machine_start(struct machine *, struct err *err);
int machine_stop(struct machine *, struct err *err);
int machine_restart(struct machine *, struct err *err);
int machine_destroy(struct machine *, struct err *err);
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
char *machine_path(const struct machine *, const char *file);	/* free it */
char *machine_read(const struct machine *, const char *file);	/* NULL: cannot; free it */
char *machine_socket(const struct machine *, const char *end);	/* name in run_dir; free it */
bool machine_kvm(const struct machine *);	/* does it run on KVM? */
/* Why its kernel panicked, or else the last line of its console. */
void machine_console_end(const struct machine *, char *said, size_t size);
/* Has its kernel panicked since machine_mark_console? Then said is why. */
bool machine_panicked(const struct machine *, char *said, size_t size);
void machine_mark_console(struct machine *);

/* --- make.c -------------------------------------------------------------- */

/* Make all files but the record; ends in machine_made or machine_failed. */
void make_files(struct machine *);
/* Remove all files, the record last, and the folder. 0, or < 0 and *err. */
int make_remove(struct kvm *, const char *name, struct err *err);

/* --- run.c --------------------------------------------------------------- */

/* Start QEMU; ends in VM_UP or machine_failed. */
void run_start(struct machine *);
/* Take up the QEMU of it that is alive, with reports; false when there is none. */
bool run_adopt(struct machine *);
void run_stop(struct machine *);
void run_restart(struct machine *);
/* Kill it, if it is there, and then machine_gone. */
void run_destroy(struct machine *);
/* Drop the connections and stop watching; the process stays. */
void run_let_go(struct machine *);
/* How a process ended that nobody watched. */
void run_ended_unseen(struct machine *);

/* For news.c. Something is wrong: end it, or without KVM begin anew, unless it ends already. */
void run_give_up(struct machine *, const struct err *why);
/* It boots, from now on: with a deadline. */
void run_await_boot(struct machine *);
/* It is up: what that shows about KVM. */
void run_note_accel(struct machine *);

/* --- news.c -------------------------------------------------------------- */

/* Without connections the VM can still be used, and be ended by signals. */
void news_connect(struct machine *);
void news_disconnect(struct machine *);

#endif
