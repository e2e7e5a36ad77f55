/*
 * Channels of an SSH connection against a libssh2 of our own: what a server may answer that
 * no well-meant one does.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ssh_internal.h"
#include "test.h"

/* --- libssh2, as far as channel.c calls it ------------------------------------- */

static bool grants;		/* the server grants what it is asked to open */
static int channel_object;	/* stands for a LIBSSH2_CHANNEL */

LIBSSH2_CHANNEL *libssh2_channel_open_ex(LIBSSH2_SESSION *session, const char *type,
					 unsigned int len, unsigned int window,
					 unsigned int packet, const char *message,
					 unsigned int message_len)
{
	return grants ? (LIBSSH2_CHANNEL *)(void *)&channel_object : NULL;
}

int libssh2_session_last_errno(LIBSSH2_SESSION *session)
{
	return LIBSSH2_ERROR_CHANNEL_FAILURE;
}

int libssh2_channel_close(LIBSSH2_CHANNEL *ch) { return 0; }
int libssh2_channel_free(LIBSSH2_CHANNEL *ch) { return 0; }
int libssh2_channel_eof(LIBSSH2_CHANNEL *ch) { return 0; }
int libssh2_channel_wait_closed(LIBSSH2_CHANNEL *ch) { return 0; }
int libssh2_channel_send_eof(LIBSSH2_CHANNEL *ch) { return 0; }
int libssh2_channel_get_exit_status(LIBSSH2_CHANNEL *ch) { return 0; }
void libssh2_free(LIBSSH2_SESSION *session, void *p) { free(p); }

int libssh2_channel_get_exit_signal(LIBSSH2_CHANNEL *ch, char **signal, size_t *signal_len,
				    char **message, size_t *message_len, char **language,
				    size_t *language_len)
{
	return 0;
}

int libssh2_channel_process_startup(LIBSSH2_CHANNEL *ch, const char *request, unsigned int len,
				    const char *message, unsigned int message_len)
{
	return 0;
}

int libssh2_channel_request_pty_ex(LIBSSH2_CHANNEL *ch, const char *term, unsigned int len,
				   const char *modes, unsigned int modes_len, int width,
				   int height, int width_px, int height_px)
{
	return 0;
}

int libssh2_channel_request_pty_size_ex(LIBSSH2_CHANNEL *ch, int width, int height, int width_px,
					int height_px)
{
	return 0;
}

ssize_t libssh2_channel_read_ex(LIBSSH2_CHANNEL *ch, int stream, char *data, size_t len)
{
	return LIBSSH2_ERROR_EAGAIN;
}

ssize_t libssh2_channel_write_ex(LIBSSH2_CHANNEL *ch, int stream, const char *data, size_t len)
{
	return (ssize_t)len;
}

/* --- the session, as far as channel.c calls it -------------------------------------- */

void ssh_kick(struct ssh *s)
{
}

bool ssh_again(struct ssh *s, int r)
{
	return false;
}

void ssh_fail(struct ssh *s, int code, const char *fmt, ...)
{
	s->why.code = code;
}

bool ssh_is_up(const struct ssh *s)
{
	return s->state == SSH_UP && !s->why.code && !s->doomed;
}

/* --- the tests ---------------------------------------------------------------------------- */

struct seen {
	unsigned closed;
	struct ssh_exit how;
};

static void closed(void *user, const struct ssh_exit *how)
{
	struct seen *seen = user;

	seen->closed++;
	seen->how = *how;
}

static void data(void *user, int stream, const uint8_t *bytes, size_t len)
{
}

static const struct ssh_channel_ops ops = { .data = data, .closed = closed };

static struct ssh session = { .state = SSH_UP };

static int begin(void **state)
{
	list_init(&session.channels);
	session.doomed = false;
	return 0;
}

/* Step all channels until none is left. */
static void step_all(void)
{
	for (int i = 0; i < 10 && !list_empty(&session.channels); i++)
		channel_step(list_entry(session.channels.next, struct ssh_channel, link));
	assert_true(list_empty(&session.channels));
}

static void ask(bool granted)
{
	struct ssh_channel *ch = NULL;
	struct seen seen = { 0 };

	grants = granted;
	assert_int_equal(ssh_ping(&session, &ops, &seen, &ch), 0);
	assert_non_null(ch);
	step_all();
	assert_int_equal(seen.closed, 1);
	assert_int_not_equal(seen.how.error, -EHOSTDOWN);	/* it is there */
}

static void a_refused_sign_of_life_is_one(void **state)
{
	ask(false);
}

/* No server knows that kind of channel; one that grants it all the same answers as well. */
static void a_granted_sign_of_life_is_one(void **state)
{
	ask(true);
}

static void what_was_let_go_is_told_nothing(void **state)
{
	struct ssh_channel *ch;
	struct seen seen = { 0 };

	grants = true;
	assert_int_equal(ssh_ping(&session, &ops, &seen, &ch), 0);
	ssh_channel_destroy(ch);
	step_all();
	assert_int_equal(ssh_exec(&session, "true", 4, &ops, &seen, &ch), 0);
	channel_step(ch);
	ssh_channel_destroy(ch);
	step_all();
	assert_int_equal(seen.closed, 0);
}

/* Its owner destroys the connection: whoever is told so opens nothing on it any more. */
static void a_connection_that_goes_takes_nothing_new(void **state)
{
	struct ssh_channel *ch = NULL;
	struct seen seen = { 0 };

	session.doomed = true;
	assert_int_equal(ssh_exec(&session, "true", 4, &ops, &seen, &ch), -EHOSTDOWN);
	assert_null(ch);
	assert_true(list_empty(&session.channels));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_refused_sign_of_life_is_one, begin),
		cmocka_unit_test_setup(a_granted_sign_of_life_is_one, begin),
		cmocka_unit_test_setup(what_was_let_go_is_told_nothing, begin),
		cmocka_unit_test_setup(a_connection_that_goes_takes_nothing_new, begin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
