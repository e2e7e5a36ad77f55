/* The stream of events: numbers, what a restart finds, readers that come too late. */
#include "test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "events.h"
#include "remove.h"

static char dir[64];
static struct events *e;

static int setup(void **state)
{
	struct err err = ERR_NONE;

	strcpy(dir, "/tmp/sbxfs-events-XXXXXX");
	return mkdtemp(dir) && events_open(&e, dir, &err) == 0 ? 0 : -1;
}

static int teardown(void **state)
{
	events_close(e);
	e = NULL;
	return remove_tree(dir);
}

static void again(void)
{
	struct err err = ERR_NONE;

	events_close(e);
	assert_int_equal(events_open(&e, dir, &err), 0);
}

static void post(const char *event, const char *sandbox)
{
	events_post(e, event, sandbox, NULL);
}

static void post_many(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		post("running", "web");
}

/* All that a reader gets from off on, NUL terminated, to be freed. */
static char *rest(struct events_reader *r, uint64_t off, size_t piece)
{
	struct buf all = BUF_INIT;
	size_t n;

	do {
		n = events_read(e, r, buf_reserve(&all, piece), piece, off + buf_size(&all));
		buf_commit(&all, n);
	} while (n > 0);
	return buf_take_string(&all);
}

static void begins_with(const char *text, const char *expected)
{
	if (strncmp(text, expected, strlen(expected)) != 0)
		fail_msg("\"%.100s\" does not begin with \"%s\"", text, expected);
}

static void a_line_tells_what_who_and_when(void **state)
{
	const struct event_field fields[] = { { "backend", "k\"v\n", 0 }, { "exit", NULL, -3 }, { 0 } };
	struct events_reader r = { 0 };
	char *text, caller[100];

	events_post(e, "created", "web", fields);
	events_caller(e, 1000, getpid());
	post("limit", NULL);
	text = rest(&r, 0, 4096);
	begins_with(text, "{\"seq\":1,\"time\":\"20");
	assert_non_null(strstr(text, "Z\",\"event\":\"created\",\"sandbox\":\"web\","
				     "\"backend\":\"k\\\"v\\n\",\"exit\":-3}\n{\"seq\":2,"));
	snprintf(caller, sizeof(caller), "\"event\":\"limit\",\"uid\":1000,\"pid\":%d}\n",
		 (int)getpid());
	assert_non_null(strstr(text, caller));
	assert_int_equal(strlen(text), events_size(e));
	free(text);
	events_reader_finish(&r);
}

static void numbers_go_on_after_a_restart(void **state)
{
	struct events_reader r = { 0 };
	char *text;

	post("created", "a");
	post("created", "b");
	again();
	post("destroyed", "a");
	text = rest(&r, 0, 7);
	begins_with(text, "{\"seq\":1,");
	assert_non_null(strstr(text, "\n{\"seq\":3,"));
	free(text);
	events_reader_finish(&r);
}

static void a_half_line_is_cut_off(void **state)
{
	char *path = xasprintf("%s/events", dir);
	struct events_reader r = { 0 };
	struct stat before, after;
	char *text;
	int fd;

	post("created", "a");
	assert_int_equal(stat(path, &before), 0);
	fd = open(path, O_WRONLY | O_APPEND);
	assert_int_equal(write(fd, "{\"seq\":2,\"ti", 12), 12);
	close(fd);
	again();
	assert_int_equal(stat(path, &after), 0);
	assert_int_equal(after.st_size, before.st_size);
	post("created", "b");
	text = rest(&r, 0, 4096);
	assert_non_null(strstr(text, "}\n{\"seq\":2,"));
	free(text);
	free(path);
	events_reader_finish(&r);
}

static void the_last_ones_are_kept_over_a_restart(void **state)
{
	struct events_reader r = { 0 }, r2 = { 0 };
	char *text;

	post_many(EVENTS_KEPT * 2 + 500);
	text = rest(&r, 0, 1 << 20);
	begins_with(text, "{\"seq\":10501,");
	free(text);
	again();
	text = rest(&r2, 0, 1 << 20);
	begins_with(text, "{\"seq\":10501,");
	assert_non_null(strstr(text, "{\"seq\":20500,"));
	free(text);
	events_reader_finish(&r);
	events_reader_finish(&r2);
}

static void a_late_reader_is_told_how_much_it_missed(void **state)
{
	struct events_reader r = { 0 };
	char line[512], *text;
	uint64_t off;
	size_t n;

	post_many(10);
	n = events_read(e, &r, line, 20, 0);	/* the middle of line 1 */
	assert_int_equal(n, 20);
	off = n;
	post_many(EVENTS_KEPT);			/* 11 .. 10010 are kept */
	text = rest(&r, off, 5);
	begins_with(text, "\n{\"lost\":10}\n{\"seq\":11,");
	off += strlen(text);
	free(text);
	post_many(EVENTS_KEPT + 3);		/* 10011 .. 10013 are lost */
	text = rest(&r, off, 64);
	begins_with(text, "{\"lost\":3}\n{\"seq\":10014,");
	free(text);
	events_reader_finish(&r);
}

static void who_seeks_to_the_end_reads_what_comes(void **state)
{
	struct events_reader r = { 0 };
	uint64_t end;
	char *text;

	post_many(EVENTS_KEPT + 5);
	end = events_size(e);
	text = rest(&r, end, 100);
	assert_string_equal(text, "");
	free(text);
	post("created", "b");
	text = rest(&r, end, 100);
	begins_with(text, "{\"seq\":10006,");
	assert_int_equal(strlen(text), events_size(e) - end);
	free(text);
	events_reader_finish(&r);
}

static void collect(void *user, const char *name)
{
	strcat(user, name);
	strcat(user, " ");
}

static void replay_tells_who_is_there(void **state)
{
	const struct event_field was[] = { { "was", "b", 0 }, { 0 } };
	char names[100] = "";

	post("created", "a");
	post("created", "b");
	post("adopted", "c");
	post("running", "d");
	post("destroyed", "a");
	events_post(e, "renamed", "z", was);
	again();
	events_replay(e, collect, names);
	assert_string_equal(names, "c z ");
}

static void damage_in_a_file_costs_only_its_line(void **state)
{
	char *path = xasprintf("%s/events", dir);
	struct events_reader r = { 0 };
	char *text;
	int fd;

	post("created", "a");
	fd = open(path, O_WRONLY | O_APPEND);
	assert_int_equal(write(fd, "\0\0garbage\n", 10), 10);
	close(fd);
	again();
	post("created", "b");
	text = rest(&r, 0, 4096);
	assert_null(strstr(text, "garbage"));
	assert_non_null(strstr(text, "}\n{\"seq\":2,"));
	free(text);
	free(path);
	events_reader_finish(&r);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_line_tells_what_who_and_when),
		T(numbers_go_on_after_a_restart),
		T(a_half_line_is_cut_off),
		T(the_last_ones_are_kept_over_a_restart),
		T(a_late_reader_is_told_how_much_it_missed),
		T(who_seeks_to_the_end_reads_what_comes),
		T(replay_tells_who_is_there),
		T(damage_in_a_file_costs_only_its_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
