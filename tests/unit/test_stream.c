/* Spooled output: offsets, order, waiting readers, what a restart finds. */
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "remove.h"
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
	struct stream *s = stream_open(dir, false, 1 << 20);

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
	s = stream_open(dir, true, 1 << 20);
	reads(s, STREAM_LOG, 0, 100, "one two three four");
	reads(s, STREAM_LOG, 3, 3, " tw");
	assert_true(stream_ended(s));
	stream_destroy(s);
}

static void one_stream_alone_needs_no_order(void **state)
{
	struct stream *s = stream_open(dir, false, 1 << 20);

	put(s, STREAM_ERR, "only ");
	put(s, STREAM_ERR, "this");
	stream_end(s);
	stream_destroy(s);
	s = stream_open(dir, true, 1 << 20);
	reads(s, STREAM_LOG, 0, 100, "only this");
	assert_int_equal(stream_size(s, STREAM_OUT), 0);
	stream_destroy(s);
}

static void no_bytes_no_files(void **state)
{
	struct stream *s = stream_open(dir, false, 1 << 20);

	stream_end(s);
	stream_destroy(s);
	assert_int_equal(rmdir(dir), 0);
	assert_non_null(mkdtemp(strcpy(dir, "/tmp/sbxfs-stream-XXXXXX")));
}

/* Any order of reads must give what one read of everything gives. */
static void random_runs_read_back_from_anywhere(void **state)
{
	struct stream *s = stream_open(dir, false, 1 << 20);
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
	struct stream *s = stream_open(dir, false, 1 << 20);
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

/* --- beyond the cap ------------------------------------------------------------ */

#define ALL (1 << 20)

static char all[ALL], bytes[2][ALL];
static uint64_t in_stream[ALL];		/* where the log's byte stands in its stream … */
static uint8_t of_stream[ALL];		/* … and in which */

/* Runs of 1 to max bytes of either stream, until so many have come. */
static void fill(struct stream *s, size_t total, size_t max, size_t sizes[2])
{
	size_t len = 0;

	sizes[0] = sizes[1] = 0;
	while (len < total) {
		size_t n = 1 + (size_t)rand() % max;
		int which = rand() % 3 == 0;

		for (size_t k = 0; k < n; k++) {
			in_stream[len] = sizes[which];
			of_stream[len] = (uint8_t)which;
			all[len] = bytes[which][sizes[which]++] = (char)rand();
			len++;
		}
		stream_append(s, which, all + len - n, n);
	}
}

/* Is it there by the rule: the first half and the last half of its stream? */
static bool kept(const size_t sizes[2], size_t cap, size_t i)
{
	size_t size = sizes[of_stream[i]], at = in_stream[i];

	return size <= cap || at < cap / 2 || at >= size - cap / 2;
}

/* What can be read is right, and it is exactly what should be there. */
static void check_stream(struct stream *s, int which, size_t size, size_t cap)
{
	char text[3000];
	uint64_t off = 0;

	assert_int_equal(stream_size(s, which), size);
	while (off < size) {
		ssize_t n = stream_read(s, which, text, 1 + (size_t)rand() % sizeof(text), off);

		if (n == -ENODATA) {
			assert_int_equal(off, cap / 2);
			off = stream_next(s, which, off);
			assert_int_equal(off, size - cap / 2);
			continue;
		}
		assert_true(n > 0);
		assert_memory_equal(text, bytes[which] + off, (size_t)n);
		assert_true(size <= cap || off + (size_t)n <= cap / 2 || off >= size - cap / 2);
		off += (uint64_t)n;
	}
}

/* order_full: the log may miss more than the streams. Returns how many bytes it has. */
static size_t check_log(struct stream *s, const size_t sizes[2], size_t cap, bool order_full)
{
	size_t size = sizes[0] + sizes[1], have = 0;
	char text[3000];
	uint64_t off = 0;

	while (off < size) {
		ssize_t n = stream_read(s, STREAM_LOG, text, 1 + (size_t)rand() % sizeof(text), off);
		uint64_t next;

		if (n == -ENODATA) {
			next = stream_next(s, STREAM_LOG, off);
			assert_true(next > off && next <= size);
			for (; off < next; off++)
				assert_true(order_full || !kept(sizes, cap, off));
			continue;
		}
		assert_true(n > 0);
		assert_memory_equal(text, all + off, (size_t)n);
		off += (uint64_t)n;
		have += (size_t)n;
	}
	return have;
}

static void the_middle_is_dropped(void **state)
{
	static const struct { size_t total, max; bool order_full; } cases[] = {
		{ 60000, 500, false }, { 140000, 500, false }, { 400000, 3000, false },
		{ 1000000, 9000, false }, { 900000, 100, true }, { 300000, 4, true },
	};
	size_t cap = 65536, sizes[2];

	srand(7);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct stream *s = stream_open(dir, false, cap);

		fill(s, cases[i].total, cases[i].max, sizes);
		for (int again = 0; again < 3; again++) {
			for (int which = 0; which < 2; which++)
				check_stream(s, which, sizes[which], cap);
			assert_true(check_log(s, sizes, cap, cases[i].order_full) >= 16000);
			assert_int_equal(stream_dropped(s),
					 (sizes[0] > cap ? sizes[0] - cap : 0) +
					 (sizes[1] > cap ? sizes[1] - cap : 0));
			/* the same when it has ended and after a restart, whatever the cap is then */
			stream_end(s);
			stream_destroy(s);
			s = stream_open(dir, true, again ? 64 : 1 << 30);
		}
		stream_destroy(s);
		teardown(NULL);
		assert_int_equal(setup(NULL), 0);
	}
}

