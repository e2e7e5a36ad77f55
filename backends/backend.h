/*
 * What a backend is to the fleet: calls down (struct backend_ops), news up
 * (struct backend_events). Names cross, pointers do not: each side keeps its
 * own object under the VM's id.
 *
 * The id is given at create and never changes while the VM lives. It is the
 * name that the sandbox was made under, or that name and a suffix where one
 * that was renamed or lies in the trash still has it. What users call the
 * sandbox now is the fleet's business; a backend that shows names to others
 * (a cloud's host names) is told by rename.
 *
 * One contract for the ops that take an id: < 0 is refused, nothing was
 * done, *err says why; 0 is accepted, and the outcome is told through events,
 * always later from the loop, never from inside the op. An accepted request
 * that fails later and leaves the VM as it was is told through trouble. All
 * ops are called on the loop's thread and never wait.
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
	unsigned caps;		/* BACKEND_CAP_*: what it can do here and now; at most ops->caps */
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
	char image[256];
	unsigned cpus;
	uint64_t memory;	/* bytes */
	uint64_t disk;		/* bytes */
	char tag[40];		/* random, unique to this creation; see fs/vm/store.h */
	char name[64];		/* what it is called at its creation: its host name */
	char from[64];		/* id of the VM to clone, of the same backend; "" for none */
	char from_snapshot[64];	/* one of its snapshots; "" for the VM as it is now */
	bool no_network;	/* no way out but the ports that are opened */
	char extra[512];	/* "key value" lines of the backend's own draft_keys */
};

/* What a backend knows of a VM beside its state. NULL fields are not told. */
struct vm_about {
	const char *name;	/* what the service calls it: at an adoption, or renamed there */
	const char *tags;	/* blank-separated */
	const char *comment;
	bool foreign;		/* not made by sbxfs: shown with protect 1 */
};

/* A snapshot as it is listed. */
struct vm_snapshot {
	const char *name;
	int64_t taken;		/* ms since the epoch */
	uint64_t size;		/* bytes it takes on the host */
	bool ready;		/* false: being taken */
};

struct backend_events {		/* called from the loop, never from inside an op */
	/*
	 * A fact about the VM. The first report of an id makes the fleet know
	 * it (adoption). endpoint goes with VM_UP; with VM_STOPPED, and then with VM_BOOTING,
	 * if it is suspended and will be reached there again, where connections are kept as
	 * they are until then; and is otherwise NULL. err goes with VM_FAILED and may go with
	 * VM_STOPPED (why it stopped). Both are borrowed for the call.
	 */
	void (*state)(void *user, const char *id, enum vm_state,
		      const struct endpoint *, const struct err *);
	/* Verified gone: nothing of it is left. The id may be used again. */
	void (*gone)(void *user, const char *id);
	/*
	 * The backend itself became ready or not (why: one sentence; "" when
	 * ready). Backends that are ready at once need not call it.
	 */
	void (*ready)(void *user, bool ready, const char *why);
	/* Names, tags, comment as the service has them now; borrowed for the call. */
	void (*about)(void *user, const char *id, const struct vm_about *);
	/* An accepted request failed and the VM is as it was: "pause", and why. */
	void (*trouble)(void *user, const char *id, const char *operation, const struct err *);
	/*
	 * What was asked of it (a snapshot, suspend) makes it stand still, or it goes on
	 * again. Its state is what it was, and its silence means nothing meanwhile.
	 */
	void (*still)(void *user, const char *id, bool still);
	/* Something that info, snapshots or ports show has changed. */
	void (*changed)(void *user, const char *id);
};

/* One [section] of the config file: the backend's own keys. */
struct backend_conf {
	/* the backend's own folder below the state directory; exists, 0700 */
	const char *state_dir;
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
	BACKEND_CAP_PAUSE	= 1 << 3,	/* pause, resume: the memory is kept */
	BACKEND_CAP_SUSPEND	= 1 << 4,	/* suspend to disk; start brings it back */
	BACKEND_CAP_SNAPSHOT	= 1 << 5,	/* snapshots/, restore */
	BACKEND_CAP_CLONE	= 1 << 6,	/* spec.from */
	BACKEND_CAP_PORTS	= 1 << 7,
	BACKEND_CAP_RESIZE	= 1 << 8,
	BACKEND_CAP_KEEP	= 1 << 9, /* a stopped VM costs only disk: trash is possible */
	BACKEND_CAP_NETWORK	= 1 << 10,	/* spec.no_network */
	BACKEND_CAP_LOCAL	= 1 << 11, /* its disks are on this host: [limits] free holds */
};

