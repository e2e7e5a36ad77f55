/*
 * What a guest may send: a filter over the Ethernet frames that come out of its
 * network card, and the answer to those that it may not send. Pure; the frames are a
 * hostile peer's.
 *
 * With the network on everything outside the host is reachable, but not
 *	the host's loopback		127.0.0.0/8, 0.0.0.0/8, and 10.0.2.2, which stands for it
 *	the addresses of the host	whatever its routing tables call local: rules.local()
 *	metadata services of clouds	169.254.0.0/16, 100.100.100.200, 168.63.129.16
 *	multicast and broadcast
 * unless it is in the list of what is allowed. Of 10.0.2.3 there is only DNS.
 * With the network off only answers on connections that came from outside go out.
 * In both cases ARP and DHCP work, which end at the gateway.
 *
 * Dropped without an answer is what no honest guest sends: IPv6 and other protocols, IP
 * options, pieces of TCP segments (by which a SYN could be hidden), what is cut off.
 */
#ifndef SBXFS_KVM_NET_FRAME_H
#define SBXFS_KVM_NET_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_GATEWAY 0x0a000202u	/* 10.0.2.2; addresses are in the host's byte order */
#define FRAME_DNS 0x0a000203u		/* 10.0.2.3 */
#define FRAME_NET 0x0a000200u
#define FRAME_NET_MASK 0xffffff00u
#define FRAME_LOOPBACK 0x7f000000u
#define FRAME_ALLOWED_MAX 64
#define FRAME_REFUSAL_MAX 70		/* bytes of an answer */

enum frame_verdict {
	FRAME_PASS,
	FRAME_DROP,
	FRAME_REFUSE,		/* dropped, and the guest is told: frame_refusal */
};

struct frame_allowed {
	uint32_t net, mask;
	uint16_t port;		/* 0: every port and protocol */
};

struct frame_rules {
	bool restricted;	/* the network is off */
	struct frame_allowed allowed[FRAME_ALLOWED_MAX];
	size_t allowed_count;
	/* Is that an address of this host, or a broadcast of its networks? */
	bool (*local)(void *user, uint32_t address);
	void *user;
};

/*
 * Take "ADDRESS[/LENGTH][:PORT] ..." into rules->allowed. 0, or a negative errno with
 * wrong (of WRONG bytes) being the word that is not so.
 */
#define FRAME_WRONG_MAX 64
int frame_allow(struct frame_rules *, const char *list, char wrong[FRAME_WRONG_MAX]);
/* Is a part of the host's loopback allowed? It is reached as FRAME_GATEWAY. */
bool frame_allows_loopback(const struct frame_rules *);

enum frame_verdict frame_check(const struct frame_rules *, const uint8_t *frame, size_t len);
/*
 * "Communication administratively prohibited" (ICMP type 3, code 13: RFC 1812) from the
 * gateway, so that connect() in the guest fails at once. Only for what frame_check
 * refused. Returns the length of the answer.
 */
size_t frame_refusal(const uint8_t *frame, size_t len, uint8_t answer[FRAME_REFUSAL_MAX]);

#endif
