/* Growable bytes and readers that cannot overrun. */
#include "test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "err.h"

static void numbers_are_big_endian_and_come_back(void **state)
{
	struct buf b = BUF_INIT;
	struct rbuf r;
	uint8_t u8;
	uint32_t u32;
	uint64_t u64;

	buf_put_u8(&b, 7);
	buf_put_u32(&b, 0x01020304);
	buf_put_u64(&b, 0xfedcba9876543210ull);
	assert_int_equal(buf_size(&b), 13);
	assert_memory_equal(buf_peek(&b) + 1, "\1\2\3\4", 4);
	r = (struct rbuf){ buf_peek(&b), buf_size(&b) };
	assert_int_equal(rbuf_u8(&r, &u8) | rbuf_u32(&r, &u32) | rbuf_u64(&r, &u64), 0);
	assert_int_equal(u8, 7);
	assert_int_equal(u32, 0x01020304);
	assert_true(u64 == 0xfedcba9876543210ull);
	assert_int_equal(r.len, 0);
	buf_finish(&b);
}

static void readers_stop_at_the_end(void **state)
{
	static const uint8_t bytes[] = { 0, 0, 0, 5, 'a', 'b', 'c' };
	struct rbuf r = { bytes, sizeof(bytes) };
	const uint8_t *data = (const uint8_t *)"kept";
	size_t len = 99;
	uint64_t u64 = 1;

	assert_int_equal(rbuf_string(&r, &data, &len), -EBADMSG);
	assert_int_equal(r.len, sizeof(bytes));
	assert_string_equal((const char *)data, "kept");
	assert_int_equal(rbuf_u64(&r, &u64), -EBADMSG);
	assert_int_equal(rbuf_skip(&r, 8), -EBADMSG);
	assert_true(u64 == 1 && len == 99);
}

static void a_length_near_the_maximum_does_not_wrap(void **state)
{
	static const uint8_t bytes[] = { 0xff, 0xff, 0xff, 0xff, 'x' };
	struct rbuf r = { bytes, sizeof(bytes) };
	const uint8_t *data;
	size_t len;

	assert_int_equal(rbuf_string(&r, &data, &len), -EBADMSG);
}

static void a_queue_does_not_grow_for_ever(void **state)
{
	struct buf b = BUF_INIT;
	char chunk[1000] = "";

	for (int i = 0; i < 10000; i++) {
		buf_put(&b, chunk, sizeof(chunk));
		if (i > 0)
			buf_consume(&b, sizeof(chunk));
	}
	assert_int_equal(buf_size(&b), sizeof(chunk));
	assert_true(b.cap <= 8 * sizeof(chunk));
	buf_finish(&b);
}

static void printf_and_take(void **state)
{
	struct buf b = BUF_INIT;
	char *s;

	buf_printf(&b, "xx%s-%d", "one", 2);
	buf_consume(&b, 2);
	s = buf_take_string(&b);
	assert_string_equal(s, "one-2");
	assert_null(b.data);
	free(s);
}

static void sentences_have_no_control_characters_and_an_end(void **state)
{
	struct err err;
	char longer[2 * ERR_TEXT_MAX];

	assert_int_equal(err_set(&err, -EIO, "a\nb\033[31mc"), -EIO);
	assert_string_equal(err.text, "a b [31mc");
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = 0;
	err_set(&err, -EIO, "%s", longer);
	assert_int_equal(strlen(err.text), ERR_TEXT_MAX - 1);
	assert_string_equal(err.text + ERR_TEXT_MAX - 4, "...");
	err_sys(&err, -ENOENT, "file %s", "x");
	assert_string_equal(err.text, "file x: No such file or directory");
	err_prefix(&err, "config");
	assert_string_equal(err.text, "config: file x: No such file or directory");
	assert_int_equal(err.code, -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_big_endian_and_come_back),
		cmocka_unit_test(readers_stop_at_the_end),
		cmocka_unit_test(a_length_near_the_maximum_does_not_wrap),
		cmocka_unit_test(a_queue_does_not_grow_for_ever),
		cmocka_unit_test(printf_and_take),
		cmocka_unit_test(sentences_have_no_control_characters_and_an_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
