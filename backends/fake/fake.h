/*
 * The fake backend's parts, for each other: fake.c (states), guest.c (the
 * sshd and the processes), record.c (what is on disk), switches.c (what tests
 * can make go wrong).
 */
#ifndef SBXFS_BACKENDS_FAKE_FAKE_H
#define SBXFS_BACKENDS_FAKE_FAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uthash.h>

#include "backend.h"
#include "list.h"
#include "loop.h"

struct proc;

extern const struct backend_ops fake_backend_ops, fake2_backend_ops;

#define FAKE_NAME_MAX 64

/* What a test has set for a name; see the top of switches.c. */
struct switches {
	char name[FAKE_NAME_MAX];
	int64_t create_ms, boot_ms, stop_ms, destroy_ms;
	bool fail_create, fail_boot, fail_destroy;
	bool refuse, silent, dead, wrong_host_key;
	int max_sessions, port, via;
	UT_hash_handle hh;
};

struct fake {
	struct backend base;
	struct loop *loop;
	const struct backend_events *events;
	void *user;
	char *dir;			/* conf->state_dir */
	char *sshd, *sftp_server;	/* NULL: not installed */
	struct err unusable;		/* why nothing can be created here */
	bool shared_key;	/* one host key for all: thousands of sandboxes cost no keygen */
	int max_sessions;
	struct proc *keygen;		/* of the client's key */
	bool keys;			/* the client's key is there */
	struct loop_later start;	/* telling what was adopted */
	struct box *boxes;
	struct switches *switches;
	struct loop_fd control;		/* inotify on dir/control */
	int64_t ahead;			/* how far the wall clock was moved, ms */
};

/* What follows when the last process of a sandbox has ended. */
enum after { AFTER_STOP, AFTER_RESTART, AFTER_DESTROY };

struct box {
	struct fake *fake;
	char name[FAKE_NAME_MAX];
	enum vm_state state;
	struct vm_spec spec;
	struct err why;			/* of VM_FAILED */
	char *dir;			/* dir/boxes/NAME */
	struct loop_timer timer;	/* the next step of what goes on */
	struct proc *keygen;
	enum after after;
	bool halted;			/* it stopped by itself */
	unsigned ports[64], port_count;	/* open; nothing of it is remembered */
	unsigned public_port;		/* one that all may see; 0: none */
	char called[FAKE_NAME_MAX];	/* what the fleet calls it, if it has told */
	char *tags, *comment;
	bool foreign;			/* it appeared by itself */
	int clean;			/* looks at /proc in a row that found no process */
	int64_t killing;		/* since when */
	/* guest.c */
	struct loop_fd listener;
	int sock;			/* -1: the guest is not up */
	int port;
	struct list conns;
	bool had_conns;			/* else there can be no process of it */
	UT_hash_handle hh;
};

/* fake.c, for switches.c */
struct box *fake_box(struct fake *, const char *name);
/* The switches of its name have changed; before is what they were. */
void box_switched(struct box *, const struct switches *before);
void box_halt(struct box *);
/* A VM that nobody asked for is there, made by somebody else. */
void box_appear(struct fake *, const char *name);

/* extras.c: pause, resize, ports, notes: what ops of that kind do here */
int fake_pause(struct backend *, const char *id, struct err *);
int fake_resume(struct backend *, const char *id, struct err *);
int fake_resize(struct backend *, const char *id, unsigned cpus, uint64_t memory, uint64_t disk,
		struct err *);
int fake_port_open(struct backend *, const char *id, unsigned port, struct err *);
int fake_port_close(struct backend *, const char *id, unsigned port, struct err *);
int fake_port_url(struct backend *, const char *id, unsigned port, struct buf *out);
int fake_rename(struct backend *, const char *id, const char *name, struct err *);
int fake_annotate(struct backend *, const char *id, const char *tags, const char *comment,
		  struct err *);
int fake_check(struct backend *, const char *key, const char *value, struct err *);
extern const char *const fake_draft_keys[], *const fake_port_keys[];
void fake_port_get(struct backend *, const char *id, unsigned port, const char *key,
		   struct buf *out);
int fake_port_set(struct backend *, const char *id, unsigned port, const char *key,
		  const char *value, struct err *err);
void extras_info(const struct box *, struct buf *out);
void extras_free(struct box *);
struct box *fake_find(struct backend *, const char *id, struct err *);
/* The VM is in that state from now on, and this is told. */
void box_enter(struct box *, enum vm_state);

/* guest.c: all of it is done when the call returns, unless said otherwise. */
void guest_find_programs(struct fake *, const struct backend_conf *);
char *guest_host_key_path(const struct box *);
/* The disk, as far as it is not there yet. */
int guest_make(struct box *, struct err *);
/* Where to log in; < 0 when the keys cannot be read. */
int guest_endpoint(struct box *, struct endpoint *, struct err *);
/* Start to listen, on the port it had if it had one. */
int guest_up(struct box *, struct err *);
/* Stop listening; the port is kept until guest_finish. */
void guest_refuse(struct box *);
void guest_finish(struct box *);
/* Find what an earlier daemon left running. */
void guest_adopt(struct box *);
/* Close and free what the guest holds here; its processes stay as they are. */
void guest_forget(struct box *);
/* Serve connections, or let them wait unanswered. */
void guest_accept(struct box *, bool);
/*
 * Send a signal to the sshd processes, or to every process of the guest.
 * Returns how many there are (zombies do not count).
 */
size_t guest_signal_sshd(struct box *, int signo);
size_t guest_signal_all(struct box *, int signo);
/* Append a line to its console. */
void guest_console(const struct box *, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
char *guest_console_path(const struct box *);

/* cell.c */
int cell_make(const char *disk, const char *host_name, struct err *err);
/* Can namespaces be had here? */
int cell_probe(struct err *);
/* For the forked child; without network there is no address but its own. 0 or a negative errno. */
int cell_enter(const char *disk, const char *host_name, bool network);
const char *cell_login(void);
const char *cell_home(void);		/* below the disk */

/* record.c */
/* Write dir/records/NAME; durable when it returns if sync. */
int record_write(const struct box *, bool sync, struct err *);
/* Fill state, spec and why of box (its name is set) from its record. */
int record_read(struct box *, struct err *);
int record_remove(const struct box *, struct err *);
/* Remove a folder and all below it, whatever its modes. Missing is fine. */
int record_remove_tree(const char *path, struct err *);

/* switches.c */
int switches_open(struct fake *, struct err *);
void switches_close(struct fake *);
/* Go on with a clock that was moved before. */
void switches_clock(struct fake *);
/* Never NULL; borrowed until the next event. */
const struct switches *switches_of(struct fake *, const char *name);
void switches_destroy_done(struct fake *, const char *name);

#endif
