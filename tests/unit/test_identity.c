/* The identity protocol: what the host says, what the guest makes of it, and back. */
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "buf.h"
#include "identity.h"
#include "loop.h"
#include "parse.h"

#define NONCE "0123456789abcdef"

static const struct identity_facts facts = {
	.hostname = "web-1",
	.machine_id = "0123456789abcdef0123456789abcdef",
	.authorized_key = "ssh-ed25519 AAAAclient sbxfs",
	.host_key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl+/==\n-----END\n",
	.host_key_public = "ssh-ed25519 AAAAhost sbxfs",
};

/* The lines to the guest's parser; returns what it said to the last. */
static int feed(struct identity *id, const char *nonce, char *text)
{
	int r = PARSED_NOTHING;

	for (char *line = text, *next; *line; line = next) {
		next = line + strcspn(line, "\n");
		if (*next)
			*next++ = '\0';
		r = identity_parse(id, nonce, line);
		if (r != PARSED_NOTHING)
			return r;
	}
	return r;
}

static char *compose(const struct identity_facts *f)
{
	static const uint8_t entropy[4] = { 0x00, 0x7f, 0x80, 0xff };
	struct buf out = BUF_INIT;

	identity_compose(&out, NONCE, f, 1700000000123, entropy, sizeof(entropy));
	return buf_take_string(&out);
}

static void the_guest_understands_the_host(void **state)
{
	static const uint8_t entropy[4] = { 0x00, 0x7f, 0x80, 0xff };
	struct identity id = { 0 };
	char *text = compose(&facts);

	assert_int_equal(feed(&id, NONCE, text), PARSED_IDENTITY);
	assert_string_equal(id.hostname, facts.hostname);
	assert_string_equal(id.machine_id, facts.machine_id);
	assert_string_equal(id.address, "10.0.2.15");
	assert_int_equal(id.prefix, 24);
	assert_string_equal(id.gateway, "10.0.2.2");
	assert_string_equal(id.dns, "10.0.2.3");
	assert_int_equal(id.time, 1700000000);
	assert_int_equal(id.milliseconds, 123);
	assert_false(id.clone);
	assert_int_equal(id.entropy_len, 4);
	assert_memory_equal(id.entropy, entropy, 4);
	assert_string_equal(id.authorized_key, facts.authorized_key);
	assert_string_equal(id.host_key, facts.host_key);
	assert_string_equal(id.host_key_public, facts.host_key_public);
	free(text);
}

/* What is told unasked is taken whatever the latest hello was. */
static void a_clone_takes_its_identity_unasked(void **state)
{
	static const uint8_t entropy[4] = { 1, 2, 3, 4 };
	struct identity_facts f = facts;
	struct identity id = { 0 };
	struct buf out = BUF_INIT;
	char *text;

	f.disk_size = 12ull << 30;
	identity_compose(&out, "clone", &f, 1700000000123, entropy, sizeof(entropy));
	text = buf_take_string(&out);
	assert_int_equal(feed(&id, "fedcba9876543210", text), PARSED_IDENTITY);
	assert_true(id.clone);
	assert_int_equal(id.disk_size, 12ull << 30);
	assert_string_equal(id.hostname, facts.hostname);
	free(text);
}

static void a_machine_that_stood_still_is_told_the_time(void **state)
{
	struct identity id = { 0 };

	assert_int_equal(identity_parse(&id, NONCE, "clock 1700000000 7"), PARSED_CLOCK);
	assert_int_equal(id.time, 1700000000);
	assert_int_equal(id.milliseconds, 7);
	assert_int_equal(identity_parse(&id, NONCE, "clock 1700000000"), -EBADMSG);
	assert_int_equal(identity_parse(&id, NONCE, "clock 1700000000 1000"), -EBADMSG);
	assert_int_equal(identity_parse(&id, NONCE, "clock 0 0"), -EBADMSG);
	assert_int_equal(identity_parse(&id, NONCE, "sync"), PARSED_SYNC);
	assert_int_equal(identity_parse(&id, NONCE, "freeze"), PARSED_FREEZE);
}

