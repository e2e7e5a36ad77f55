/* Processes and files as evidence: which QEMU is whose, and what was said last. */
#ifndef SBXFS_KVM_PROCESS_H
#define SBXFS_KVM_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct err;

/* When the process started, in the kernel's ticks since boot; 0: no such process. */
uint64_t process_start(pid_t pid);
/* The process with this word in its command line, or 0. */
pid_t process_find(const char *word);
/* An id of this boot of the host. */
void process_boot_id(char *id, size_t size);

/*
 * The lock of a VM's QEMU, a file of its folder: whoever holds the descriptor,
 * or has inherited it, is alive. An fd, or -EWOULDBLOCK: held; or another errno.
 */
int process_lock(const char *path);

/*
 * The last line with something in it of a file's end, without escape sequences;
 * "" if there is none.
 */
void last_words(const char *path, char *words, size_t size);
/* What follows mark in its line, in a file's end but not before from. False: nowhere. */
bool words_behind(const char *path, off_t from, const char *mark, char *words, size_t size);

#endif
