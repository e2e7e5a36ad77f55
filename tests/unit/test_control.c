/* The words between the daemon and the network of a VM. */
#include "test.h"

#include <errno.h>
#include <string.h>

#include "control.h"

static int parse(struct control *c, const char *line)
{
	return control_parse(c, line, strlen(line));
}

static void what_is_said_is_understood(void **state)
{
	for (int verb = 0; verb < CONTROL_VERBS; verb++) {
		struct control said = { (enum control_verb)verb, 0, 0 }, heard;
		char line[CONTROL_LINE_MAX];
		size_t len;

		/* One and two numbers, as that verb has them; the others stay 0. */
		if (verb != CONTROL_FRAMES && verb != CONTROL_END && verb != CONTROL_READY)
			said.a = verb == CONTROL_KEEP ? 1 : 65535;
		if (verb == CONTROL_OPEN || verb == CONTROL_PORT || verb == CONTROL_FAILED)
			said.b = 40000;
		len = control_print(&said, line);
		assert_int_equal(len, strlen(line));
		assert_int_equal(line[len - 1], '\n');
		assert_int_equal(control_parse(&heard, line, len - 1), 0);
		assert_int_equal(heard.verb, said.verb);
		assert_int_equal(heard.a, said.a);
		assert_int_equal(heard.b, said.b);
	}
}

static void nonsense_is_refused(void **state)
{
	static const char *const wrong[] = {
		"", " ", "open", "open 1", "open 0 1", "open 65536 1", "open 1 65536", "open 1 2 3",
		"open 1 2 ", "open  1 2", "open -1 2", "open +1 2", "open 0x1 2", "open 1 2\r",
		"opening 1 2", "ope 1 2", "OPEN 1 2", "close", "close 0", "close 99999999999999999999",
		"keep", "keep 2", "keep 4294967296", "frames 1", "end ", "hello", "port 1", "port 1 x",
	};
	struct control c;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
		if (parse(&c, wrong[i]) != -EBADMSG)
			fail_msg("'%s' was taken for a line", wrong[i]);
	assert_int_equal(control_parse(&c, "open 1 2\0", 9), -EBADMSG);
	assert_int_equal(parse(&c, "open 1 0"), 0);
	assert_int_equal(parse(&c, "keep 0"), 0);
}

static void a_line_ends_where_it_is_said_to_end(void **state)
{
	struct control c;

	assert_int_equal(control_parse(&c, "port 80 40123", 10), 0);
	assert_int_equal(c.b, 40);
	assert_int_equal(control_parse(&c, "port 80 40123", 7), -EBADMSG);
	assert_int_equal(control_parse(&c, "ready", 4), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_said_is_understood),
		cmocka_unit_test(nonsense_is_refused),
		cmocka_unit_test(a_line_ends_where_it_is_said_to_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
