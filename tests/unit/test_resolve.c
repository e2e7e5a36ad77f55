/* Names to addresses, by the helper thread. */
#include "test.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "err.h"
#include "loop.h"
#include "resolve.h"

static struct loop *loop;
static unsigned answers;
static struct address first;
static size_t count;
static struct err said;

static int setup(void **state)
{
	answers = 0;
	count = 0;
	said = ERR_NONE;
	loop = loop_create();
	return loop ? 0 : -1;
}

static int teardown(void **state)
{
	loop_destroy(loop);
	return 0;
}

static void came(void *user, const struct address *found, size_t n, const struct err *why)
{
	answers++;
	count = n;
	if (n)
		first = found[0];
	said = *why;
	loop_stop(loop);
}

static void a_name_has_an_address(void **state)
{
	resolve_start(loop, "localhost", 2222, came, NULL);
	loop_run(loop);
	assert_int_equal(answers, 1);
	assert_true(count >= 1);
	assert_int_equal(ntohs(((struct sockaddr_in *)&first.addr)->sin_port), 2222);
}

static void what_is_no_name_is_explained(void **state)
{
	resolve_start(loop, "no such name", 22, came, NULL);
	loop_run(loop);
	assert_int_equal(answers, 1);
	assert_int_equal(count, 0);
	assert_true(said.code < 0);
	assert_non_null(strstr(said.text, "no such name"));
}

static void a_cancelled_one_does_not_answer(void **state)
{
	struct resolve *r = resolve_start(loop, "localhost", 1, came, NULL);

	resolve_cancel(r);
	resolve_cancel(NULL);
	resolve_start(loop, "127.0.0.1", 7, came, NULL);
	loop_run(loop);
	assert_int_equal(answers, 1);
	assert_int_equal(ntohs(((struct sockaddr_in *)&first.addr)->sin_port), 7);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_name_has_an_address), T(what_is_no_name_is_explained),
		T(a_cancelled_one_does_not_answer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
