/* The delay line of the measurements: nothing early, nothing late, nothing out of order. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "line.h"

static size_t put(struct line *l, const char *text, int64_t now)
{
	size_t len, room;
	uint8_t *space = line_space(l, &room);

	len = strlen(text) < room ? strlen(text) : room;
	memcpy(space, text, len);
	if (len)
		line_put(l, len, now);
	return len;
}

static void expect(struct line *l, int64_t now, const char *text)
{
	size_t len;
	const uint8_t *data = line_due(l, now, &len);

	assert_int_equal(len, strlen(text));
	assert_memory_equal(data, text, len);
	line_take(l, len);
}

static void comes_out_after_the_delay(void **state)
{
	struct line l;

	assert_int_equal(line_init(&l, 100, 10), 0);
	assert_true(line_next(&l) == INT64_MAX);
	put(&l, "abc", 5);
	put(&l, "def", 7);
	assert_int_equal(line_next(&l), 15);
	expect(&l, 14, "");
	expect(&l, 15, "abc");
	assert_int_equal(line_next(&l), 17);
	expect(&l, 16, "");
	expect(&l, 1000, "def");
	assert_true(line_next(&l) == INT64_MAX);
	line_finish(&l);
}

static void what_is_due_comes_in_one_piece(void **state)
{
	struct line l;

	line_init(&l, 100, 10);
	put(&l, "abc", 1);
	put(&l, "def", 2);
	put(&l, "ghi", 3);
	expect(&l, 12, "abcdef");
	expect(&l, 13, "ghi");
	line_finish(&l);
}

static void a_part_can_be_taken(void **state)
{
	struct line l;
	size_t len;

	line_init(&l, 100, 10);
	put(&l, "abcdef", 0);
	line_due(&l, 10, &len);
	line_take(&l, 4);
	assert_int_equal(line_next(&l), 10);
	expect(&l, 10, "ef");
	line_finish(&l);
}

static void a_full_line_takes_no_more(void **state)
{
	struct line l;

	line_init(&l, 8, 10);
	assert_int_equal(put(&l, "abcdefghij", 0), 8);
	assert_int_equal(put(&l, "k", 0), 0);
	expect(&l, 10, "abcdefgh");
	assert_int_equal(put(&l, "k", 11), 1);
	expect(&l, 21, "k");
	line_finish(&l);
}

static void the_end_is_delayed_too(void **state)
{
	struct line l;
	size_t room;

	line_init(&l, 100, 10);
	put(&l, "abc", 0);
	line_end(&l, 4);
	line_space(&l, &room);
	assert_int_equal(room, 0);
	assert_false(line_over(&l, 10));
	expect(&l, 10, "abc");
	assert_false(line_over(&l, 13));
	assert_int_equal(line_next(&l), 14);
	assert_true(line_over(&l, 14));
	line_finish(&l);
}

static void an_end_waits_for_the_bytes(void **state)
{
	struct line l;

	line_init(&l, 100, 10);
	put(&l, "abc", 0);
	line_end(&l, 0);
	assert_false(line_over(&l, 100));
	expect(&l, 100, "abc");
	assert_true(line_over(&l, 100));
	line_finish(&l);
}

/* Random pieces through a small ring, with a random clock, against a plain copy. */
static void a_long_stream_stays_in_order(void **state)
{
	enum { TOTAL = 1 << 20 };
	uint8_t *want = malloc(TOTAL);
	int64_t now = 0, *put_at = malloc(TOTAL * sizeof(*put_at));
	size_t in = 0, out = 0, room, len;
	struct line l;

	srand(1);
	line_init(&l, 5000, 100);
	for (size_t i = 0; i < TOTAL; i++)
		want[i] = (uint8_t)rand();
	while (out < TOTAL) {
		uint8_t *space = line_space(&l, &room);
		const uint8_t *due;

		len = (size_t)rand() % 2000;
		len = len < room ? len : room;
		len = len < TOTAL - in ? len : TOTAL - in;
		if (len) {
			memcpy(space, want + in, len);
			for (size_t i = 0; i < len; i++)
				put_at[in + i] = now;
			line_put(&l, len, now);
			in += len;
		}
		now += rand() % 60;
		due = line_due(&l, now, &len);
		/* Nothing early, and all of it unless the ring's edge cuts it. */
		for (size_t i = 0; i < len; i++)
			assert_true(put_at[out + i] + 100 <= now);
		assert_memory_equal(due, want + out, len);
		line_take(&l, len);
		out += len;
		if (line_next(&l) <= now)
			line_due(&l, now, &len);
		if (line_next(&l) <= now)
			assert_true(len > 0);
	}
	line_finish(&l);
	free(want);
	free(put_at);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(comes_out_after_the_delay),
		cmocka_unit_test(what_is_due_comes_in_one_piece),
		cmocka_unit_test(a_part_can_be_taken),
		cmocka_unit_test(a_full_line_takes_no_more),
		cmocka_unit_test(the_end_is_delayed_too),
		cmocka_unit_test(an_end_waits_for_the_bytes),
		cmocka_unit_test(a_long_stream_stays_in_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
