/* What a process that reads a hostile guest's packets can do without. */
#ifndef SBXFS_KVM_NET_CONFINE_H
#define SBXFS_KVM_NET_CONFINE_H

/*
 * From here on: not root (nobody, when it was), no new rights, no new processes or
 * programs, files of 64 KiB at most (its log), no look into other processes, no core. Its sockets
 * stay, and new ones can be made. 0, or a negative errno.
 */
int confine(void);

#endif
