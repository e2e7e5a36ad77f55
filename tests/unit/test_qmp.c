/* QMP over a socket pair: we are QEMU at the other end. */
#include "test.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "err.h"
#include "loop.h"
#include "qmp.h"

static struct loop *loop;
static struct qmp *qmp;
static int peer;
static char trace[4096];
static bool close_in_callback;

static void note(const char *fmt, const char *a, const char *b)
{
	size_t len = strlen(trace);

	snprintf(trace + len, sizeof(trace) - len, fmt, a, b);
}

static void done(void)
{
	if (close_in_callback) {
		qmp_close(qmp);
		qmp = NULL;
	}
	loop_stop(loop);
}

static void on_event(void *user, const char *name, const cJSON *data)
{
	const cJSON *reason = cJSON_GetObjectItemCaseSensitive(data, "reason");

	note("event %s %s;", name, cJSON_IsString(reason) ? reason->valuestring : "-");
	done();
}

static void on_closed(void *user, const struct err *why)
{
	note("closed %s%s;", why->code == -EPIPE ? "end" : "nonsense", "");
	done();
}

static void on_reply(void *user, const cJSON *result, const struct err *err)
{
	const cJSON *status = cJSON_GetObjectItemCaseSensitive(result, "status");

	note("reply %s %s;", user,
	     err		    ? err->text :
	     cJSON_IsString(status) ? status->valuestring :
				      "ok");
	done();
}

static const struct qmp_events events = { on_event, on_closed };

static int setup(void **state)
{
	int fds[2];

	trace[0] = 0;
	close_in_callback = false;
	loop = loop_create();
	if (!loop || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds))
		return -1;
	peer = fds[1];
	return qmp_open(&qmp, loop, fds[0], &events, NULL, NULL);
}

static int teardown(void **state)
{
	qmp_close(qmp);
	qmp = NULL;
	close(peer);
	loop_destroy(loop);
	return 0;
}

static void say(const char *text)
{
	assert_int_equal(write(peer, text, strlen(text)), (ssize_t)strlen(text));
}

/* What the client has written; "" for nothing. */
static const char *heard(void)
{
	static char text[4096];
	ssize_t n = read(peer, text, sizeof(text) - 1);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

static void greet(void)
{
	say("{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n");
	say("{\"event\": \"GREETED\"}\r\n"); /* so that the loop stops */
	loop_run(loop);
	trace[0] = 0;
}

static void waits_for_the_greeting(void **state)
{
	qmp_command(qmp, "query-status", NULL, on_reply, "status");
	assert_string_equal(heard(), "");
	greet();
	assert_string_equal(heard(), "{\"execute\":\"qmp_capabilities\",\"id\":0}\n"
				     "{\"execute\":\"query-status\",\"id\":1}\n");
}

static void matches_replies_by_id(void **state)
{
	cJSON *args = cJSON_CreateObject();

	greet();
	heard();
	cJSON_AddStringToObject(args, "command-line", "info usernet");
	qmp_command(qmp, "query-status", NULL, on_reply, "first");
	qmp_command(qmp, "human-monitor-command", args, on_reply, "second");
	assert_string_equal(heard(),
			    "{\"execute\":\"query-status\",\"id\":1}\n"
			    "{\"execute\":\"human-monitor-command\","
			    "\"arguments\":{\"command-line\":\"info usernet\"},\"id\":2}\n");
	say("{\"return\": {}, \"id\": 77}\n{\"return\": {}, \"id\": 2}\n");
	loop_run(loop);
	say("{\"return\": {\"status\": \"running\"}, \"id\": 1}\n");
	loop_run(loop);
	assert_string_equal(trace, "reply second ok;reply first running;");
}

/* The descriptor that came with what is read now, or -1. */
static int heard_fd(char *text, size_t size)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { text, size - 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space,
			    .msg_controllen = sizeof(control.space) };
	ssize_t n = recvmsg(peer, &m, MSG_CMSG_CLOEXEC);
	int fd = -1;

	text[n > 0 ? n : 0] = '\0';
	if (n > 0 && m.msg_controllen && control.head.cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(&control.head), sizeof(fd));
	return fd;
}

