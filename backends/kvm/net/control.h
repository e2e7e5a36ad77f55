/*
 * The words between the daemon and the network of a VM (sbxfs-net), a line each, over
 * the Unix socket NAME.ctl. Pure.
 *
 * To it:	open GUEST HOST		forward 127.0.0.1:HOST to that port of the guest; 0, or
 *					one that is taken: any that is free
 *		close GUEST
 *		keep 0|1		1: when QEMU goes, wait for another one, with all
 *					connections as they are, as long as the daemon
 *					that said it is there. 0, as at first: end with it
 *		frames			with a descriptor (SCM_RIGHTS): QEMU's socket from now on;
 *					keep is 0 again
 *		end			now
 * From it:	hello 1			its version; then a port line for each, and ready
 *		port GUEST HOST		is open at HOST; 0: is closed
 *		failed GUEST ERRNO	could not be opened
 *		ready
 */
#ifndef SBXFS_KVM_NET_CONTROL_H
#define SBXFS_KVM_NET_CONTROL_H

#include <stddef.h>

#define CONTROL_LINE_MAX 64
#define CONTROL_VERSION 1

enum control_verb {
	CONTROL_OPEN, CONTROL_CLOSE, CONTROL_KEEP, CONTROL_FRAMES, CONTROL_END,
	CONTROL_HELLO, CONTROL_PORT, CONTROL_FAILED, CONTROL_READY,
	CONTROL_VERBS
};

struct control {
	enum control_verb verb;
	unsigned a, b;			/* its numbers, in the order of the line; else 0 */
};

/*
 * One line, without its newline, len bytes. 0, or -EBADMSG for what is none of the above:
 * ports beyond 65535, too few or too many words, or other bytes.
 */
int control_parse(struct control *, const char *line, size_t len);
/* The line with its newline and a NUL. Returns its length. */
size_t control_print(const struct control *, char line[CONTROL_LINE_MAX]);

#endif
