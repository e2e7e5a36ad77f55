/* From what a VM shall be to QEMU's command line: pure. */
#ifndef SBXFS_KVM_QEMU_ARGS_H
#define SBXFS_KVM_QEMU_ARGS_H

#include <stdbool.h>
#include <stdint.h>

struct qemu_machine {
	const char *binary;
	const char *name;		/* the sandbox's */
	const char *machine_id;		/* 32 hexadecimal digits */
	bool kvm;			/* else software emulation */
	unsigned cpus;
	uint64_t memory;		/* bytes, whole MiB */
	const char *kernel, *initrd;	/* "": it boots from its disk */
	const char *cmdline;		/* what the image adds to the kernel's */
	const char *disk;		/* a qcow2 file; all paths absolute */
	const char *node;		/* QEMU's name for it */
	const char *ram;		/* memory to begin with, not changed; then the rest of its
					   state is awaited (migrate-incoming). NULL: it boots */
	const char *console;		/* the file that the serial port is appended to */
	int qmp_fd, identity_fd, net_fd;	/* listening sockets that it inherits */
};

/*
 * Kept with what is saved of a machine, which only one with the same devices can take
 * in: raised when they change. 1, or none: its network was part of QEMU.
 */
#define QEMU_MACHINE_VERSION 2

/* What the guest's side of the network is; told to it over the identity port. */
#define QEMU_GUEST_ADDRESS "10.0.2.15/24"
#define QEMU_GUEST_GATEWAY "10.0.2.2"
#define QEMU_GUEST_DNS "10.0.2.3"
#define QEMU_MTU 65520		/* net/wire.h */

/* A NULL terminated vector; free with qemu_args_free. */
char **qemu_args(const struct qemu_machine *);
void qemu_args_free(char **argv);

/*
 * The machine id as it stands in the command line: no other process has it.
 */
void qemu_uuid(const char *machine_id, char uuid[37]);

#endif
