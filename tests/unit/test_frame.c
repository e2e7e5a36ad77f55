/* What a guest may send: every rule of the filter, and frames that are none. */
#include "test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"

enum { ICMP = 1, TCP = 6, UDP = 17, SYN = 0x02, ACK = 0x10, FIN = 0x01 };

static uint32_t own = 0xc0a80105;	/* 192.168.1.5 is the host */

static bool local(void *user, uint32_t address)
{
	return address == own;
}

static struct frame_rules on(const char *allow)
{
	struct frame_rules rules = { .local = local };
	char wrong[FRAME_WRONG_MAX];

	assert_int_equal(frame_allow(&rules, allow, wrong), 0);
	return rules;
}

static struct frame_rules off(void)
{
	struct frame_rules rules = on("8.8.8.8 127.0.0.1:3128");

	rules.restricted = true;
	return rules;
}

struct frame {
	uint8_t bytes[1514];
	size_t len;
};

static struct frame packet(const char *to, int protocol, unsigned port, unsigned flags)
{
	struct frame f = { .len = 14 + 20 + 20 };
	uint8_t *ip = f.bytes + 14;

	memcpy(f.bytes, "\x52\x55\x0a\x00\x02\x02\x52\x54\x00\x12\x34\x56\x08\x00", 14);
	ip[0] = 0x45;
	ip[3] = 40;
	ip[8] = 64;
	ip[9] = (uint8_t)protocol;
	memcpy(ip + 12, "\x0a\x00\x02\x0f", 4);
	assert_int_equal(inet_pton(AF_INET, to, ip + 16), 1);
	ip[20] = 0x9c;
	ip[22] = (uint8_t)(port >> 8);
	ip[23] = (uint8_t)port;
	ip[33] = (uint8_t)flags;
	return f;
}

static enum frame_verdict check(const struct frame_rules *rules, const struct frame *f)
{
	uint8_t *exact = malloc(f->len);	/* so that a sanitizer sees what is read beyond */
	enum frame_verdict v;

	assert_non_null(exact);
	memcpy(exact, f->bytes, f->len);
	v = frame_check(rules, exact, f->len);
	free(exact);
	return v;
}

static enum frame_verdict to(const struct frame_rules *rules, const char *address, int protocol,
			     unsigned port)
{
	struct frame f = packet(address, protocol, port, SYN);

	return check(rules, &f);
}

static void the_world_is_reached(void **state)
{
	struct frame_rules rules = on("");

	assert_int_equal(to(&rules, "1.1.1.1", TCP, 443), FRAME_PASS);
	assert_int_equal(to(&rules, "192.168.1.6", TCP, 22), FRAME_PASS);
	assert_int_equal(to(&rules, "1.1.1.1", UDP, 53), FRAME_PASS);
	assert_int_equal(to(&rules, "1.1.1.1", ICMP, 0), FRAME_PASS);
	assert_int_equal(to(&rules, "10.0.2.3", UDP, 53), FRAME_PASS);
	assert_int_equal(to(&rules, "10.0.2.3", TCP, 53), FRAME_PASS);
}

static void the_host_is_not(void **state)
{
	static const char *const hosts[] = {
		"127.0.0.1", "127.0.0.53", "127.255.255.255", "0.0.0.0", "0.1.2.3", "10.0.2.2",
		"10.0.2.15", "10.0.2.1", "192.168.1.5", "169.254.169.254", "169.254.0.1",
		"100.100.100.200", "168.63.129.16",
	};
	struct frame_rules rules = on("");

	for (size_t i = 0; i < sizeof(hosts) / sizeof(*hosts); i++) {
		if (to(&rules, hosts[i], TCP, 80) != FRAME_REFUSE ||
		    to(&rules, hosts[i], UDP, 53) != FRAME_REFUSE)
			fail_msg("%s is reached", hosts[i]);
	}
	/* The resolver's machine is the host: of it there is DNS and nothing else. */
	assert_int_equal(to(&rules, "10.0.2.3", TCP, 22), FRAME_REFUSE);
	assert_int_equal(to(&rules, "10.0.2.3", UDP, 5353), FRAME_REFUSE);
	assert_int_equal(to(&rules, "127.0.0.1", ICMP, 0), FRAME_DROP);
	assert_int_equal(to(&rules, "192.168.1.5", ICMP, 0), FRAME_DROP);
	assert_int_equal(to(&rules, "224.0.0.251", UDP, 5353), FRAME_DROP);
	assert_int_equal(to(&rules, "255.255.255.255", UDP, 9), FRAME_DROP);
}

