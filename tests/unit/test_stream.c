/* Spooled output: offsets, order, waiting readers, what a restart finds. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store.h"
#include "stream.h"

static char dir[64];

static int setup(void **state)
{
	strcpy(dir, "/tmp/sbxfs-stream-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	return remove_tree(dir);
}

static void put(struct stream *s, enum stream_which which, const char *text)
{
	stream_append(s, which, text, strlen(text));
}

static void reads(struct stream *s, enum stream_which which, uint64_t off, size_t len,
		  const char *expected)
{
	char text[256];
	ssize_t n = stream_read(s, which, text, len, off);

	assert_int_equal(n, strlen(expected));
	assert_memory_equal(text, expected, (size_t)n);
}

static void streams_are_separate_and_the_log_keeps_their_order(void **state)
{
	struct stream *s = stream_open(dir, false);

	put(s, STREAM_OUT, "one ");
	put(s, STREAM_ERR, "two ");
	put(s, STREAM_ERR, "three ");
	put(s, STREAM_OUT, "four");
	reads(s, STREAM_OUT, 0, 100, "one four");
	reads(s, STREAM_ERR, 0, 100, "two three ");
	reads(s, STREAM_LOG, 0, 100, "one two three four");
	reads(s, STREAM_LOG, 6, 5, "o thr");
	reads(s, STREAM_LOG, 18, 100, "");
	reads(s, STREAM_OUT, 1000, 100, "");
	assert_int_equal(stream_size(s, STREAM_LOG), 18);
	stream_end(s);
	stream_destroy(s);
	s = stream_open(dir, true);
	reads(s, STREAM_LOG, 0, 100, "one two three four");
	reads(s, STREAM_LOG, 3, 3, " tw");
	assert_true(stream_ended(s));
	stream_destroy(s);
}

static void one_stream_alone_needs_no_order(void **state)
{
	struct stream *s = stream_open(dir, false);

	put(s, STREAM_ERR, "only ");
	put(s, STREAM_ERR, "this");
	stream_end(s);
	stream_destroy(s);
	s = stream_open(dir, true);
	reads(s, STREAM_LOG, 0, 100, "only this");
	assert_int_equal(stream_size(s, STREAM_OUT), 0);
	stream_destroy(s);
}

static void no_bytes_no_files(void **state)
{
	struct stream *s = stream_open(dir, false);

	stream_end(s);
	stream_destroy(s);
	assert_int_equal(rmdir(dir), 0);
	assert_non_null(mkdtemp(strcpy(dir, "/tmp/sbxfs-stream-XXXXXX")));
}

/* Any order of reads must give what one read of everything gives. */
static void random_runs_read_back_from_anywhere(void **state)
{
	struct stream *s = stream_open(dir, false);
	static char all[100000], text[1000];
	size_t len = 0;

	srand(1);
	for (int i = 0; i < 1000; i++) {
		size_t n = 1 + (size_t)rand() % 90;

		for (size_t k = 0; k < n; k++)
			text[k] = (char)('a' + rand() % 26);
		stream_append(s, rand() % 2 ? STREAM_OUT : STREAM_ERR, text, n);
		memcpy(all + len, text, n);
		len += n;
	}
	for (int i = 0; i < 2000; i++) {
		size_t off = (size_t)rand() % len, want = 1 + (size_t)rand() % sizeof(text);
		ssize_t n = stream_read(s, STREAM_LOG, text, want, off);

		assert_int_equal(n, want < len - off ? want : len - off);
		assert_memory_equal(text, all + off, (size_t)n);
	}
	stream_destroy(s);
}

static int wakes;

static void woken(struct waiter *w)
{
	wakes++;
}

static void readers_are_woken_by_bytes_and_by_the_end(void **state)
{
	struct stream *s = stream_open(dir, false);
	struct waiter w;

	wakes = 0;
	waiter_init(&w, woken);
	wait_add(stream_news(s), &w);
	put(s, STREAM_OUT, "x");
	put(s, STREAM_OUT, "y");
	assert_int_equal(wakes, 1);
	wait_add(stream_news(s), &w);
	stream_end(s);
	stream_end(s);
	assert_int_equal(wakes, 2);
	stream_destroy(s);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(streams_are_separate_and_the_log_keeps_their_order),
		T(one_stream_alone_needs_no_order),
		T(no_bytes_no_files),
		T(random_runs_read_back_from_anywhere),
		T(readers_are_woken_by_bytes_and_by_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