struct backend_ops {
	const char *name;		/* also the section of the config: "kvm" */
	const char *const *conf_keys;	/* NULL terminated: keys allowed in its section */
	const char *const *draft_keys;	/* NULL terminated: files of its own in a draft; or NULL */
	unsigned caps;			/* BACKEND_CAP_*: what it can do at best */
	/* The image of its VMs where it is not the default backend. NULL: [defaults] image. */
	const char *default_image;
	/* Sizes that nobody has set are the service's own: 0 in the spec, for [defaults] too. */
	bool own_sizes;
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
	 * -ENODEV the backend is not ready, -EACCES it may not. The id is not in use by
	 * this backend.
	 */
	int (*create)(struct backend *, const char *id, const struct vm_spec *, struct err *);
	/* In every state, also FAILED and CREATING. Ends in gone, or in VM_FAILED. */
	int (*destroy)(struct backend *, const char *id, struct err *);
	int (*start)(struct backend *, const char *id, struct err *);	/* STOPPED, FAILED */
	int (*stop)(struct backend *, const char *id, struct err *);	/* orderly, then by force */
	int (*restart)(struct backend *, const char *id, struct err *);

	/* What follows may be NULL where the capability is not in caps. */
	int (*pause)(struct backend *, const char *id, struct err *);	/* UP -> PAUSED */
	int (*resume)(struct backend *, const char *id, struct err *);	/* PAUSED -> UP */
	int (*suspend)(struct backend *, const char *id, struct err *);	/* UP, PAUSED -> STOPPED */
	/* Nobody has a connection to one that is suspended which should be kept. Optional. */
	void (*release)(struct backend *, const char *id);
	/* Zero fields stay as they are. */
	int (*resize)(struct backend *, const char *id, unsigned cpus, uint64_t memory,
		      uint64_t disk, struct err *);
	/*
	 * Take, drop or go back to a snapshot. -EEXIST, -ENOENT, -EBUSY. Outcome: changed,
	 * trouble.
	 */
	int (*snapshot)(struct backend *, const char *id, const char *snapshot, struct err *);
	int (*snapshot_drop)(struct backend *, const char *id, const char *snapshot, struct err *);
	int (*restore)(struct backend *, const char *id, const char *snapshot, struct err *);
	/* Each snapshot in the order of time, from memory; all borrowed for the call. */
	void (*snapshots)(struct backend *, const char *id,
			  void (*each)(void *user, const struct vm_snapshot *), void *user);
	/*
	 * Make a TCP port of the guest reachable, or no longer. Repeated calls are fine: the
	 * fleet asks again for every port it has recorded when a VM comes up.
	 */
	int (*port_open)(struct backend *, const char *id, unsigned port, struct err *);
	int (*port_close)(struct backend *, const char *id, unsigned port, struct err *);
	/* Where it is reachable ("http://127.0.0.1:40123"), appended to out; < 0: not now. */
	int (*port_url)(struct backend *, const char *id, unsigned port, struct buf *out);
	/*
	 * Further files of an open port, such as visibility: a value without a newline
	 * appended to out, from memory; a new one: -EINVAL with what is allowed.
	 * Optional: port_keys is NULL terminated, or NULL.
	 */
	const char *const *port_keys;
	void (*port_get)(struct backend *, const char *id, unsigned port, const char *key,
			 struct buf *out);
	int (*port_set)(struct backend *, const char *id, unsigned port, const char *key,
			const char *value, struct err *err);
	/* The sandbox is called so from now on, has these tags and this comment. Optional. */
	int (*rename)(struct backend *, const char *id, const char *name, struct err *);
	int (*annotate)(struct backend *, const char *id, const char *tags, const char *comment,
			struct err *);
	/*
	 * May key of draft_keys, or image, cpus, memory, disk (as they are written), have this
	 * value? -EINVAL with what is allowed; 0 for a key that it has no rule for. Optional.
	 */
	int (*check)(struct backend *, const char *key, const char *value, struct err *);
	/* May a sandbox be called so? Beyond the fleet's own rules. Optional. */
	int (*check_name)(struct backend *, const char *name, struct err *);

	/*
	 * Facts for `info`, as "key value" lines appended to out (accel, image,
	 * cpus, memory, disk, pid, …; sizes in bytes without suffix). From memory.
	 * A value that is written as JSON writes a number is one in info.json; what is text
	 * whatever it looks like, as a name is, stands between '"', which are not shown.
	 */
	void (*info)(struct backend *, const char *id, struct buf *out);
	/*
	 * The serial console as a file of the host that is only appended to: an
	 * open descriptor (O_RDONLY, caller closes), or a negative errno.
	 */
	int (*console)(struct backend *, const char *id);
	/* One line for .sbxfs/backends behind name and ready: "accel=tcg images=debian …". */
	void (*describe)(struct backend *, struct buf *out);
};

/* NULL terminated table of the backends compiled in. */
extern const struct backend_ops *const backend_registry[];
/* The ops of that name, or NULL. */
const struct backend_ops *backend_find(const char *name);

#endif
