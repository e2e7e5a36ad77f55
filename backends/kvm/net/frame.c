/* The filter over a guest's frames: see frame.h. */
#include "frame.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	ETH_HEAD = 14, ARP_SIZE = 28,
	IP_HEAD = 20, UDP_HEAD = 8, TCP_HEAD = 20, ICMP_HEAD = 8,
	TYPE_IP = 0x0800, TYPE_ARP = 0x0806,
	PROTO_ICMP = 1, PROTO_TCP = 6, PROTO_UDP = 17,
	TCP_SYN = 0x02, TCP_ACK = 0x10,
	PORT_DNS = 53, PORT_DHCP = 67,
};

/* One IP packet, as far as it is looked at. */
struct packet {
	uint32_t to;
	uint8_t protocol;
	bool piece;		/* of a larger one */
	uint16_t port;		/* of TCP and UDP, unless it is a piece */
	bool opens;		/* TCP: a new connection */
};

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

/* --- what is allowed --------------------------------------------------------------- */

static bool take_number(const char *text, unsigned long most, unsigned long *n)
{
	char *end;

	*n = strtoul(text, &end, 10);
	return text[0] >= '0' && text[0] <= '9' && !*end && *n <= most;
}

static bool take_word(char *word, struct frame_allowed *a)
{
	char *port = strchr(word, ':'), *length = strchr(word, '/');
	unsigned long number = 0, bits = 32;
	struct in_addr address;

	if (port)
		*port++ = '\0';
	if (length && (!port || length < port))
		*length++ = '\0';
	if ((port && (!take_number(port, 65535, &number) || !number)) ||
	    (length && !take_number(length, 32, &bits)) || inet_pton(AF_INET, word, &address) != 1)
		return false;
	a->mask = bits ? ~0u << (32 - bits) : 0;
	a->net = ntohl(address.s_addr) & a->mask;
	a->port = (uint16_t)number;
	return true;
}

int frame_allow(struct frame_rules *rules, const char *list, char wrong[FRAME_WRONG_MAX])
{
	static const char blank[] = " \t,";

	for (list += strspn(list, blank); *list; list += strspn(list, blank)) {
		size_t len = strcspn(list, blank);
		char word[FRAME_WRONG_MAX];

		snprintf(word, sizeof(word), "%.*s", (int)len, list);
		strcpy(wrong, word);
		if (len >= sizeof(word))
			return -EINVAL;
		if (rules->allowed_count == FRAME_ALLOWED_MAX)
			return -E2BIG;
		if (!take_word(word, &rules->allowed[rules->allowed_count]))
			return -EINVAL;
		rules->allowed_count++;
		list += len;
	}
	return 0;
}

static bool allowed(const struct frame_rules *rules, uint32_t to, uint16_t port)
{
	for (size_t i = 0; i < rules->allowed_count; i++) {
		const struct frame_allowed *a = &rules->allowed[i];

		if ((to & a->mask) == a->net && (!a->port || a->port == port))
			return true;
	}
	return false;
}

bool frame_allows_loopback(const struct frame_rules *rules)
{
	for (size_t i = 0; i < rules->allowed_count; i++) {
		const struct frame_allowed *a = &rules->allowed[i];
		uint32_t common = a->mask & 0xff000000u;

		if ((a->net & common) == (FRAME_LOOPBACK & common))
			return true;
	}
	return false;
}

/* --- looking at a frame -------------------------------------------------------------- */

