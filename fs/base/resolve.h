/*
 * Host names to addresses, without waiting: getaddrinfo(3) runs in a helper
 * thread of its own, the only one there is; numeric addresses come back by the loop too.
 */
#ifndef SBXFS_BASE_RESOLVE_H
#define SBXFS_BASE_RESOLVE_H

#include <stddef.h>
#include <sys/socket.h>

struct err;
struct loop;
struct resolve;

#define RESOLVE_MAX 8

struct address {
	struct sockaddr_storage addr;
	socklen_t len;
};

/*
 * The addresses in the order in which they are to be tried, at most RESOLVE_MAX
 * and borrowed for the call; n is 0 when there are none, and *why says it.
 */
typedef void resolve_cb(void *user, const struct address *, size_t n, const struct err *why);

/*
 * Look host up: cb runs exactly once, later from the loop, unless
 * resolve_cancel came first; the pointer is valid until then. Never NULL. A name
 * server that does not answer takes as long as resolv.conf(5) allows it: who has a deadline
 * cancels.
 */
struct resolve *resolve_start(struct loop *, const char *host, int port, resolve_cb *, void *user);
void resolve_cancel(struct resolve *);		/* takes NULL */

#endif
