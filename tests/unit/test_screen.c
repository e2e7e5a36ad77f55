/* sbx-attach: what goes to the screen a second time, and the modes that are on. */
#include "test.h"

#include <stdio.h>
#include <string.h>

#include "screen.h"

/* Fed in one piece and byte by byte: what comes out, with what is held back at its end. */
static const char *cleaned(const char *data)
{
	static char out[2][8192];
	size_t n = strlen(data), done;

	for (int i = 0; i < 2; i++) {
		struct screen s = { 0 };

		done = 0;
		for (size_t at = 0; at < n; at += i ? 1 : n)
			done += screen_feed(&s, data + at, i ? 1 : n, out[i] + done);
		done += screen_rest(&s, out[i] + done);
		out[i][done] = 0;
	}
	assert_string_equal(out[0], out[1]);
	return out[0];
}

static void test_what_is_no_question_stays(void **state)
{
	static const char *const texts[] = {
		"", "plain\r\n\ttext", "\033[1;31mred\033[0m", "\033[2J\033[H", "\033[?25l", "\033(B",
		"\033]0;title\007", "\033]8;;http://x\033\\link\033]8;;\033\\", "\0337\0338", "\033[3t",
		"\033[!p", "\033[2 q", "\033[u", "\033[>1u", "\033[5", "\033", "k\303\244se", "\033P1;2qsixel\033\\",
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		assert_string_equal(cleaned(texts[i]), texts[i]);
}

static void test_questions_go(void **state)
{
	static const char *const questions[] = {
		"\033[c", "\033[0c", "\033[>c", "\033[>0c", "\033[=c", "\033[5n", "\033[6n", "\033[?6n",
		"\033[18t", "\033[14;2t", "\033[?1$p", "\033[4$p", "\033[>q", "\033[>0q", "\033[?u",
		"\033]11;?\007", "\033]10;?\033\\", "\033]4;1;?\007", "\033]52;c;?\007", "\033P+q544e\033\\",
		"\033P$qm\033\\", "\005", "\033Z", "\033[x",
	};

	for (size_t i = 0; i < sizeof(questions) / sizeof(questions[0]); i++) {
		char text[100];

		snprintf(text, sizeof(text), "a%sb", questions[i]);
		assert_string_equal(cleaned(text), "ab");
	}
}

static void test_long_sequences_pass(void **state)
{
	char text[4000];

	memset(text, 'x', sizeof(text));
	memcpy(text, "\033]52;c;", 7);
	memcpy(text + sizeof(text) - 7, "\007after", 7);
	assert_string_equal(cleaned(text), text);
}

static void modes(const char *data, const char *enter, const char *leave)
{
	char out[16 * SCREEN_MODES + 1];
	struct screen s = { 0 };

	assert_int_equal(screen_feed(&s, data, strlen(data), NULL), 0);
	out[screen_modes(&s, true, out)] = 0;
	assert_string_equal(out, enter);
	out[screen_modes(&s, false, out)] = 0;
	assert_string_equal(out, leave);
}

static void test_modes(void **state)
{
	modes("text", "", "");
	modes("\033[?1049h\033[?25l", "\033[?1049h\033[?25l", "\033[?1049l\033[?25h");
	modes("\033[?1049h\033[?1049l\033[?25l\033[?25h", "", "");
	modes("\033[?1000;1006h", "\033[?1000h\033[?1006h", "\033[?1000l\033[?1006l");
	modes("\033[?12345h\033[4h\033[?h\033[?;h", "", "");
}

static void test_any_bytes(void **state)
{
	char data[4096], out[4096 + SCREEN_SEQUENCE];
	struct screen s = { 0 };
	unsigned seed = 1;

	for (int round = 0; round < 500; round++) {
		for (size_t i = 0; i < sizeof(data); i++) {
			seed = seed * 1103515245 + 12345;
			data[i] = "\033[]P?;$1c\\\007Zhl 5"[seed >> 16 & 15];
		}
		assert_true(screen_feed(&s, data, sizeof(data), out) <= sizeof(out));
		assert_true(screen_modes(&s, true, out) <= 16 * SCREEN_MODES);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_no_question_stays),
		cmocka_unit_test(test_questions_go),
		cmocka_unit_test(test_long_sequences_pass),
		cmocka_unit_test(test_modes),
		cmocka_unit_test(test_any_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
