/*
 * What a backend is to the fleet: calls down (struct backend_ops), news up
 * (struct backend_events). Names cross, pointers do not: each side keeps its
 * own object under the VM's name.
 *
 * One contract for the ops that take a name: < 0 is refused, nothing was
 * done, *err says why; 0 is accepted, and the outcome is told through events,
 * always later from the loop, never from inside the op. All ops are called on
 * the loop's thread and never wait.
 */
#ifndef SBXFS_BACKENDS_BACKEND_H
#define SBXFS_BACKENDS_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "endpoint.h"
#include "err.h"

struct backend_ops;
struct loop;
struct buf;

/* The head of every backend's own struct; container_of in one helper leads down. */
struct backend {
	const struct backend_ops *ops;
};

/*
 * The states a backend can report: facts it has seen, each with the moves
 * that may follow. (unreachable is found by fs/vm, not here.)
 */
enum vm_state {
	VM_CREATING,		/* -> BOOTING, FAILED */
	VM_BOOTING,		/* -> UP, STOPPED, FAILED */
	VM_UP,			/* -> STOPPED, PAUSED, BOOTING (a reboot), FAILED */
	VM_PAUSED,		/* -> UP, STOPPED, FAILED */
	VM_STOPPED,		/* -> BOOTING */
	VM_DESTROYING,		/* -> gone, FAILED */
	VM_FAILED,		/* -> DESTROYING, BOOTING */
};

/* What a new VM shall be. All fields are filled in (defaults applied). */
struct vm_spec {
	char image[64];
	unsigned cpus;
	uint64_t memory;	/* bytes */
	uint64_t disk;		/* bytes */
	char tag[40];		/* random, unique to this creation; see fs/vm/store.h */
};

struct backend_events {		/* called from the loop, never from inside an op */
	/*
	 * A fact about the VM. The first report of a name makes the fleet know
	 * it (adoption). endpoint goes with VM_UP and is otherwise NULL; err goes
	 * with VM_FAILED and may go with VM_STOPPED (why it stopped). Both
	 * are borrowed for the call.
	 */
	void (*state)(void *user, const char *name, enum vm_state,
		      const struct endpoint *, const struct err *);
	/* Verified gone: nothing of it is left. The name may be used again. */
	void (*gone)(void *user, const char *name);
	/*
	 * The backend itself became ready or not (why: one sentence; "" when
	 * ready). Backends that are ready at once need not call it.
	 */
	void (*ready)(void *user, bool ready, const char *why);
};

/* One [section] of the config file: the backend's own keys. */
struct backend_conf {
	const char *state_dir;	/* the backend's own folder below the state directory; exists, 0700 */
	const char *run_dir;	/* for sockets: short, exists, 0700 */
	const char *data_dir;	/* images live in data_dir/images unless configured */
	/* The value of a key of the backend's section, or NULL; borrowed. */
	const char *(*get)(const struct backend_conf *, const char *key);
	void *opaque;
};

/* Optional capabilities that the tree needs to know (files are absent without them). */
enum backend_cap {
	BACKEND_CAP_STOP	= 1 << 0,	/* stop, start */
	BACKEND_CAP_RESTART	= 1 << 1,
	BACKEND_CAP_CONSOLE	= 1 << 2,
};

struct backend_ops {
	const char *name;		/* also the section of the config: "kvm" */
	const char *const *conf_keys;	/* NULL terminated: keys allowed in its section */
	unsigned caps;
	/*
	 * Start up: look at the machine, adopt what is recorded below state_dir
	 * (each through events->state, from the loop). 0 even when the backend
	 * cannot be used now (no QEMU): it then reports ready(false, why) and
	 * refuses create with that sentence. < 0: the configuration is wrong.
	 */
	int (*open)(struct backend **, struct loop *, const struct backend_conf *,
		    const struct backend_events *, void *user, struct err *);
	/* Let go of everything; VMs stay as they are. No events afterwards. Takes NULL. */
	void (*close)(struct backend *);
	/*
	 * Make a VM. The backend writes its own record (below state_dir, with
	 * spec->tag, synced to disk) before anything else exists. Refusals that
	 * can be known at once come at once: -EINVAL no such image, -ENOSPC,
	 * -ENODEV the backend is not ready. The name is not in use by this backend.
	 */
	int (*create)(struct backend *, const char *name, const struct vm_spec *, struct err *);
	/* In every state, also FAILED and CREATING. Ends in gone, or in VM_FAILED. */
	int (*destroy)(struct backend *, const char *name, struct err *);
	int (*start)(struct backend *, const char *name, struct err *);	/* STOPPED, FAILED */
	int (*stop)(struct backend *, const char *name, struct err *);	/* orderly, then by force */
	int (*restart)(struct backend *, const char *name, struct err *);
	/*
	 * Facts for `info`, as "key value" lines appended to out (accel, image,
	 * cpus, memory, disk, pid, …; sizes in bytes without suffix). From memory.
	 */
	void (*info)(struct backend *, const char *name, struct buf *out);
	/*
	 * The serial console as a file of the host that is only appended to: an
	 * open descriptor (O_RDONLY, caller closes), or a negative errno.
	 */
	int (*console)(struct backend *, const char *name);
	/* One line for .sbxfs/backends behind name and ready: "accel=tcg images=debian …". */
	void (*describe)(struct backend *, struct buf *out);
};

/* NULL terminated table of the backends compiled in. */
extern const struct backend_ops *const backend_registry[];
/* The ops of that name, or NULL. */
const struct backend_ops *backend_find(const char *name);

#endif
