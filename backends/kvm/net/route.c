/*
 * The host's own addresses: see route.h. An address can be local by any interface, by
 * a bridge for containers, or by a line in a routing table, and can come and go; so each
 * one is asked for, RTM_GETROUTE in rtnetlink(7), about 5 us, and kept for a second.
 */
#include "route.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 256
#define BELIEVED_MS 1000

struct slot {
	uint32_t address;
	bool local;
	int64_t until;		/* ms; 0: never asked */
};

struct route {
	int fd;
	uint32_t seq;
	struct slot slots[SLOTS];
};

struct question {
	struct nlmsghdr head;
	struct rtmsg route;
	struct rtattr attr;
	uint32_t address;
};

struct route *route_create(void)
{
	struct route *r = calloc(1, sizeof(*r));
	const struct timeval patience = { .tv_sec = 1 };

	if (!r)
		return NULL;
	r->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (r->fd < 0 || setsockopt(r->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience))) {
		free(r);
		return NULL;
	}
	return r;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool local_by(const struct nlmsghdr *head)
{
	const struct rtmsg *route = NLMSG_DATA(head);
	const struct nlmsgerr *error = NLMSG_DATA(head);

	/* There is no way there: that is not here. */
	if (head->nlmsg_type == NLMSG_ERROR)
		return error->error != -ENETUNREACH && error->error != -EHOSTUNREACH &&
		       error->error != -EACCES;
	return head->nlmsg_type != RTM_NEWROUTE || route->rtm_type == RTN_LOCAL ||
	       route->rtm_type == RTN_BROADCAST || route->rtm_type == RTN_MULTICAST;
}

static bool ask(struct route *r, uint32_t address)
{
	struct question q = {
		.head = { .nlmsg_len = sizeof(q), .nlmsg_type = RTM_GETROUTE,
			  .nlmsg_flags = NLM_F_REQUEST, .nlmsg_seq = ++r->seq },
		.route = { .rtm_family = AF_INET, .rtm_dst_len = 32 },
		.attr = { .rta_len = RTA_LENGTH(sizeof(address)), .rta_type = RTA_DST },
		.address = htonl(address),
	};
	union {
		struct nlmsghdr head;
		char space[4096];
	} answer;
	ssize_t n;

	if (send(r->fd, &q, sizeof(q), 0) != (ssize_t)sizeof(q))
		return true;
	do {
		n = recv(r->fd, &answer, sizeof(answer), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < (ssize_t)NLMSG_LENGTH(sizeof(struct rtmsg)))
			return true;
	} while (n < 0 || answer.head.nlmsg_seq != r->seq);
	return local_by(&answer.head);
}

bool route_local(void *user, uint32_t address)
{
	struct route *r = user;
	struct slot *slot = &r->slots[(address ^ address >> 8 ^ address >> 16) % SLOTS];
	int64_t now = now_ms();

	if (slot->address != address || slot->until <= now) {
		slot->local = ask(r, address);
		slot->address = address;
		slot->until = now + BELIEVED_MS;
	}
	return slot->local;
}
