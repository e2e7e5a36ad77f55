/*
 * Unix sockets in a folder, whatever the length of its path: the daemon makes
 * the listening end before QEMU starts and QEMU inherits it, so that there is
 * no moment at which the socket is not there yet.
 */
#ifndef SBXFS_KVM_SOCK_H
#define SBXFS_KVM_SOCK_H

struct err;

/* A listening socket at dir/name; one that is there is replaced. An fd, or < 0 and *err. */
int sock_listen(const char *dir, const char *name, struct err *err);
/* A connected, non-blocking socket. An fd, or < 0 and *err. */
int sock_connect(const char *dir, const char *name, struct err *err);

#endif
