/* The event loop, and children on it. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "loop.h"
#include "proc.h"
#include "wait.h"

static struct loop *loop;
static char trace[64];

static int setup(void **state)
{
	trace[0] = 0;
	loop = loop_create();
	return loop ? 0 : -1;
}

static int teardown(void **state)
{
	loop_destroy(loop);
	return 0;
}

static void note(const char *what)
{
	strcat(trace, what);
}

/* --- timers ------------------------------------------------------------------ */

static void timer_a(struct loop_timer *t) { note("a"); }
static void timer_b(struct loop_timer *t) { note("b"); }
static void timer_end(struct loop_timer *t) { note("."); loop_stop(loop); }

static void timers_run_in_order_of_their_time(void **state)
{
	struct loop_timer a = { 0 }, b = { 0 }, never = { 0 }, end = { 0 };

	loop_timer_set(loop, &end, 30, timer_end);
	loop_timer_set(loop, &never, 15, timer_a);
	loop_timer_set(loop, &b, 20, timer_b);
	loop_timer_set(loop, &a, 10, timer_a);
	loop_timer_cancel(&never);
	loop_timer_cancel(&never);
	assert_int_equal(loop_run(loop), 0);
	assert_string_equal(trace, "ab.");
	assert_false(loop_timer_is_set(&a));
}

static void many_timers_keep_their_order(void **state)
{
	static struct loop_timer timers[500];
	struct loop_timer end = { 0 };

	for (int i = 0; i < 500; i++)
		loop_timer_set(loop, &timers[i], 100000 + (i * 7919) % 500, timer_a);
	for (int i = 0; i < 500; i += 2)
		loop_timer_cancel(&timers[i]);
	loop_timer_set(loop, &end, 1, timer_end);
	loop_run(loop);
	assert_string_equal(trace, ".");
	for (int i = 1; i < 500; i += 2)
		loop_timer_cancel(&timers[i]);
}

/* --- descriptors --------------------------------------------------------------- */

static struct loop_fd left, right;

static void deletes_the_other(struct loop_fd *f, uint32_t events)
{
	note("x");
	loop_fd_del(f == &left ? &right : &left);
	loop_fd_del(f);
	loop_stop(loop);
}

static void a_callback_may_delete_another_that_is_ready_too(void **state)
{
	int a[2], b[2];

	assert_int_equal(pipe(a) | pipe(b), 0);
	assert_int_equal(write(a[1], "1", 1) + write(b[1], "1", 1), 2);
	assert_int_equal(loop_fd_add(loop, &left, a[0], EPOLLIN, deletes_the_other), 0);
	assert_int_equal(loop_fd_add(loop, &right, b[0], EPOLLIN, deletes_the_other), 0);
	loop_run(loop);
	assert_string_equal(trace, "x");
	close(a[0]);
	close(a[1]);
	close(b[0]);
	close(b[1]);
}

/* --- later and posts -------------------------------------------------------------- */

static struct loop_later first, second;

static void later_second(struct loop_later *l) { note("2"); loop_stop(loop); }
static void later_first(struct loop_later *l)
{
	note("1");
	loop_later(loop, &second, later_second);
}

static void later_runs_once_and_may_ask_again(void **state)
{
	loop_later(loop, &first, later_first);
	loop_later(loop, &first, later_first);
	assert_string_equal(trace, "");
	loop_run(loop);
	assert_string_equal(trace, "12");
}

static void posted(void *user)
{
	note(user);
	if (strlen(trace) == 3)
		loop_stop(loop);
}

static void *poster(void *user)
{
	for (int i = 0; i < 3; i++)
		loop_post(loop, posted, user);
	return NULL;
}

static void another_thread_can_post(void **state)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, poster, "p"), 0);
	loop_run(loop);
	pthread_join(thread, NULL);
	assert_string_equal(trace, "ppp");
}

static void on_usr1(void *user, int signo)
{
	assert_int_equal(signo, SIGUSR1);
	note("s");
	loop_stop(loop);
}

static void signals_come_through_the_loop(void **state)
{
	assert_int_equal(loop_signal(loop, SIGUSR1, on_usr1, NULL), 0);
	raise(SIGUSR1);
	assert_string_equal(trace, "");
	loop_run(loop);
	assert_string_equal(trace, "s");
}

/* --- wait lists --------------------------------------------------------------------- */

struct sleeper {
	struct waiter w;
	struct sleeper *other;
};

static void woken(struct waiter *w)
{
	struct sleeper *s = (struct sleeper *)w;

	note("w");
	if (s->other)
		wait_cancel(&s->other->w);
}

