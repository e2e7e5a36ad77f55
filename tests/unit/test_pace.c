/* Turns to connect to a service that minds bursts. */
#include "test.h"

#include <stdio.h>
#include <string.h>

#include "loop.h"
#include "pace.h"

static struct loop *loop;
static char service[32];
static char trace[64];
static int64_t when[8];
static unsigned had;
static struct pace_turn turns[8];
static enum { KEEP, ANSWERED, SILENT } then;
static unsigned last;

static int setup(void **state)
{
	static int n;

	/* What is known of a service is never forgotten: each test has one of its own. */
	snprintf(service, sizeof(service), "service %d", n++);
	trace[0] = 0;
	had = 0;
	memset(turns, 0, sizeof(turns));
	loop = loop_create();
	return loop ? 0 : -1;
}

static int teardown(void **state)
{
	loop_destroy(loop);
	return 0;
}

static void turn(struct pace_turn *t, bool go)
{
	char c[3] = { (char)('0' + (t - turns)), go ? '+' : '-', 0 };

	strcat(trace, c);
	when[had++] = clock_ms();
	if (go && then != KEEP)
		pace_done(t, then == ANSWERED);
	if (had == last)
		loop_stop(loop);
}

static void ask(unsigned n, unsigned gap_ms)
{
	for (unsigned i = 0; i < n; i++)
		pace_ask(loop, service, gap_ms, &turns[i], turn);
}

static void turns_come_one_by_one_with_a_gap(void **state)
{
	then = ANSWERED;
	last = 3;
	ask(3, 40);
	loop_run(loop);
	assert_string_equal(trace, "0+1+2+");
	assert_true(when[1] - when[0] >= 40);
	assert_true(when[2] - when[1] >= 40);
}

static int64_t done_at;

static void done_late(struct loop_timer *t)
{
	done_at = clock_ms();
	pace_done(&turns[0], true);
}

/* The turn began with a look-up that took long: the gap is between the connections. */
static void the_gap_is_behind_the_turn(void **state)
{
	struct loop_timer timer = { 0 };

	then = KEEP;
	last = 2;
	ask(2, 40);
	loop_timer_set(loop, &timer, 60, done_late);
	loop_run(loop);
	assert_string_equal(trace, "0+1+");
	assert_true(when[1] - done_at >= 40);
	pace_done(&turns[1], true);
}

static void who_leaves_is_passed_over(void **state)
{
	then = ANSWERED;
	last = 2;
	ask(3, 1);
	pace_cancel(&turns[1]);
	pace_cancel(&turns[1]);
	loop_run(loop);
	assert_string_equal(trace, "0+2+");
}

static void only_one_has_a_turn(void **state)
{
	then = KEEP;
	last = 1;
	ask(2, 1);
	loop_run(loop);
	assert_string_equal(trace, "0+");
	last = 2;
	pace_cancel(&turns[0]);		/* its holder was destroyed */
	loop_run(loop);
	assert_string_equal(trace, "0+1+");
	pace_done(&turns[1], true);
	assert_int_equal(pace_silent(service), 0);
}

static void silence_keeps_everybody_away(void **state)
{
	int64_t began = clock_ms();

	then = SILENT;
	last = 3;
	ask(3, 1);
	loop_run(loop);
	assert_string_equal(trace, "0+1-2-");
	assert_true(pace_silent(service) >= PACE_SILENT_MS - (clock_ms() - began));
	assert_true(pace_silent(service) <= PACE_SILENT_MS);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(turns_come_one_by_one_with_a_gap), T(the_gap_is_behind_the_turn),
		T(who_leaves_is_passed_over),
		T(only_one_has_a_turn), T(silence_keeps_everybody_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
