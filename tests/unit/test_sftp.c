/*
 * The SFTP request table, against the system's sftp-server and against peers
 * that do what no server should.
 */
#include "test.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

#include "err.h"
#include "sftp.h"
#include "sftp_peer.h"

static struct loop *loop;
static struct peer peer;
static struct sftp *sftp;
static bool ready;
static struct err failed;
static char dir[64];

static void on_ready(void *user)
{
	ready = true;
	loop_stop(loop);
}

static void on_failed(void *user, const struct err *err)
{
	failed = *err;
	loop_stop(loop);
}

static void to_peer(void *pipe, const void *data, size_t len)
{
	peer_send(pipe, data, len);
}

static size_t to_peer_queued(void *pipe)
{
	return buf_size(&((struct peer *)pipe)->out);
}

static void from_peer(void *user, const uint8_t *data, size_t len)
{
	if (sftp)
		sftp_input(sftp, data, len);
}

static void peer_drained(void *user)
{
	if (sftp)
		sftp_drained(sftp);
}

static void peer_closed(void *user)
{
	struct sftp *gone = sftp;

	sftp = NULL;
	sftp_destroy(gone, -EIO);
	loop_stop(loop);
}

static void begin(bool played)
{
	static const struct sftp_pipe ops = { .send = to_peer, .queued = to_peer_queued };
	static const struct sftp_events events = { .ready = on_ready, .failed = on_failed };

	ready = false;
	failed = ERR_NONE;
	loop = loop_create();
	peer = (struct peer){ .data = from_peer, .closed = peer_closed, .drained = peer_drained,
			      .drain_below = 256 * 1024 };
	peer_start(&peer, loop, played, NULL, NULL);
	sftp = sftp_create(loop, &ops, &peer, &events, NULL);
}

static void end(void)
{
	sftp_destroy(sftp, -EHOSTDOWN);
	sftp = NULL;
	peer_stop(&peer);
	loop_destroy(loop);
}

static void begin_real(void)
{
	begin(false);
	RUN_UNTIL(loop, ready || failed.code);
	assert_true(ready);
	strcpy(dir, "/tmp/sbxfs-sftp-XXXXXX");
	assert_non_null(mkdtemp(dir));
}

static void end_real(void)
{
	char command[128];

	end();
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	assert_int_equal(system(command), 0);
}

static const char *path(const char *name)
{
	static char text[4][256];
	static int next;
	char *p = text[next++ % 4];

	snprintf(p, 256, "%s/%s", dir, name);
	return p;
}

/* An answer that is waited for. */
struct wait {
	bool done;
	int error;
	unsigned answers;
	struct sftp_attrs attrs;
	struct sftp_handle *handle;
	char data[256];
	size_t len;
};

static void answered(void *user, int error, const struct sftp_answer *a)
{
	struct wait *w = user;

	w->done = true;
	w->answers++;
	w->error = error;
	w->handle = a->handle;
	w->attrs = a->reply->attrs;
	if (error == 0 && a->reply->type == SFTP_STATUS)
		w->len = 0;
	else if (error == 0 && a->reply->type == SFTP_DATA && a->reply->data.len <= sizeof(w->data))
		memcpy(w->data, a->reply->data.bytes, w->len = a->reply->data.len);
	loop_stop(loop);
}

static int wait_for(struct wait *w, int started)
{
	assert_int_equal(started, 0);
	RUN_UNTIL(loop, w->done);
	assert_int_equal(w->answers, 1);
	return w->error;
}

static struct sftp_handle *must_open(const char *name, uint32_t flags)
{
	struct sftp_attrs mode = { .flags = SFTP_ATTR_PERMISSIONS, .perm = 0600 };
	struct wait w = { 0 };

	assert_int_equal(wait_for(&w, sftp_open(sftp, path(name), flags, &mode, answered, &w, NULL)),
			 0);
	assert_non_null(w.handle);
	return w.handle;
}

/* --- the real server ------------------------------------------------------------ */

static void the_server_is_greeted(void **state)
{
	NEEDS_SFTP_SERVER();
	begin_real();
	assert_true(sftp_has(sftp, SFTP_EXT_POSIX_RENAME));
	assert_true(sftp_max_read(sftp) >= 32768);
	assert_true(sftp_max_write(sftp) >= 32768);
	end_real();
}