static void a_woken_waiter_may_cancel_the_next(void **state)
{
	struct wait_list list;
	struct sleeper a = { .other = NULL }, b = { .other = NULL };

	wait_init(&list);
	waiter_init(&a.w, woken);
	waiter_init(&b.w, woken);
	a.other = &b;
	wait_add(&list, &a.w);
	wait_add(&list, &b.w);
	wait_wake(&list);
	wait_wake(&list);
	assert_string_equal(trace, "w");
}

/* --- children --------------------------------------------------------------------------- */

static int seen_status;

static void ended(void *user, int status, const char *out, const char *err)
{
	seen_status = status;
	note(out);
	note("|");
	note(err);
	loop_stop(loop);
}

static void a_command_tells_its_output_and_status(void **state)
{
	const char *argv[] = { "sh", "-c", "echo -n out; echo -n err >&2; exit 3", NULL };
	struct err err = ERR_NONE;

	assert_int_equal(proc_run(loop, argv, 60000, ended, NULL, NULL, &err), 0);
	loop_run(loop);
	assert_string_equal(trace, "out|err");
	assert_int_equal(WEXITSTATUS(seen_status), 3);
	assert_int_equal(proc_explain(&err, "sh", seen_status, "a\nlast words\n"), -EIO);
	assert_string_equal(err.text, "sh ended with 3: last words");
}

static void an_overdue_command_is_killed_with_its_children(void **state)
{
	const char *argv[] = { "sh", "-c", "sleep 1000 & sleep 1000", NULL };
	struct err err = ERR_NONE;

	assert_int_equal(proc_run(loop, argv, 50, ended, NULL, NULL, &err), 0);
	loop_run(loop);
	assert_int_equal(seen_status, -1);
}

static void a_missing_command_is_named(void **state)
{
	const char *argv[] = { "no-such-command-at-all", NULL };
	struct err err = ERR_NONE;

	assert_int_equal(proc_run(loop, argv, 1000, ended, NULL, NULL, &err), -ENOENT);
	assert_string_equal(err.text, "no-such-command-at-all is not installed");
}

static void stranger_ended(struct loop_child *c, int status)
{
	seen_status = status;
	loop_stop(loop);
}

static void a_process_that_is_no_child_is_watched_too(void **state)
{
	struct loop_child c = { 0 };
	int hold[2], tell[2];
	pid_t child, grandchild;

	assert_int_equal(pipe(hold) | pipe(tell), 0);
	child = fork();
	if (child == 0) {
		grandchild = fork();
		if (grandchild == 0) {
			char byte;

			close(hold[1]);
			_exit(read(hold[0], &byte, 1) < 0);	/* until the test closes it */
		}
		_exit(write(tell[1], &grandchild, sizeof(grandchild)) < 0);
	}
	waitpid(child, NULL, 0);
	assert_int_equal(read(tell[0], &grandchild, sizeof(grandchild)), sizeof(grandchild));
	assert_int_equal(loop_child_add(loop, &c, grandchild, stranger_ended), 0);
	close(hold[1]);
	loop_run(loop);
	assert_int_equal(seen_status, -1);
	close(hold[0]);
	close(tell[0]);
	close(tell[1]);
}

static void hold_up(struct loop_timer *t)
{
	const struct timespec ms20 = { .tv_nsec = 20 * 1000 * 1000 };

	nanosleep(&ms20, NULL);
	loop_stop(loop);
}

/* A callback that waits (for a disk, say) is seen, and seen to be no work. */
static void a_turn_is_measured(void **state)
{
	const struct loop_turns *turns = loop_turns(loop);
	struct loop_timer t = { 0 };

	loop_timer_set(loop, &t, 0, hold_up);
	loop_run(loop);
	assert_true(turns->longest >= 0.02);
	assert_true(turns->longest_cpu < turns->longest);
	assert_true(turns->took.sum >= turns->longest);
	assert_true(turns->cpu.sum >= turns->longest_cpu);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(timers_run_in_order_of_their_time),
		T(many_timers_keep_their_order),
		T(a_callback_may_delete_another_that_is_ready_too),
		T(later_runs_once_and_may_ask_again),
		T(another_thread_can_post),
		T(signals_come_through_the_loop),
		T(a_woken_waiter_may_cancel_the_next),
		T(a_command_tells_its_output_and_status),
		T(an_overdue_command_is_killed_with_its_children),
		T(a_missing_command_is_named),
		T(a_process_that_is_no_child_is_watched_too),
		T(a_turn_is_measured),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
