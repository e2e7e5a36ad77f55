/*
 * A machine that stands still, out of QEMU's migration stream into two files:
 * its RAM, page by page where it belongs, and all else (the state of its
 * devices, and RAM that is not the machine's own, such as firmware) as a
 * stream that QEMU takes in again. A file of RAM can be mapped privately by any
 * number of machines, which then share what they do not change.
 *
 * The format is QEMU's own (migration/savevm.c, migration/ram.c; section "ram"
 * of version 4, QEMU 2.5 and later). What is not understood ends in an error,
 * never in a file that looks whole.
 */
#ifndef SBXFS_KVM_RAM_H
#define SBXFS_KVM_RAM_H

#include <stddef.h>
#include <stdint.h>

/*
 * Read a whole stream from in (blocking, to its end). The block of exactly size
 * bytes whose name ends in "/mem" goes to ram, an empty file, which gets that
 * size and no blocks where the memory is zero; the rest goes to state. Does nothing
 * but read(2) and write(2), so that it can run in a forked child. 0, or a negative
 * errno with what was wrong in why.
 */
int ram_split(int in, int ram, int state, uint64_t size, char *why, size_t why_size);

#endif
