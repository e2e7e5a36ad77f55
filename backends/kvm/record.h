/*
 * What is kept of a VM on disk: state_dir/NAME/vm.json, there before anything
 * else of the VM is and gone last. A folder without it is what a crash left of
 * a VM that was not yet, or is no longer, promised to anybody.
 */
#ifndef SBXFS_KVM_RECORD_H
#define SBXFS_KVM_RECORD_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "backend.h"
#include "err.h"

/* How far the VM has come; what a crash interrupts is taken up from here. */
enum phase {
	PHASE_NEW,		/* its files are being made */
	PHASE_STARTING,		/* made; QEMU is about to be, or has just been started */
	PHASE_RUNNING,		/* QEMU is pid */
	PHASE_STOPPED,
	PHASE_FAILED,		/* why; no process */
	PHASE_DESTROYING,
};

#define LAYER_ID 17		/* 16 hexadecimal digits */
#define SNAPSHOTS_MAX 100

/* Of its disk the layer is what it was then; beside it, if it ran, its memory. */
struct record_snapshot {
	char name[64];
	char layer[LAYER_ID];
	int64_t taken;			/* ms since the epoch */
};

struct record {
	char name[64];			/* its id, and the name of its folder */
	struct vm_spec spec;
	char image_dir[PATH_MAX];	/* the build of the image that the disk is layered over */
	char machine_id[33];
	int64_t created;		/* seconds since the epoch */
	enum phase phase;
	bool made;			/* the files are complete */
	bool stopping;			/* running, and asked to stop */
	bool can_clone;			/* its guest can be told that it is another one now */
	bool paused;			/* running, and its CPUs stand still on request */
	char layer[LAYER_ID];		/* what it writes to; "": FILE_DISK in its folder */
	char next_layer[LAYER_ID];	/* QEMU is being moved there, or has just been */
	char base[PATH_MAX];		/* the template that its first layer lies over; "" none */
	char incoming[PATH_MAX];	/* the saved state that its next start begins at */
	bool cloning;			/* begun there, and not known to have its identity */
	char start_why[ERR_TEXT_MAX];	/* why it was booted, and not started from a template */
	struct record_snapshot snapshots[SNAPSHOTS_MAX];	/* in the order of time */
	size_t snapshot_count;
	char accel[8];			/* of the QEMU that runs, or ran last */
	char accel_why[ERR_TEXT_MAX];	/* why it is not KVM; "" if it was not wanted */
	pid_t pid;
	uint64_t pid_start;		/* field 22 of /proc/PID/stat: tells a reused pid */
	pid_t net_pid;			/* its network */
	uint64_t net_start;
	bool qemu_network;		/* none: an earlier sbxfs had QEMU itself be the network */
	char run_dir[PATH_MAX];		/* where the sockets of the QEMU that runs are */
	char boot_id[40];		/* of the host that pid belongs to */
	int port;			/* where the guest's sshd is reached; 0 unknown */
	bool ready;			/* this QEMU's guest has been up */
	struct err why;			/* of PHASE_FAILED, or of how it stopped */
};

/* Both take the folder of the VM. 0, or a negative errno and *err. */
int record_save(const struct record *, const char *dir, struct err *err);
int record_load(struct record *, const char *dir, struct err *err);

#endif
