/*
 * One sandbox: what is known of its VM, its SSH connection, its jobs, its disk.
 *
 * A vm is counted: it stays valid after rmdir for whoever holds a reference, and
 * then answers -ESTALE (vm_gone).
 */
#ifndef SBXFS_VM_VM_H
#define SBXFS_VM_VM_H

#include <stdbool.h>
#include <stdint.h>

#include "backend.h"
#include "wait.h"

struct disk;
struct err;
struct buf;
struct vm;

struct vm *vm_ref(struct vm *);
void vm_unref(struct vm *);			/* takes NULL */
const char *vm_name(const struct vm *);
const char *vm_id(const struct vm *);		/* what its backend knows it by; never changes */
uint64_t vm_serial(const struct vm *);		/* a number that no other one of this run has */
bool vm_gone(const struct vm *);
/*
 * For how many seconds the kernel may keep its name, and that of root in it: they are called back
 * when it goes or is renamed. 0 where that cannot be done.
 */
double vm_lend_name(struct vm *);
unsigned vm_caps(const struct vm *);		/* BACKEND_CAP_* */
/* Woken whenever anything here changes: status, link, disk. */
struct wait_list *vm_news(struct vm *);
/* When it was created, and when its status last changed: ms since the epoch. */
int64_t vm_created(const struct vm *);
int64_t vm_changed(const struct vm *);
/* Its last sign of life (see idle in sbxfs.5): ms since the epoch. */
int64_t vm_active(const struct vm *);

/* creating booting running paused stopped destroying unreachable failed */
const char *vm_status(const struct vm *);
/* The last failure in one sentence; "" when there was none. */
const char *vm_error(const struct vm *);
/*
 * A request failed: its sentence becomes vm_error, and goes to the fleet's list of failures. path:
 * of what in the sandbox, "" for all of it.
 */
void vm_set_error(struct vm *, const char *operation, const char *path, const struct err *);
void vm_info_print(struct vm *, struct buf *out);
void vm_info_print_json(struct vm *, struct buf *out);
/* An ssh_config Host block, when it is known where the VM is; else a comment that says so. */
void vm_ssh_config_print(struct vm *, struct buf *out);
/* An open descriptor of the serial console, or a negative errno. */
int vm_console(struct vm *);

/*
 * Folder and environment of new jobs: "" by default. The caller has checked them. Setting:
 * -ESTALE when the sandbox is gone, else why it cannot be written.
 */
const char *vm_cwd(const struct vm *);
const char *vm_env(const struct vm *);
int vm_set_cwd(struct vm *, const char *, struct err *);
int vm_set_env(struct vm *, const char *, struct err *);
/* So long may new jobs run, in ms; 0: for ever. */
uint64_t vm_timeout(const struct vm *);
int vm_set_timeout(struct vm *, uint64_t ms, struct err *);

/* Notes: "", or words with one blank between two; one line. Setting: -EINVAL … */
const char *vm_tags(const struct vm *);
const char *vm_comment(const struct vm *);
bool vm_protected(const struct vm *);
int vm_set_tags(struct vm *, const char *, struct err *);
int vm_set_comment(struct vm *, const char *, struct err *);
int vm_set_protect(struct vm *, const char *, struct err *);
bool vm_has_tag(const struct vm *, const char *tag);
void vm_tags_each(const struct vm *, void (*each)(void *user, const char *tag), void *user);
/* What is left until it ends ("29m59s"; nothing when there is no end), and until when it may be. */
void vm_ttl_print(struct vm *, struct buf *out);
void vm_idle_print(struct vm *, struct buf *out);
int vm_set_ttl(struct vm *, const char *, struct err *);
int vm_set_idle(struct vm *, const char *, struct err *);
/* NAME@TIME, while it lies in the trash. */
void vm_trash_name(const struct vm *, char out[96]);

/*
 * Ports that are reachable from outside. Opening: -EEXIST, -EINVAL, -ENOSYS, or what its
 * backend says. url: a line; nothing while it is not reachable.
 */
bool vm_has_port(const struct vm *, unsigned port);
void vm_ports_each(const struct vm *, void (*each)(void *user, unsigned port), void *user);
int vm_port_open(struct vm *, const char *number, struct err *err);
int vm_port_close(struct vm *, unsigned port, struct err *err);
void vm_port_url(struct vm *, unsigned port, struct buf *out);
/* Further files of a port that its backend has; NULL terminated. */
const char *const *vm_port_keys(const struct vm *);
void vm_port_get(struct vm *, unsigned port, const char *key, struct buf *out);
int vm_port_set(struct vm *, unsigned port, const char *key, const char *value, struct err *err);

/*
 * Verbs of ctl, "pause" or "resize cpus=4": accepted (0) or refused with a sentence
 * (-EINVAL, -ENOSYS, -EBUSY, -EDQUOT …). The outcome shows in status.
 */
int vm_verb(struct vm *, const char *line, struct err *);
/* Those it has now, a blank between two. */
void vm_verbs_print(const struct vm *, struct buf *out);
/* As the verb. */
int vm_start(struct vm *, struct err *);

/*
 * The VM's disk: 0 and *disk when calls can be made now. -EAGAIN: not yet (creating,
 * booting, connecting): news on vm_news. -EHOSTDOWN: unreachable, stopped, paused,
 * failed. -ESTALE: destroyed. Asking connects an idle link.
 */
int vm_disk(struct vm *, struct disk **);
/* What the kernel was told of names below root/ may not hold any more: it asks for them anew. */
void vm_recall_names(struct vm *);
/* Somebody changed something on it (activity that counts). */
void vm_used(struct vm *);

/*
 * Snapshots (fs/vm/snapshots.c). Taking one is accepted or refused (-EEXIST, -EINVAL,
 * -EBUSY, …); it is listed at once and ready later, or gone with the reason in vm_error.
 */
int vm_snapshot_take(struct vm *, const char *name, struct err *);
int vm_snapshot_drop(struct vm *, const char *name, struct err *);
/* In the order of time; borrowed for the call. */
void vm_snapshots_each(struct vm *, void (*each)(void *user, const struct vm_snapshot *),
		       void *user);
/* found->name is name. */
bool vm_snapshot_find(struct vm *, const char *name, struct vm_snapshot *found);

#endif