static void what_is_allowed_is_reached(void **state)
{
	struct frame_rules rules = on("169.254.169.254:80, 192.168.1.0/24 127.0.0.1:3128");

	assert_int_equal(to(&rules, "169.254.169.254", TCP, 80), FRAME_PASS);
	assert_int_equal(to(&rules, "169.254.169.254", TCP, 81), FRAME_REFUSE);
	assert_int_equal(to(&rules, "169.254.169.253", TCP, 80), FRAME_REFUSE);
	assert_int_equal(to(&rules, "192.168.1.5", TCP, 22), FRAME_PASS);
	/* The loopback is reached by its stand-in, that port only. */
	assert_int_equal(to(&rules, "10.0.2.2", TCP, 3128), FRAME_PASS);
	assert_int_equal(to(&rules, "10.0.2.2", TCP, 3129), FRAME_REFUSE);
	assert_true(frame_allows_loopback(&rules));
	rules = on("10.0.0.0/8 8.8.8.8");
	assert_false(frame_allows_loopback(&rules));
	rules = on("0.0.0.0/0");
	assert_true(frame_allows_loopback(&rules));
}

static void off_is_off(void **state)
{
	struct frame_rules rules = off();
	struct frame f;

	assert_int_equal(to(&rules, "1.1.1.1", TCP, 443), FRAME_REFUSE);
	assert_int_equal(to(&rules, "8.8.8.8", UDP, 53), FRAME_REFUSE);	/* allowed, but off */
	assert_int_equal(to(&rules, "10.0.2.2", TCP, 3128), FRAME_REFUSE);
	assert_int_equal(to(&rules, "10.0.2.3", UDP, 53), FRAME_REFUSE);
	assert_int_equal(to(&rules, "10.0.2.2", ICMP, 0), FRAME_DROP);
	assert_int_equal(to(&rules, "1.1.1.1", ICMP, 0), FRAME_DROP);
	f = packet("10.0.2.2", TCP, 40000, SYN | ACK);
	assert_int_equal(check(&rules, &f), FRAME_PASS);
	f = packet("10.0.2.2", TCP, 40000, ACK);
	assert_int_equal(check(&rules, &f), FRAME_PASS);
	f = packet("10.0.2.2", TCP, 40000, SYN | FIN);
	assert_int_equal(check(&rules, &f), FRAME_REFUSE);
}

static void the_address_can_be_asked_for(void **state)
{
	struct frame_rules rules = off();

	assert_int_equal(to(&rules, "255.255.255.255", UDP, 67), FRAME_PASS);
	assert_int_equal(to(&rules, "10.0.2.2", UDP, 67), FRAME_PASS);
	assert_int_equal(to(&rules, "1.1.1.1", UDP, 67), FRAME_REFUSE);
	assert_int_equal(to(&rules, "255.255.255.255", TCP, 67), FRAME_DROP);
}

static void what_no_honest_guest_sends_is_dropped(void **state)
{
	struct frame_rules rules = on("");
	struct frame f = packet("1.1.1.1", TCP, 80, SYN);

	f.bytes[14 + 7] = 1;			/* a later piece */
	assert_int_equal(check(&rules, &f), FRAME_DROP);
	f = packet("1.1.1.1", TCP, 80, SYN);
	f.bytes[14 + 6] = 0x20;			/* a first piece */
	assert_int_equal(check(&rules, &f), FRAME_DROP);
	f = packet("1.1.1.1", TCP, 80, SYN);
	f.bytes[14] = 0x46;			/* options */
	assert_int_equal(check(&rules, &f), FRAME_DROP);
	f = packet("1.1.1.1", TCP, 80, SYN);
	f.bytes[14 + 3] = 41;			/* longer than it is */
	assert_int_equal(check(&rules, &f), FRAME_DROP);
	f = packet("1.1.1.1", TCP, 80, SYN);
	f.bytes[14 + 3] = 39;			/* too short for TCP */
	assert_int_equal(check(&rules, &f), FRAME_DROP);
	f = packet("1.1.1.1", 47, 0, 0);
	assert_int_equal(check(&rules, &f), FRAME_DROP);
	f = packet("1.1.1.1", TCP, 80, SYN);
	f.bytes[12] = 0x86;
	f.bytes[13] = 0xdd;			/* IPv6 */
	assert_int_equal(check(&rules, &f), FRAME_DROP);
	f.bytes[12] = 0x81;
	f.bytes[13] = 0;			/* a VLAN */
	assert_int_equal(check(&rules, &f), FRAME_DROP);
}

