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

struct record {
	char name[64];
	struct vm_spec spec;
	char image_dir[PATH_MAX];	/* the build of the image that the disk is layered over */
	char machine_id[33];
	int64_t created;		/* seconds since the epoch */
	enum phase phase;
	bool made;			/* the files are complete */
	bool stopping;			/* running, and asked to stop */
	char accel[8];			/* of the QEMU that runs, or ran last */
	char accel_why[ERR_TEXT_MAX];	/* why it is not KVM; "" if it was not wanted */
	pid_t pid;
	uint64_t pid_start;		/* field 22 of /proc/PID/stat: tells a reused pid */
	char boot_id[40];		/* of the host that pid belongs to */
	int port;			/* where the guest's sshd is reached; 0 unknown */
	bool ready;			/* this QEMU's guest has been up */
	struct err why;			/* of PHASE_FAILED, or of how it stopped */
};

/* Both take the folder of the VM. 0, or a negative errno and *err. */
int record_save(const struct record *, const char *dir, struct err *err);
int record_load(struct record *, const char *dir, struct err *err);

#endif
