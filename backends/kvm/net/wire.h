/*
 * The cable to QEMU's network card: -netdev stream, that is each Ethernet frame behind
 * its length (4 bytes, big-endian), over a Unix socket.
 */
#ifndef SBXFS_KVM_NET_WIRE_H
#define SBXFS_KVM_NET_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"

#define WIRE_MTU 65520			/* of the guest's card too: qemu_args.c */
#define WIRE_FRAME_MAX 69632		/* the most that QEMU takes or sends */

struct wire {
	int fd;				/* -1: no QEMU is there */
	struct buf in, out;
};

/* From now on this is the other end; what was under way to or from the old one is dropped. */
void wire_plug(struct wire *, int fd);
/* Closes it. */
void wire_unplug(struct wire *);
/* Is so much on its way that nothing should be added? The guest's QEMU does not read. */
bool wire_full(const struct wire *);
/* One frame on its way; one too many is lost, as on a cable. */
void wire_put(struct wire *, const void *frame, size_t len);
/* Send what goes. False: the other end is gone, errno says how. */
bool wire_flush(struct wire *);
/*
 * Read what there is, some hundred KiB at most, and call each for every whole frame.
 * False: the other end is gone, errno 0 if it has just closed; EPROTO: what it sends are
 * no frames.
 */
bool wire_take(struct wire *, void (*each)(void *user, const uint8_t *frame, size_t len),
	       void *user);

#endif
