/* Sizes as they are written, and facts shown as lines and as JSON. */
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "facts.h"

static void sizes_are_read_and_written_alike(void **state)
{
	static const struct { const char *text; uint64_t bytes; const char *shown; } cases[] = {
		{ "512M", 512ull << 20, "512M" }, { "1024M", 1ull << 30, "1G" },
		{ "2g", 2ull << 30, "2G" }, { "1000", 1000, "1000" }, { "1024", 1024, "1K" },
		{ "0", 0, "0" }, { "16777215T", 16777215ull << 40, "16777215T" },
	};
	static const char *const bad[] = { "", "M", "1X", "1MM", "-1", "1 G", "512 ", "1.5G",
					   "99999999999999999999", "16777216T", NULL };
	uint64_t bytes;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct buf b = BUF_INIT;
		char *s;

		assert_int_equal(size_parse(cases[i].text, &bytes), 0);
		assert_true(bytes == cases[i].bytes);
		size_print(&b, bytes);
		s = buf_take_string(&b);
		assert_string_equal(s, cases[i].shown);
		free(s);
	}
	for (int i = 0; bad[i]; i++)
		assert_int_equal(size_parse(bad[i], &bytes), -EINVAL);
}

static void times_are_read_and_written_alike(void **state)
{
	static const struct { const char *in; uint64_t ms; const char *out; } good[] = {
		{ "30s", 30000, "30s" }, { "5m", 300000, "5m" }, { "1h30m", 5400000, "1h30m" },
		{ "90", 90000, "1m30s" }, { "0", 0, "0s" }, { "250ms", 250, "250ms" },
		{ "1s500ms", 1500, "1s500ms" }, { "36600d", DURATION_MAX, "36600d" },
		{ "120s", 120000, "2m" }, { "1d1ms", 86400001, "1d1ms" },
	};
	static const char *const bad[] = { "", "s", "1x", "-1", "1 m", "1m1h", "1m1m", "1h30", "1.5s",
		"1S", "36601d", "99999999999999999999s", "9999999999999d", "1s ", " 1s", "1mss", NULL };
	uint64_t ms;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct buf b = BUF_INIT;
		char *s;

		assert_int_equal(duration_parse(good[i].in, &ms), 0);
		assert_int_equal(ms, good[i].ms);
		duration_print(&b, ms);
		s = buf_take_string(&b);
		assert_string_equal(s, good[i].out);
		free(s);
	}
	for (int i = 0; bad[i]; i++)
		assert_int_equal(duration_parse(bad[i], &ms), -EINVAL);
}

static void facts_come_out_in_order_and_once(void **state)
{
	struct facts *f = facts_create();
	struct buf b = BUF_INIT;
	char *s;

	facts_text(f, "name", "a\"b");
	facts_bytes(f, "memory", 1ull << 30);
	facts_time(f, "never", 0);
	facts_time(f, "created", 1767225600000);
	facts_lines(f, "name other\naccel tcg\npid 42\nport 007\nbroken\n");
	facts_print(f, &b);
	s = buf_take_string(&b);
	assert_string_equal(s, "name a\"b\nmemory 1G\ncreated 2026-01-01T00:00:00Z\naccel tcg\n"
			    "pid 42\nport 007\n");
	free(s);
	facts_print_json(f, &b);
	s = buf_take_string(&b);
	assert_non_null(strstr(s, "\"a\\\"b\""));
	assert_non_null(strstr(s, "1073741824"));
	assert_non_null(strstr(s, "\"007\""));
	free(s);
	facts_destroy(f);
}

/* What facts_lines makes of "it VALUE" and "name "VALUE"", shown in the one way or the other. */
static void assert_shown(const char *value, bool json, const char *wanted)
{
	struct facts *f = facts_create();
	struct buf b = BUF_INIT;
	char *s;

	buf_printf(&b, "it %s\nname \"%s\"\n", value, value);
	s = buf_take_string(&b);
	facts_lines(f, s);
	free(s);
	if (json)
		facts_print_json(f, &b);
	else
		facts_print(f, &b);
	s = buf_take_string(&b);
	assert_string_equal(s, wanted);
	free(s);
	facts_destroy(f);
}

static void numbers_are_told_from_texts(void **state)
{
	static const char *const numbers[] = { "0", "42", "-7", "0.35", "512.10", "100000.00",
		"999999999999999999", "1.5e-07", "1e+20", "-0.5", NULL };
	static const char *const texts[] = { "007", "1.", ".5", "-", "1.2.3", "1e", "1.0.", "0x10",
		"1 2", "+1", "nan", "inf", "1e999", "9999999999999999999", "2026-01-01", NULL };
	char wanted[200];

	for (int n = 0; n < 2; n++) {
		const char *const *v = n ? texts : numbers, *quote = n ? "\"" : "";

		for (; *v; v++) {
			snprintf(wanted, sizeof(wanted),
				 "{\n\t\"it\":\t%s%s%s,\n\t\"name\":\t\"%s\"\n}\n", quote, *v, quote,
				 *v);
			assert_shown(*v, true, wanted);
			snprintf(wanted, sizeof(wanted), "it %s\nname %s\n", *v, *v);
			assert_shown(*v, false, wanted);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_read_and_written_alike),
		cmocka_unit_test(times_are_read_and_written_alike),
		cmocka_unit_test(facts_come_out_in_order_and_once),
		cmocka_unit_test(numbers_are_told_from_texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