static void a_file_is_written_and_read(void **state)
{
	struct sftp_handle *h;
	struct wait w = { 0 }, r = { 0 }, s = { 0 }, e = { 0 };

	NEEDS_SFTP_SERVER();
	begin_real();
	h = must_open("f", SFTP_READABLE | SFTP_WRITABLE | SFTP_CREAT | SFTP_EXCL);
	assert_int_equal(wait_for(&w, sftp_write(sftp, h, 3, "hello", 5, answered, &w, NULL)), 0);
	assert_int_equal(wait_for(&r, sftp_read(sftp, h, 2, 100, answered, &r, NULL)), 0);
	assert_int_equal(r.len, 6);
	assert_memory_equal(r.data, "\0hello", 6);
	assert_int_equal(wait_for(&s, sftp_fstat(sftp, h, answered, &s, NULL)), 0);
	assert_int_equal(s.attrs.size, 8);
	/* the end of the file is no error */
	assert_int_equal(wait_for(&e, sftp_read(sftp, h, 8, 100, answered, &e, NULL)), 0);
	assert_int_equal(e.len, 0);
	sftp_close(sftp, h);
	end_real();
}

static void errors_are_errnos(void **state)
{
	struct wait a = { 0 }, b = { 0 }, c = { 0 };

	NEEDS_SFTP_SERVER();
	begin_real();
	assert_int_equal(wait_for(&a, sftp_lstat(sftp, path("none"), answered, &a, NULL)), -ENOENT);
	assert_int_equal(wait_for(&b, sftp_mkdir(sftp, path("d"), NULL, answered, &b, NULL)), 0);
	assert_int_equal(wait_for(&c, sftp_mkdir(sftp, path("d"), NULL, answered, &c, NULL)), -EIO);
	end_real();
}

#define MANY 2000
static void many_calls_are_answered_once_each(void **state)
{
	static struct wait w[MANY];
	unsigned done = 0;

	NEEDS_SFTP_SERVER();
	begin_real();
	memset(w, 0, sizeof(w));
	for (int i = 0; i < MANY; i++)
		assert_int_equal(sftp_lstat(sftp, i % 3 ? dir : path("none"), answered, &w[i], NULL), 0);
	while (done < MANY) {
		RUN_UNTIL(loop, w[done].done);
		while (done < MANY && w[done].done)
			done++;
	}
	for (int i = 0; i < MANY; i++) {
		assert_int_equal(w[i].answers, 1);
		assert_int_equal(w[i].error, i % 3 ? 0 : -ENOENT);
	}
	end_real();
}

static void a_cancelled_call_is_never_answered(void **state)
{
	struct sftp_call *call[100];
	struct wait w[100] = { 0 }, after = { 0 };

	NEEDS_SFTP_SERVER();
	begin_real();
	for (int i = 0; i < 100; i++)
		assert_int_equal(sftp_lstat(sftp, dir, answered, &w[i], &call[i]), 0);
	for (int i = 0; i < 100; i += 2)
		sftp_cancel(call[i]);
	assert_int_equal(wait_for(&after, sftp_lstat(sftp, dir, answered, &after, NULL)), 0);
	for (int i = 0; i < 100; i++)
		assert_int_equal(w[i].answers, i % 2);
	end_real();
}