static void keys_of_every_length_arrive(void **state)
{
	char key[3001];

	for (size_t len = 1; len < sizeof(key); len += len < 10 ? 1 : 331) {
		struct identity_facts f = facts;
		struct identity id = { 0 };
		char *text;

		for (size_t i = 0; i < len; i++)
			key[i] = (char)(1 + i * 37 % 255);
		key[len] = '\0';
		f.host_key = key;
		text = compose(&f);
		assert_int_equal(feed(&id, NONCE, text), PARSED_IDENTITY);
		assert_string_equal(id.host_key, key);
		free(text);
	}
}

static void an_identity_for_an_earlier_boot_is_skipped(void **state)
{
	struct identity id = { 0 };
	char *text = compose(&facts);

	assert_int_equal(feed(&id, "fedcba9876543210", text), PARSED_NOTHING);
	assert_string_equal(id.hostname, "");
	free(text);
}

static void what_makes_no_sense_is_not_applied(void **state)
{
	static const char *const wrong[] = {
		"hostname a b",
		"hostname ",
		"machine-id 0123",
		"address 10.0.2.15",
		"address 10.0.2.15/33",
		"address 10.0.2.999/24",
		"gateway nowhere",
		"time soon",
		"time -1",
		"entropy 0",
		"entropy zz",
		"host-key ====",
		"host-key a*b=",
	};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		struct identity id = { 0 };

		identity_parse(&id, NONCE, "identity " NONCE);
		assert_int_equal(identity_parse(&id, NONCE, wrong[i]), -EBADMSG);
		assert_int_equal(identity_parse(&id, NONCE, "end"), PARSED_NOTHING);
	}
}

static void an_incomplete_identity_is_not_applied(void **state)
{
	struct identity id = { 0 };
	char text[] = "identity " NONCE "\nhostname web\nend\n";

	assert_int_equal(feed(&id, NONCE, text), -EBADMSG);
}

static void other_words_are_orders_or_nothing(void **state)
{
	struct identity id = { 0 };

	assert_int_equal(identity_parse(&id, NONCE, "poweroff"), PARSED_POWEROFF);
	assert_int_equal(identity_parse(&id, NONCE, "reboot"), PARSED_REBOOT);
	assert_int_equal(identity_parse(&id, NONCE, "reboots"), PARSED_NOTHING);
	assert_int_equal(identity_parse(&id, NONCE, ""), PARSED_NOTHING);
}

/* --- the guest's words, as the host takes them ------------------------------- */

static enum identity_word understand(const char *line, const char **value)
{
	static char copy[256];

	snprintf(copy, sizeof(copy), "%s", line);
	return identity_understand(copy, value);
}

static void the_host_understands_the_guest(void **state)
{
	const char *value;

	assert_int_equal(understand("ready", &value), IDENTITY_READY);
	assert_int_equal(understand("hello 1 " NONCE " new", &value), IDENTITY_HELLO_NEW);
	assert_string_equal(value, NONCE);
	assert_int_equal(understand("hello 1 " NONCE " ready", &value), IDENTITY_HELLO_READY);
	assert_int_equal(understand("failed no network", &value), IDENTITY_FAILED);
	assert_string_equal(value, "no network");
}

static void the_host_is_not_misled(void **state)
{
	static const char *const wrong[] = {
		"",
		"readyy",
		"hello",
		"hello 2 " NONCE " new",
		"hello 1  new",
		"hello 1 0123456789abcdeF new",
		"hello 1 0123456789abcdef0 new",
		"hello 1 " NONCE,
		"hello 1 " NONCE " newer",
		"hello 1 " NONCE "\nend new",
	};
	const char *value;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
		assert_int_equal(understand(wrong[i], &value), IDENTITY_NOTHING);
}

/* --- the port ------------------------------------------------------------------- */

