/* Files on their way to the disk: who waits is told, and in order. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "err.h"
#include "flush.h"
#include "loop.h"

static struct loop *loop;
static char folder[64], path[128], before[160];
static unsigned answers;
static int error;

static int setup(void **state)
{
	strcpy(folder, "/tmp/sbxfs-flush-XXXXXX");
	answers = 0;
	error = 1;
	loop = loop_create();
	if (!loop || !mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/file", folder);
	snprintf(before, sizeof(before), "%s.new", path);
	return 0;
}

static int teardown(void **state)
{
	flush_finish();
	loop_destroy(loop);
	remove_file(path);
	return rmdir(folder);
}

static void came(struct flush_wait *w, int r)
{
	answers++;
	error = r;
	loop_stop(loop);
}

static void content_is(const char *name, const char *text)
{
	char got[64] = "";
	int fd = open(name, O_RDONLY);

	assert_true(fd >= 0);
	assert_true(read(fd, got, sizeof(got) - 1) >= 0);
	close(fd);
	assert_string_equal(got, text);
}

static void without_the_thread_it_is_done_at_once(void **state)
{
	assert_int_equal(write_file(path, "one\n", 4, true, NULL), 0);
	assert_true(flush_idle());
	content_is(path, "one\n");
}

/* The text is there at once, for the next daemon; its way to the disk is told of later. */
static void who_waits_is_told_once(void **state)
{
	struct flush_wait wait = { 0 };

	flush_start(loop);
	assert_int_equal(write_file(path, "one\n", 4, true, NULL), 0);
	assert_int_equal(write_file(path, "two\n", 4, true, NULL), 0);
	content_is(path, "two\n");
	content_is(before, "one\n");
	flush_wait(&wait, came);
	assert_true(flush_is_waiting(&wait));
	assert_false(flush_idle());
	loop_run(loop);
	assert_int_equal(answers, 1);
	assert_int_equal(error, 0);
	assert_true(flush_idle());
	assert_false(flush_is_waiting(&wait));
}

static void what_is_gone_needs_no_sync(void **state)
{
	struct flush_wait wait = { 0 };

	flush_start(loop);
	flush_path(path);
	flush_wait(&wait, came);
	loop_run(loop);
	assert_int_equal(error, 0);
}

static void unsynced_leaves_nothing_beside_it(void **state)
{
	assert_int_equal(write_file(path, "one", 3, false, NULL), 0);
	assert_int_equal(write_file(path, "two", 3, false, NULL), 0);
	content_is(path, "two");
	assert_int_equal(access(before, F_OK), -1);
}

/* A link in its place is not followed, as an example of what cannot be synced. */
static void an_error_is_told(void **state)
{
	struct flush_wait wait = { 0 }, none = { 0 };

	flush_start(loop);
	assert_int_equal(symlink(folder, path), 0);
	flush_path(path);
	flush_wait(&wait, came);
	loop_run(loop);
	assert_int_equal(error, -ELOOP);
	assert_true(flush_idle());
	assert_int_equal(flush_error(), -ELOOP);
	unlink(path);
	assert_int_equal(write_file(path, "", 0, true, NULL), 0);
	flush_wait(&none, came);
	loop_run(loop);
	assert_int_equal(error, 0);
	assert_int_equal(flush_error(), 0);
}

static void stop(struct loop_timer *t)
{
	loop_stop(loop);
}

static void who_has_gone_is_not_told(void **state)
{
	struct flush_wait wait = { 0 };
	struct loop_timer timer = { 0 };

	flush_start(loop);
	write_file(path, "x", 1, true, NULL);
	flush_wait(&wait, came);
	flush_cancel(&wait);
	flush_now();
	loop_timer_set(loop, &timer, 0, stop);
	loop_run(loop);
	assert_int_equal(answers, 0);
	assert_true(flush_idle());
}

static void a_full_disk_or_no_folder_is_an_error_at_once(void **state)
{
	struct err err = ERR_NONE;

	flush_start(loop);
	assert_int_equal(write_file("/nowhere/file", "x", 1, true, &err), -ENOENT);
	assert_non_null(strstr(err.text, "cannot write /nowhere/file"));
}

