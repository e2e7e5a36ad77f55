/*
 * What a hostile SFTP server may send: first each packet to the codec alone, then
 * the whole stream to a table with calls of every kind under way.
 *
 *	CC=clang meson setup build-fuzz -Dfuzz=true && ninja -C build-fuzz
 *	mkdir found && build-fuzz/tests/fuzz/fuzz_sftp found tests/fuzz/corpus -max_total_time=60
 */
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "log.h"
#include "loop.h"
#include "sftp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void decode(const uint8_t *data, size_t size)
{
	struct sftp_reply r;
	struct sftp_handle h;
	struct sftp_name n;
	struct sftp_statvfs v;
	struct sftp_limits l;
	int len;

	for (; (len = sftp_frame(data, size)) > 0; data += len, size -= (size_t)len) {
		if (sftp_get_reply(data + 4, (size_t)len - 4, &r))
			continue;
		if (r.type == SFTP_STATUS)
			sftp_status_errno(r.status.code, r.status.text, r.status.len, NULL);
		else if (r.type == SFTP_HANDLE)
			sftp_get_handle(&r, &h);
		else if (r.type == SFTP_EXTENDED_REPLY && sftp_get_limits(&r.extended, &l) == 0)
			sftp_get_statvfs(&r.extended, &v);
		while (r.type == SFTP_NAME && sftp_next_name(&r, &n) == 1) {
			sftp_name_ok(n.name, n.len);
			sftp_name_type(&n);
		}
	}
}

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
	decode(data, size);
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