static struct loop *loop;
static struct identity_port *port;
static int words, peer;
static bool close_at_word;

static void on_word(void *user, enum identity_word word, const char *value)
{
	words++;
	if (close_at_word) {
		identity_close(port);
		port = NULL;
	}
	if (word == IDENTITY_READY)
		loop_stop(loop);
}

static int on_facts(void *user, struct identity_facts *f, struct buf *keep)
{
	*f = facts;
	return 0;
}

static const struct identity_events events = { on_word, on_facts };

static int setup(void **state)
{
	int fds[2];

	words = 0;
	close_at_word = false;
	loop = loop_create();
	if (!loop || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds))
		return -1;
	peer = fds[1];
	return identity_open(&port, loop, fds[0], &events, NULL, NULL);
}

static int teardown(void **state)
{
	identity_close(port);
	port = NULL;
	close(peer);
	loop_destroy(loop);
	return 0;
}

static void say(const char *text)
{
	assert_int_equal(write(peer, text, strlen(text)), (ssize_t)strlen(text));
}

static void a_hello_is_answered(void **state)
{
	struct identity id = { 0 };
	char text[16384];
	ssize_t n;

	say("hello 1 " NONCE " new\nready\n");
	loop_run(loop);
	n = read(peer, text, sizeof(text) - 1);
	assert_true(n > 0);
	text[n] = '\0';
	assert_int_equal(feed(&id, NONCE, text), PARSED_IDENTITY);
	assert_int_equal(id.entropy_len, 64);
	assert_int_equal(words, 2);
}

static void overlong_lines_are_dropped(void **state)
{
	char *line = xmalloc(10001);

	memset(line, 'x', 10000);
	line[10000] = '\0';
	say(line);
	say("ready\nready\n");
	loop_run(loop);
	assert_int_equal(words, 1);
	free(line);
}

/* A guest that writes as fast as it can. */
static void chatter(struct loop_timer *t)
{
	while (write(peer, "failed again\n", 13) > 0)
		;
	loop_timer_set(loop, t, 1, chatter);
}

static void stop(struct loop_timer *t)
{
	loop_stop(loop);
}

static void a_chatterer_is_heard_slowly(void **state)
{
	struct loop_timer writer = { 0 }, end = { 0 };

	loop_timer_set(loop, &writer, 0, chatter);
	loop_timer_set(loop, &end, 300, stop);
	loop_run(loop);
	loop_timer_cancel(&writer);
	/* 16 KiB at once, then 4 KiB each 50 ms, at most */
	assert_in_range(words, 16384 / 13, (16384 + 4096 * 9) / 13);
}

static void it_can_be_closed_from_its_callback(void **state)
{
	struct loop_timer end = { 0 };

	close_at_word = true;
	say("ready\nready\n");
	loop_timer_set(loop, &end, 20, stop);
	loop_run(loop);
	loop_timer_cancel(&end);
	assert_int_equal(words, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_guest_understands_the_host),
		cmocka_unit_test(a_clone_takes_its_identity_unasked),
		cmocka_unit_test(a_machine_that_stood_still_is_told_the_time),
		cmocka_unit_test(keys_of_every_length_arrive),
		cmocka_unit_test(an_identity_for_an_earlier_boot_is_skipped),
		cmocka_unit_test(what_makes_no_sense_is_not_applied),
		cmocka_unit_test(an_incomplete_identity_is_not_applied),
		cmocka_unit_test(other_words_are_orders_or_nothing),
		cmocka_unit_test(the_host_understands_the_guest),
		cmocka_unit_test(the_host_is_not_misled),
		cmocka_unit_test_setup_teardown(a_hello_is_answered, setup, teardown),
		cmocka_unit_test_setup_teardown(overlong_lines_are_dropped, setup, teardown),
		cmocka_unit_test_setup_teardown(a_chatterer_is_heard_slowly, setup, teardown),
		cmocka_unit_test_setup_teardown(it_can_be_closed_from_its_callback, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