/* Read on as a program does, at offsets that grow by what came. */
static void read_through(struct stream *s, struct stream_cursor **c, uint64_t *off, char *to)
{
	size_t len = 0;
	ssize_t n;

	while (stream_cursor_left(s, STREAM_OUT, *c, *off) > 0) {
		n = stream_cursor_read(s, STREAM_OUT, c, to + len, 7, *off);
		assert_true(n > 0);
		len += (size_t)n;
		*off += (uint64_t)n;
	}
	to[len] = 0;
}

static void a_reader_is_told_in_one_line(void **state)
{
	struct stream *s = stream_open(dir, false, 64);
	struct stream_cursor *early = NULL, *late = NULL;
	uint64_t off = 0, late_off = 0;
	char text[1000];

	put(s, STREAM_OUT, "0123456789012345678901234567890123456789");
	read_through(s, &early, &off, text);
	assert_int_equal(off, 40);
	assert_null(early);
	for (int i = 0; i < 10; i++)
		put(s, STREAM_OUT, "abcdefghij");
	/* 140 came; 32 and 32 are kept; it had read 40. */
	read_through(s, &early, &off, text);
	assert_string_equal(text, "\n[sbxfs: 68 bytes were dropped here]\nijabcdefghijabcdefghijabcdefghij");
	read_through(s, &late, &late_off, text);
	assert_string_equal(text, "01234567890123456789012345678901"
			    "\n[sbxfs: 76 bytes were dropped here]\nijabcdefghijabcdefghijabcdefghij");
	/* More comes, and they go on where they were; then too much for the one that did not read. */
	put(s, STREAM_OUT, "KLM");
	read_through(s, &early, &off, text);
	assert_string_equal(text, "KLM");
	for (int i = 0; i < 10; i++)
		put(s, STREAM_OUT, "nopqrstuvw");
	read_through(s, &late, &late_off, text);
	assert_string_equal(text, "\n[sbxfs: 71 bytes were dropped here]\nvwnopqrstuvwnopqrstuvwnopqrstuvw");
	free(early);
	free(late);
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
		T(the_middle_is_dropped),
		T(a_reader_is_told_in_one_line),
		T(readers_are_woken_by_bytes_and_by_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