static void pieces_reach_the_world_alone(void **state)
{
	struct frame_rules rules = on("127.0.0.1:53 192.168.1.5:53");
	static const char *const hosts[] = { "10.0.2.2", "10.0.2.3", "192.168.1.5" };
	struct frame f = packet("1.1.1.1", UDP, 53, 0);

	f.bytes[14 + 6] = 0x20;
	assert_int_equal(check(&rules, &f), FRAME_PASS);
	for (size_t i = 0; i < 3; i++) {
		f = packet(hosts[i], UDP, 53, 0);
		f.bytes[14 + 7] = 3;
		assert_int_equal(check(&rules, &f), FRAME_DROP);
	}
}

static void every_length_is_looked_at(void **state)
{
	struct frame_rules rules = on("");
	struct frame f = packet("1.1.1.1", UDP, 53, 0);

	for (f.len = 1; f.len < 54; f.len++)
		assert_int_equal(check(&rules, &f), FRAME_DROP);
	memcpy(f.bytes + 12, "\x08\x06", 2);
	for (f.len = 14; f.len < 42; f.len++)
		assert_int_equal(check(&rules, &f), FRAME_DROP);
	assert_int_equal(check(&rules, &f), FRAME_PASS);
}

static uint16_t sum(const uint8_t *p, size_t len)
{
	uint32_t n = 0;

	for (size_t i = 0; i < len; i += 2)
		n += (uint32_t)(p[i] << 8 | p[i + 1]);
	while (n >> 16)
		n = (n & 0xffff) + (n >> 16);
	return (uint16_t)n;
}

static void a_refusal_says_what_was_refused(void **state)
{
	struct frame f = packet("127.0.0.1", TCP, 80, SYN);
	uint8_t answer[FRAME_REFUSAL_MAX], *ip = answer + 14, *icmp = ip + 20;

	assert_int_equal(frame_refusal(f.bytes, f.len, answer), FRAME_REFUSAL_MAX);
	assert_memory_equal(answer, f.bytes + 6, 6);
	assert_int_equal(sum(ip, 20), 0xffff);
	assert_int_equal(ip[9], ICMP);
	assert_memory_equal(ip + 12, "\x0a\x00\x02\x02\x0a\x00\x02\x0f", 8);
	assert_int_equal(ip[2] << 8 | ip[3], FRAME_REFUSAL_MAX - 14);
	assert_int_equal(sum(icmp, FRAME_REFUSAL_MAX - 34), 0xffff);
	assert_int_equal(icmp[0], 3);
	assert_int_equal(icmp[1], 13);
	assert_memory_equal(icmp + 8, f.bytes + 14, 28);
}

static void a_wrong_list_is_told(void **state)
{
	static const char *const lists[] = {
		"localhost", "1.2.3", "1.2.3.4/33", "1.2.3.4/", "1.2.3.4:", "1.2.3.4:0",
		"1.2.3.4:65536", "1.2.3.4:80/8", "::1", "1.2.3.4:80x", "1.2.3.4/-1",
		"1.2.3.4-1.2.3.9", "111111111111111111111111111111111111111111111111111111111111111111",
	};
	char wrong[FRAME_WRONG_MAX], *many = calloc(FRAME_ALLOWED_MAX + 1, 9);
	struct frame_rules rules = { 0 };

	for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++) {
		if (frame_allow(&rules, lists[i], wrong) != -EINVAL)
			fail_msg("'%s' was taken", lists[i]);
		assert_memory_equal(wrong, lists[i], strlen(wrong));
	}
	assert_int_equal(rules.allowed_count, 0);
	assert_non_null(many);
	for (int i = 0; i <= FRAME_ALLOWED_MAX; i++)
		strcat(many, "1.2.3.4 ");
	assert_int_equal(frame_allow(&rules, many, wrong), -E2BIG);
	free(many);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_world_is_reached),
		cmocka_unit_test(the_host_is_not),
		cmocka_unit_test(what_is_allowed_is_reached),
		cmocka_unit_test(off_is_off),
		cmocka_unit_test(the_address_can_be_asked_for),
		cmocka_unit_test(what_no_honest_guest_sends_is_dropped),
		cmocka_unit_test(pieces_reach_the_world_alone),
		cmocka_unit_test(every_length_is_looked_at),
		cmocka_unit_test(a_refusal_says_what_was_refused),
		cmocka_unit_test(a_wrong_list_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