static bool parse(const uint8_t *ip, size_t len, struct packet *p)
{
	size_t total;

	if (len < IP_HEAD || ip[0] != 0x45)	/* version 4, no options */
		return false;
	total = get16(ip + 2);
	if (total < IP_HEAD || total > len)
		return false;
	*p = (struct packet){ .to = get32(ip + 16), .protocol = ip[9] };
	p->piece = get16(ip + 6) & 0x3fff;	/* more of it follows, or came before */
	if (p->protocol == PROTO_TCP) {
		if (p->piece || total < IP_HEAD + TCP_HEAD)
			return false;
		p->port = get16(ip + IP_HEAD + 2);
		p->opens = (ip[IP_HEAD + 13] & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	} else if (p->protocol == PROTO_UDP && !p->piece) {
		if (total < IP_HEAD + UDP_HEAD)
			return false;
		p->port = get16(ip + IP_HEAD + 2);
	}
	return p->protocol == PROTO_TCP || p->protocol == PROTO_UDP || p->protocol == PROTO_ICMP;
}

static bool metadata(uint32_t to)
{
	return (to & 0xffff0000u) == 0xa9fe0000u ||	/* 169.254.0.0/16: most clouds */
	       to == 0x646464c8u ||			/* 100.100.100.200: Alibaba's */
	       to == 0xa83f8110u;			/* 168.63.129.16: Azure's */
}

static bool forbidden(const struct frame_rules *rules, uint32_t to)
{
	return (to & 0xff000000u) == FRAME_LOOPBACK || (to & 0xff000000u) == 0 ||
	       metadata(to) || rules->local(rules->user, to);
}

/* The gateway, which stands for the host's loopback. */
static bool gateway(const struct frame_rules *rules, const struct packet *p)
{
	if (p->protocol == PROTO_ICMP)
		return !rules->restricted;	/* it answers itself */
	if (p->piece || !p->port)
		return false;
	return !rules->restricted && allowed(rules, FRAME_LOOPBACK | 1, p->port);
}

static bool may_reach(const struct frame_rules *rules, const struct packet *p)
{
	if (p->protocol == PROTO_TCP && !p->opens)
		return true;			/* of a connection that was let in, or of none */
	if (p->to == FRAME_GATEWAY)
		return gateway(rules, p);
	if (rules->restricted)
		return false;
	if (p->to == FRAME_DNS)
		return p->protocol == PROTO_ICMP || (!p->piece && p->port == PORT_DNS);
	if ((p->to & FRAME_NET_MASK) == FRAME_NET || p->to >= 0xe0000000u)
		return false;
	return !forbidden(rules, p->to) || (!p->piece && allowed(rules, p->to, p->port));
}

enum frame_verdict frame_check(const struct frame_rules *rules, const uint8_t *frame, size_t len)
{
	struct packet p;

	if (len < ETH_HEAD)
		return FRAME_DROP;
	if (get16(frame + 12) == TYPE_ARP)
		return len < ETH_HEAD + ARP_SIZE ? FRAME_DROP : FRAME_PASS;
	if (get16(frame + 12) != TYPE_IP || !parse(frame + ETH_HEAD, len - ETH_HEAD, &p))
		return FRAME_DROP;
	if (p.protocol == PROTO_UDP && p.port == PORT_DHCP && !p.piece &&
	    (p.to == FRAME_GATEWAY || p.to == ~0u))
		return FRAME_PASS;
	if (may_reach(rules, &p))
		return FRAME_PASS;
	/* Neither many nor an error message is answered by one. */
	return p.to >= 0xe0000000u || p.piece || p.protocol == PROTO_ICMP ? FRAME_DROP :
									    FRAME_REFUSE;
}

/* --- the answer ------------------------------------------------------------------------ */

static void put16(uint8_t *p, unsigned n)
{
	p[0] = (uint8_t)(n >> 8);
	p[1] = (uint8_t)n;
}

static uint16_t checksum(const uint8_t *p, size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i + 1 < len; i += 2)
		sum += get16(p + i);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

size_t frame_refusal(const uint8_t *frame, size_t len, uint8_t answer[FRAME_REFUSAL_MAX])
{
	static const uint8_t gateway_mac[6] = { 0x52, 0x55, 0x0a, 0x00, 0x02, 0x02 };
	uint8_t *ip = answer + ETH_HEAD, *icmp = ip + IP_HEAD;
	const size_t quoted = IP_HEAD + 8;	/* the head of what is refused, and its ports */

	memset(answer, 0, FRAME_REFUSAL_MAX);
	memcpy(answer, frame + 6, 6);
	memcpy(answer + 6, gateway_mac, 6);
	put16(answer + 12, TYPE_IP);
	ip[0] = 0x45;
	put16(ip + 2, (unsigned)(IP_HEAD + ICMP_HEAD + quoted));
	ip[8] = 64;
	ip[9] = PROTO_ICMP;
	put16(ip + 12, FRAME_GATEWAY >> 16);
	put16(ip + 14, FRAME_GATEWAY & 0xffff);
	memcpy(ip + 16, frame + ETH_HEAD + 12, 4);
	put16(ip + 10, checksum(ip, IP_HEAD));
	icmp[0] = 3;
	icmp[1] = 13;
	memcpy(icmp + ICMP_HEAD, frame + ETH_HEAD, quoted);
	put16(icmp + 2, checksum(icmp, ICMP_HEAD + quoted));
	return ETH_HEAD + IP_HEAD + ICMP_HEAD + quoted;
}
