/* Which addresses are the host's own: asked of its routing tables, so always as of now. */
#ifndef SBXFS_KVM_NET_ROUTE_H
#define SBXFS_KVM_NET_ROUTE_H

#include <stdbool.h>
#include <stdint.h>

struct route;

/* NULL and errno: the kernel gives no netlink socket. */
struct route *route_create(void);
/*
 * Would the host deliver what is sent there to itself, or to all in a network of its?
 * An answer is believed for a second. What the kernel cannot tell is taken to be local.
 * The address in host byte order; the first argument is a struct route.
 */
bool route_local(void *, uint32_t address);

#endif