static unsigned open_files(pid_t pid)
{
	char name[64];
	unsigned n = 0;
	DIR *d;

	snprintf(name, sizeof(name), "/proc/%d/fd", (int)pid);
	d = opendir(name);
	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void an_open_that_is_answered_too_late_is_closed(void **state)
{
	struct wait w = { 0 }, first = { 0 }, last = { 0 };
	struct sftp_call *call;
	unsigned before;

	NEEDS_SFTP_SERVER();
	begin_real();
	sftp_close(sftp, must_open("f", SFTP_WRITABLE | SFTP_CREAT));
	assert_int_equal(wait_for(&first, sftp_lstat(sftp, dir, answered, &first, NULL)), 0);
	before = open_files(peer.server);
	for (int i = 0; i < 300; i++) {
		assert_int_equal(sftp_open(sftp, path("f"), SFTP_READABLE, NULL, answered, &w,
					   &call), 0);
		sftp_cancel(call);
		assert_int_equal(sftp_opendir(sftp, dir, answered, &w, &call), 0);
		sftp_cancel(call);
	}
	/* Two round trips: the handles come back, then their CLOSEs are through. */
	for (int i = 0; i < 2; i++) {
		last.done = false;
		last.answers = 0;
		assert_int_equal(wait_for(&last, sftp_lstat(sftp, dir, answered, &last, NULL)), 0);
	}
	assert_int_equal(w.answers, 0);
	assert_int_equal(open_files(peer.server), before);
	end_real();
}

static void the_death_of_the_server_answers_all(void **state)
{
	static struct wait w[500];

	NEEDS_SFTP_SERVER();
	begin_real();
	memset(w, 0, sizeof(w));
	kill(peer.server, SIGSTOP);
	for (int i = 0; i < 500; i++)
		assert_int_equal(sftp_lstat(sftp, dir, answered, &w[i], NULL), 0);
	kill(peer.server, SIGKILL);
	RUN_UNTIL(loop, !sftp);
	for (int i = 0; i < 500; i++) {
		assert_int_equal(w[i].answers, 1);
		assert_int_equal(w[i].error, -EIO);
	}
	end_real();
}

/* --- 300 MB through the pipeline ---------------------------------------------------- */

#define BIG (300u * 1024 * 1024)
#define PIECE (255u * 1024)

static struct {
	struct sftp_handle *handle;
	uint64_t at, done;		/* bytes asked for, answered */
	uint32_t *sums;
	bool reading;
	size_t most;
} big;

static uint32_t pattern(uint64_t i)
{
	uint64_t x = i * 0x9e3779b97f4a7c15u;

	return (uint32_t)(x >> 32);
}

static void fill(uint8_t *out, uint64_t off, uint32_t len)
{
	for (uint32_t i = 0; i < len; i += 4) {
		uint32_t v = pattern(off + i);

		memcpy(out + i, &v, 4);
	}
}

static void big_step(void);

struct big_call {
	uint64_t off;
	uint32_t len;
};

static void big_answered(void *user, int error, const struct sftp_answer *a)
{
	static uint8_t expected[PIECE];
	struct big_call *c = user;

	assert_int_equal(error, 0);
	if (big.reading) {
		assert_int_equal(a->reply->data.len, c->len);
		fill(expected, c->off, c->len);
		assert_memory_equal(a->reply->data.bytes, expected, c->len);
	}
	big.done += c->len;
	free(c);
	if (big.done == BIG)
		loop_stop(loop);
	else
		big_step();
}

/* As many calls as anybody may make: 64 MiB are asked for, the table lets 4 MiB out. */
static void big_step(void)
{
	static uint8_t data[PIECE];

	while (big.at < BIG && big.at - big.done < 64u * 1024 * 1024) {
		struct big_call *c = malloc(sizeof(*c));
		int r;

		c->off = big.at;
		c->len = BIG - big.at < PIECE ? (uint32_t)(BIG - big.at) : PIECE;
		if (!big.reading) {
			fill(data, c->off, c->len);
			r = sftp_write(sftp, big.handle, c->off, data, c->len, big_answered, c, NULL);
		} else {
			r = sftp_read(sftp, big.handle, c->off, c->len, big_answered, c, NULL);
		}
		assert_int_equal(r, 0);
		big.at += c->len;
		if (buf_size(&peer.out) > big.most)
			big.most = buf_size(&peer.out);
	}
}

static void much_data_goes_through_the_pipeline(void **state)
{
	NEEDS_SFTP_SERVER();
	begin_real();
	if (sftp_max_read(sftp) < PIECE || sftp_max_write(sftp) < PIECE) {
		end_real();
		skip();
	}
	memset(&big, 0, sizeof(big));
	big.handle = must_open("big", SFTP_READABLE | SFTP_WRITABLE | SFTP_CREAT);
	for (int i = 0; i < 2; i++) {
		big.at = big.done = 0;
		big.reading = i;
		big_step();
		RUN_UNTIL(loop, big.done == BIG);
	}
	/* What waited to be sent was bounded. */
	assert_true(big.most <= SFTP_SEND_HIGH + 2 * PIECE);
	sftp_close(sftp, big.handle);
	end_real();
}

/* --- peers played by the test --------------------------------------------------------- */

#define SAY(bytes) say(bytes, sizeof(bytes) - 1)
static void say(const char *bytes, size_t len)
{
	assert_int_equal(write(peer.other, bytes, len), len);
}

/* The greeting of a server without extensions. */
static void begin_played(void)
{
	begin(true);
	SAY("\0\0\0\5\2\0\0\0\3");
	RUN_UNTIL(loop, ready || failed.code);
	assert_true(ready);
}

/* What the table has sent so far. */
static size_t heard(uint8_t *out, size_t size)
{
	size_t len = 0;
	ssize_t n;

	/* Let the loop write: it runs until there is nothing more to do at once. */
	while (buf_size(&peer.out))
		peer_send_out(&peer);
	while ((n = recv(peer.other, out + len, size - len, MSG_DONTWAIT)) > 0)
		len += (size_t)n;
	return len;
}

#define BREAKS(bytes) breaks(bytes, sizeof(bytes) - 1)
/* A call is made with id 0 (an LSTAT) and one with id 1 (an OPEN); the peer says this. */
static void breaks(const char *bytes, size_t len)
{
	struct wait a = { 0 }, b = { 0 };

	begin_played();
	assert_int_equal(sftp_lstat(sftp, "/", answered, &a, NULL), 0);
	assert_int_equal(sftp_open(sftp, "/", SFTP_READABLE, NULL, answered, &b, NULL), 0);
	say(bytes, len);
	RUN_UNTIL(loop, failed.code);
	assert_int_equal(failed.code, -EPROTO);
	assert_true(strlen(failed.text) > 20);
	assert_int_equal(a.answers, 1);
	assert_int_equal(b.answers, 1);
	assert_int_equal(b.error, -EPROTO);
	assert_null(b.handle);
	assert_int_equal(sftp_lstat(sftp, "/", answered, &a, NULL), -EHOSTDOWN);
	end();
}

static void garbage_ends_the_connection(void **state)
{
	BREAKS("GET / HTTP/1.0\r\n\r\n");
	BREAKS("\0\0\0\0");
	BREAKS("\377\377\377\377");
	BREAKS("\0\0\0\1\0");
	BREAKS("\0\0\0\5\377\0\0\0\0");
	/* cut short inside its own length */
	BREAKS("\0\0\0\6e\0\0\0\0\0");
	BREAKS("\0\0\0\13i\0\0\0\0\0\0\0\1\0\0");
}

static void answers_that_fit_no_call_end_the_connection(void **state)
{
	/* a call that was never made; the greeting again */
	BREAKS("\0\0\0\15e\0\0\0\2\0\0\0\0\0\0\0\0");
	BREAKS("\0\0\0\5\2\0\0\0\3");
	/* data for an LSTAT; "OK" for an LSTAT, for an OPEN; attributes for an OPEN */
	BREAKS("\0\0\0\12g\0\0\0\0\0\0\0\1x");
	BREAKS("\0\0\0\11e\0\0\0\0\0\0\0\0");
	BREAKS("\0\0\0\11e\0\0\0\1\0\0\0\0");
	BREAKS("\0\0\0\11i\0\0\0\1\0\0\0\0");
	/* the answer to the LSTAT, twice */
	BREAKS("\0\0\0\11i\0\0\0\0\0\0\0\0\0\0\0\11i\0\0\0\0\0\0\0\0");
}

static void a_handle_that_is_too_long_ends_the_connection(void **state)
{
	char bytes[4 + 9 + 257] = "\0\0\1\12f\0\0\0\1\0\0\1\1";

	breaks(bytes, sizeof(bytes));
}

static void more_data_than_asked_for_ends_the_connection(void **state)
{
	struct sftp_handle h = { .len = 1 };
	struct wait a = { 0 };

	begin_played();
	assert_int_equal(sftp_read(sftp, &h, 0, 3, answered, &a, NULL), 0);
	SAY("\0\0\0\15g\0\0\0\0\0\0\0\4abcd");
	RUN_UNTIL(loop, failed.code);
	assert_int_equal(failed.code, -EPROTO);
	assert_int_equal(a.error, -EPROTO);
	end();
}

static void another_version_is_refused(void **state)
{
	begin(true);
	SAY("\0\0\0\5\2\0\0\0\6");
	RUN_UNTIL(loop, ready || failed.code);
	assert_false(ready);
	assert_int_equal(failed.code, -EPROTO);
	end();
	/* an answer before the greeting */
	begin(true);
	SAY("\0\0\0\11e\0\0\0\0\0\0\0\0");
	RUN_UNTIL(loop, ready || failed.code);
	assert_false(ready);
	end();
}

static void absurd_limits_are_bounded(void **state)
{
	begin(true);
	SAY("\0\0\0\40\2\0\0\0\3\0\0\0\22limits@openssh.com\0\0\0\0011");
	/* everything is without end */
	SAY("\0\0\0\45\311\0\0\0\0"
	    "\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377"
	    "\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377");
	RUN_UNTIL(loop, ready || failed.code);
	assert_true(ready);
	assert_int_equal(sftp_max_read(sftp), 255 * 1024);
	assert_int_equal(sftp_max_write(sftp), 255 * 1024);
	end();
	begin(true);
	SAY("\0\0\0\40\2\0\0\0\3\0\0\0\22limits@openssh.com\0\0\0\0011");
	/* everything is one byte */
	SAY("\0\0\0\45\311\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\1");
	RUN_UNTIL(loop, ready || failed.code);
	assert_true(ready);
	assert_int_equal(sftp_max_read(sftp), 4096);
	assert_int_equal(sftp_max_write(sftp), 4096);
	end();
}

static void answers_may_come_in_any_order_and_in_pieces(void **state)
{
	static const char bytes[] =
		"\0\0\0\11i\0\0\0\2\0\0\0\0" "\0\0\0\11e\0\0\0\0\0\0\0\2" "\0\0\0\11e\0\0\0\1\0\0\0\3";
	struct wait w[3] = { 0 };

	begin_played();
	for (int i = 0; i < 3; i++)
		assert_int_equal(sftp_lstat(sftp, "/", answered, &w[i], NULL), 0);
	for (size_t i = 0; i < sizeof(bytes) - 1; i++) {
		unsigned before = w[0].answers + w[1].answers + w[2].answers;

		sftp_input(sftp, (const uint8_t *)&bytes[i], 1);
		assert_int_equal(w[0].answers + w[1].answers + w[2].answers - before, i % 13 == 12);
	}
	assert_int_equal(w[2].error, 0);
	assert_int_equal(w[0].error, -ENOENT);
	assert_int_equal(w[1].error, -EACCES);
	end();
}

static void what_is_on_the_way_is_bounded_by_bytes(void **state)
{
	static uint8_t seen[1 << 20];
	struct sftp_handle h = { .len = 1 };
	struct wait reads[400] = { 0 }, stat = { 0 };
	struct sftp_call *calls[400];
	size_t len, n = 0;

	begin_played();
	heard(seen, sizeof(seen));
	for (int i = 0; i < 400; i++)
		assert_int_equal(sftp_read(sftp, &h, 0, 32768, answered, &reads[i], &calls[i]), 0);
	assert_int_equal(sftp_room(sftp), 0);
	assert_int_equal(sftp_lstat(sftp, "/", answered, &stat, NULL), 0);
	len = heard(seen, sizeof(seen));
	for (size_t at = 0; at < len; at += 4 + (size_t)seen[at + 3], n++)
		assert_int_equal(seen[at + 4], n < 128 ? SFTP_READ : SFTP_LSTAT);
	/* 4 MiB of READs, and the LSTAT has passed those that wait */
	assert_int_equal(n, 129);
	/* One that waited and was cancelled is never sent: the next one is. */
	sftp_cancel(calls[128]);
	SAY("\0\0\0\11e\0\0\0\0\0\0\0\1");
	RUN_UNTIL(loop, reads[0].done);
	len = heard(seen, sizeof(seen));
	assert_int_equal(len, 4 + seen[3]);
	assert_int_equal(seen[8], 129);
	assert_int_equal(reads[128].answers, 0);
	end();
	assert_int_equal(reads[399].answers, 1);
	assert_int_equal(reads[399].error, -EHOSTDOWN);
}

static void a_cancelled_call_keeps_its_id_until_it_is_answered(void **state)
{
	struct wait a = { 0 }, b = { 0 };
	struct sftp_call *call;
	static uint8_t seen[4096];
	size_t len;

	begin_played();
	assert_int_equal(sftp_open(sftp, "/f", SFTP_READABLE, NULL, answered, &a, &call), 0);
	sftp_cancel(call);
	heard(seen, sizeof(seen));
	SAY("\0\0\0\14f\0\0\0\0\0\0\0\3abc");
	SAY("\0\0\0\11i\0\0\0\1\0\0\0\0");
	assert_int_equal(wait_for(&b, sftp_lstat(sftp, "/", answered, &b, NULL)), 0);
	assert_int_equal(a.answers, 0);
	/* LSTAT, and CLOSE of the handle that came too late */
	len = heard(seen, sizeof(seen));
	assert_int_equal(seen[4], SFTP_LSTAT);
	assert_true(len > 18);
	assert_memory_equal(seen + len - 16, "\0\0\0\14\4\0\0\0\2\0\0\0\3abc", 16);
	end();
}

static void a_silent_server_is_given_up(void **state)
{
	struct wait a = { 0 };

	begin_played();
	assert_int_equal(sftp_lstat(sftp, "/", answered, &a, NULL), 0);
	sftp_set_patience(sftp, 20);
	RUN_UNTIL(loop, failed.code);
	assert_int_equal(failed.code, -ETIMEDOUT);
	assert_int_equal(a.error, -ETIMEDOUT);
	assert_int_equal(a.answers, 1);
	end();
}

static bool later;

static void on_later(struct loop_timer *t)
{
	later = true;
	loop_stop(loop);
}

/* Behind the WRITEs of a channel beside it, on a slow line, a call may wait for minutes. */
static void no_answer_is_owed_to_what_was_not_sent(void **state)
{
	struct loop_timer timer = { 0 };
	static uint8_t seen[4096];
	struct wait a = { 0 };

	begin_played();
	heard(seen, sizeof(seen));
	later = false;
	sftp_stop(sftp, true);
	assert_int_equal(sftp_lstat(sftp, "/", answered, &a, NULL), 0);
	sftp_set_patience(sftp, 10);
	loop_timer_set(loop, &timer, 200, on_later);
	RUN_UNTIL(loop, later || failed.code);
	assert_int_equal(failed.code, 0);
	assert_int_equal(a.answers, 0);
	/* Now it is. */
	sftp_stop(sftp, false);
	assert_int_equal(failed.code, 0);
	RUN_UNTIL(loop, failed.code);
	assert_int_equal(failed.code, -ETIMEDOUT);
	assert_int_equal(a.error, -ETIMEDOUT);
	assert_int_equal(a.answers, 1);
	loop_timer_cancel(&timer);
	end();
}

static void destroy_within_an_answer(void *user, int error, const struct sftp_answer *a)
{
	struct sftp *gone = sftp;

	if (!gone)
		return;
	sftp = NULL;
	sftp_destroy(gone, -EHOSTDOWN);
	loop_stop(loop);
}

static void it_may_be_destroyed_from_an_answer(void **state)
{
	struct wait other = { 0 };

	begin_played();
	assert_int_equal(sftp_lstat(sftp, "/", destroy_within_an_answer, NULL, NULL), 0);
	assert_int_equal(sftp_lstat(sftp, "/", answered, &other, NULL), 0);
	SAY("\0\0\0\11i\0\0\0\0\0\0\0\0\0\0\0\11i\0\0\0\1\0\0\0\0");
	RUN_UNTIL(loop, !sftp);
	assert_int_equal(other.answers, 1);
	assert_int_equal(other.error, -EHOSTDOWN);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_server_is_greeted),
		cmocka_unit_test(a_file_is_written_and_read),
		cmocka_unit_test(errors_are_errnos),
		cmocka_unit_test(many_calls_are_answered_once_each),
		cmocka_unit_test(a_cancelled_call_is_never_answered),
		cmocka_unit_test(an_open_that_is_answered_too_late_is_closed),
		cmocka_unit_test(the_death_of_the_server_answers_all),
		cmocka_unit_test(much_data_goes_through_the_pipeline),
		cmocka_unit_test(garbage_ends_the_connection),
		cmocka_unit_test(answers_that_fit_no_call_end_the_connection),
		cmocka_unit_test(a_handle_that_is_too_long_ends_the_connection),
		cmocka_unit_test(more_data_than_asked_for_ends_the_connection),
		cmocka_unit_test(another_version_is_refused),
		cmocka_unit_test(absurd_limits_are_bounded),
		cmocka_unit_test(answers_may_come_in_any_order_and_in_pieces),
		cmocka_unit_test(what_is_on_the_way_is_bounded_by_bytes),
		cmocka_unit_test(a_cancelled_call_keeps_its_id_until_it_is_answered),
		cmocka_unit_test(a_silent_server_is_given_up),
		cmocka_unit_test(no_answer_is_owed_to_what_was_not_sent),
		cmocka_unit_test(it_may_be_destroyed_from_an_answer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
