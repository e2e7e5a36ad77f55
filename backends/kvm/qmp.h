/*
 * QMP, the machine protocol of QEMU, over a connected socket: commands with
 * replies matched by id, and events. See qemu-qmp-ref(7).
 *
 * Opened before QEMU has come up; commands wait for its greeting.
 */
#ifndef SBXFS_KVM_QMP_H
#define SBXFS_KVM_QMP_H

#include <stdint.h>

struct cJSON;
struct err;
struct loop;
struct qmp;

struct qmp_events {		/* called from the loop; may call qmp_close */
	/* data is the event's, borrowed, or NULL. */
	void (*event)(void *user, const char *name, const struct cJSON *data);
	/*
	 * The connection is of no use any more: its end, or words that are not QMP.
	 * All commands have been answered with an error before. qmp_close is still due.
	 */
	void (*closed)(void *user, const struct err *why);
};

/* result is what QEMU returned, borrowed, or NULL with err: its error, or -EPIPE. */
typedef void qmp_cb(void *user, const struct cJSON *result, const struct err *err);

/* Speak QMP over fd, which is closed with it, also when this fails. 0 or a negative errno. */
int qmp_open(struct qmp **, struct loop *, int fd, const struct qmp_events *, void *user,
	     struct err *);
/* No callback runs afterwards. Takes NULL. */
void qmp_close(struct qmp *);

/* Send a command. args are taken, and may be NULL. cb may be NULL, else it runs exactly once. */
void qmp_command(struct qmp *, const char *command, struct cJSON *args, qmp_cb *, void *user);

/*
 * As qmp_command, and fd goes along (for "getfd" and "add-fd"). QEMU has a duplicate
 * as soon as the command has been sent; this one is closed by then, or with the
 * connection.
 */
void qmp_command_fd(struct qmp *, const char *command, struct cJSON *args, int fd, qmp_cb *,
		    void *user);

#endif