/* --- by the thread -------------------------------------------------------------- */

static void wait_for_all(void)
{
	struct flush_wait wait = { 0 };

	flush_wait(&wait, came);
	loop_run(loop);
	assert_true(flush_idle());
}

static void soon_is_soon(void **state)
{
	flush_start(loop);
	assert_int_equal(write_file_soon(path, "one\n", 4, NULL), 0);
	assert_false(flush_idle());
	wait_for_all();
	assert_int_equal(error, 0);
	content_is(path, "one\n");
	assert_int_equal(write_file_soon(path, "two\n", 4, NULL), 0);
	wait_for_all();
	content_is(path, "two\n");
	content_is(before, "one\n");
}

static void soon_without_the_thread_is_now(void **state)
{
	assert_int_equal(write_file_soon(path, "one\n", 4, NULL), 0);
	assert_true(flush_idle());
	content_is(path, "one\n");
}

/* However the thread is scheduled: the last one to be asked for is what stays. */
static void what_comes_later_stays(void **state)
{
	char text[16];

	flush_start(loop);
	for (int i = 0; i < 2000; i++) {
		write_file_soon(path, "old", 3, NULL);
		snprintf(text, sizeof(text), "%d", i);
		if (i % 3 == 0)
			assert_int_equal(write_file(path, text, (unsigned)strlen(text), i % 2, NULL), 0);
		else
			write_file_soon(path, text, (unsigned)strlen(text), NULL);
		if (i % 3 == 0)
			content_is(path, text);
		if (i % 100 == 0) {
			flush_now();
			content_is(path, text);
		}
	}
	wait_for_all();
	content_is(path, "1999");
}

static void what_is_removed_stays_away(void **state)
{
	flush_start(loop);
	for (int i = 0; i < 2000; i++) {
		write_file_soon(path, "old", 3, NULL);
		assert_int_equal(remove_file(path), 0);
		assert_int_equal(access(path, F_OK), -1);
	}
	wait_for_all();
	assert_int_equal(error, 0);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(access(before, F_OK), -1);
}

/* As that of a sandbox that is removed: no error, no text in a folder that is no longer its own. */
static void what_is_dropped_needs_no_folder(void **state)
{
	char sub[96], file[128];

	flush_start(loop);
	snprintf(sub, sizeof(sub), "%s/sub", folder);
	snprintf(file, sizeof(file), "%s/file", sub);
	for (int i = 0; i < 500; i++) {
		assert_int_equal(mkdir(sub, 0700), 0);
		write_file_soon(file, "old", 3, NULL);
		drop_file_soon(file);
		remove_file(file);
		assert_int_equal(rmdir(sub), 0);
	}
	wait_for_all();
	assert_int_equal(error, 0);
}

/* Who waits for it is not told before it is so; and the end is not before all is written. */
static void the_end_waits_for_it(void **state)
{
	flush_start(loop);
	write_file_soon(path, "one\n", 4, NULL);
	flush_finish();
	content_is(path, "one\n");
}

static void an_error_of_it_is_told(void **state)
{
	flush_start(loop);
	assert_int_equal(write_file_soon("/nowhere/file", "x", 1, NULL), 0);
	wait_for_all();
	assert_int_equal(error, -ENOENT);
	assert_int_equal(flush_error(), -ENOENT);
	write_file_soon(path, "x", 1, NULL);
	wait_for_all();
	assert_int_equal(flush_error(), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(without_the_thread_it_is_done_at_once), T(who_waits_is_told_once),
		T(what_is_gone_needs_no_sync),
		T(unsynced_leaves_nothing_beside_it), T(an_error_is_told), T(who_has_gone_is_not_told),
		T(a_full_disk_or_no_folder_is_an_error_at_once),
		T(soon_is_soon), T(soon_without_the_thread_is_now), T(what_comes_later_stays),
		T(what_is_removed_stays_away), T(what_is_dropped_needs_no_folder),
		T(the_end_waits_for_it), T(an_error_of_it_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