/* Whether it is said at once or after the greeting, before and behind other words. */
static void passes_a_descriptor_with_its_command(void **state)
{
	char text[1024];
	int ends[2], fd;

	for (int greeted = 0; greeted < 2; greeted++) {
		assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
		qmp_command(qmp, "stop", NULL, NULL, NULL);
		qmp_command_fd(qmp, "getfd", NULL, ends[1], NULL, NULL);
		qmp_command(qmp, "migrate", NULL, NULL, NULL);
		if (!greeted)
			greet();
		for (fd = -1, text[0] = '\0'; fd < 0;)
			fd = heard_fd(text, sizeof(text));
		assert_non_null(strstr(text, "\"getfd\""));
		assert_int_equal(write(fd, "x", 1), 1);
		close(fd);
		assert_int_equal(read(ends[0], text, 2), 1);	/* and nobody else has it */
		assert_int_equal(read(ends[0], text, 2), 0);
		close(ends[0]);
		heard();
	}
}

static void tells_errors_in_qemus_words(void **state)
{
	greet();
	qmp_command(qmp, "quit", NULL, on_reply, "quit");
	say("{\"error\": {\"class\": \"GenericError\", \"desc\": \"not now\"}, \"id\": 1}\n");
	loop_run(loop);
	assert_string_equal(trace, "reply quit QEMU says: not now;");
}

static void takes_events_in_pieces(void **state)
{
	greet();
	say("{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, ");
	say("\"reason\": \"guest-shutdown\"}}\n{\"event\": \"ST");
	loop_run(loop);
	say("OP\"}\n");
	loop_run(loop);
	assert_string_equal(trace, "event SHUTDOWN guest-shutdown;event STOP -;");
}

static void answers_all_calls_when_it_ends(void **state)
{
	greet();
	qmp_command(qmp, "a", NULL, on_reply, "a");
	qmp_command(qmp, "b", NULL, NULL, NULL);
	qmp_command(qmp, "c", NULL, on_reply, "c");
	shutdown(peer, SHUT_RDWR);
	loop_run(loop);
	assert_string_equal(trace, "reply a QEMU closed its QMP connection;"
				   "reply c QEMU closed its QMP connection;closed end;");
}

static void gives_up_on_nonsense(void **state)
{
	static const char *const nonsense[] = { "hello\n", "[1, 2]\n", "{\"event\": \n" };

	for (size_t i = 0; i < sizeof(nonsense) / sizeof(*nonsense); i++) {
		say(nonsense[i]);
		loop_run(loop);
		assert_string_equal(trace, "closed nonsense;");
		teardown(state);
		assert_int_equal(setup(state), 0);
	}
}

/* QEMU at the other end writes as long as it is let. */
static void flood(struct loop_timer *t)
{
	static char piece[65536];

	memset(piece, 'x', sizeof(piece));
	while (write(peer, piece, sizeof(piece)) > 0)
		;
	loop_timer_set(loop, t, 1, flood);
}

static void gives_up_on_a_line_without_end(void **state)
{
	struct loop_timer writer = { 0 };

	loop_timer_set(loop, &writer, 0, flood);
	loop_run(loop);
	loop_timer_cancel(&writer);
	assert_string_equal(trace, "closed nonsense;");
}

static void can_be_closed_from_its_callbacks(void **state)
{
	close_in_callback = true;
	say("{\"event\": \"A\"}\n{\"event\": \"B\"}\n");
	loop_run(loop);
	assert_string_equal(trace, "event A -;");

	teardown(state);
	assert_int_equal(setup(state), 0);
	greet();
	close_in_callback = true;
	qmp_command(qmp, "a", NULL, on_reply, "a");
	qmp_command(qmp, "b", NULL, on_reply, "b");
	shutdown(peer, SHUT_RDWR);
	loop_run(loop);
	assert_string_equal(trace, "reply a QEMU closed its QMP connection;");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(waits_for_the_greeting, setup, teardown),
		cmocka_unit_test_setup_teardown(matches_replies_by_id, setup, teardown),
		cmocka_unit_test_setup_teardown(passes_a_descriptor_with_its_command, setup,
						teardown),
		cmocka_unit_test_setup_teardown(tells_errors_in_qemus_words, setup, teardown),
		cmocka_unit_test_setup_teardown(takes_events_in_pieces, setup, teardown),
		cmocka_unit_test_setup_teardown(answers_all_calls_when_it_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(gives_up_on_nonsense, setup, teardown),
		cmocka_unit_test_setup_teardown(gives_up_on_a_line_without_end, setup, teardown),
		cmocka_unit_test_setup_teardown(can_be_closed_from_its_callbacks, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
