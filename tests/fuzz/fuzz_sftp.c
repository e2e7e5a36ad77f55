/*
 * The stream of a hostile SFTP server, to a table with calls of every kind under way. (Single
 * packets: fuzz_reply.c.) The calls have the ids 1 to 10, behind the question for the limits.
 */
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "log.h"
#include "loop.h"
#include "sftp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* --- the table ------------------------------------------------------------------- */

static struct sftp *sftp;
static unsigned started, answered;

static void sent(void *pipe, const void *data, size_t len)
{
}

static size_t queued(void *pipe)
{
	return 0;
}

static void on_answer(void *user, int error, const struct sftp_answer *a)
{
	answered++;
	if (a->handle)
		sftp_close(sftp, a->handle);
}

static void on_ready(void *user)
{
	static const struct sftp_attrs attrs = { .flags = SFTP_ATTR_PERMISSIONS };
	static const struct sftp_handle h = { .len = 1 };
	struct sftp_call *cancelled;

#define START(call) started += (call) == 0
	START(sftp_open(sftp, "/f", SFTP_READABLE, NULL, on_answer, NULL, NULL));
	START(sftp_opendir(sftp, "/", on_answer, NULL, NULL));
	START(sftp_read(sftp, &h, 0, 64, on_answer, NULL, NULL));
	START(sftp_write(sftp, &h, 0, "data", 4, on_answer, NULL, NULL));
	START(sftp_readdir(sftp, &h, on_answer, NULL, NULL));
	START(sftp_lstat(sftp, "/", on_answer, NULL, NULL));
	START(sftp_mkdir(sftp, "/d", &attrs, on_answer, NULL, NULL));
	START(sftp_readlink(sftp, "/l", on_answer, NULL, NULL));
	START(sftp_statvfs(sftp, "/", on_answer, NULL, NULL));
	sftp_open(sftp, "/g", SFTP_READABLE, NULL, on_answer, NULL, &cancelled);
	sftp_cancel(cancelled);
}

static void on_failed(void *user, const struct err *err)
{
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct sftp_pipe pipe = { .send = sent, .queued = queued };
	static const struct sftp_events events = { .ready = on_ready, .failed = on_failed };
	static struct loop *loop;

	if (!loop)
		loop = loop_create();
	started = answered = 0;
	sftp = sftp_create(loop, &pipe, NULL, &events, NULL);
	/* In pieces of odd sizes, so that packets come cut. */
	for (size_t at = 0, n = 7; at < size; at += n, n = n * 2 % 61 + 1) {
		if (n > size - at)
			n = size - at;
		sftp_input(sftp, data + at, n);
	}
	sftp_destroy(sftp, -1);
	sftp = NULL;
	/* Each call has one answer. */
	if (started != answered)
		abort();
	return 0;
}
