/*
 * A guest that is lost in the middle of everything: whatever was under way (reads, writes, a
 * copy, listings, calls about names) is answered once, nothing that is told is wrong, and the
 * disk goes on. The same again and again, lost one packet later each time, in each of the
 * ways in which a guest can be lost.
 */
#include "test.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "disk.h"
#include "disk_guest.h"
#include "err.h"
#include "file.h"

#define PART (128 * 1024)
#define BIG (6 * PART)		/* more than one window of readahead begins with */
#define LONG (6 * BIG)		/* BIG again and again */
#define NAMES 250		/* three answers of the server */

enum how { SERVER_KILLED, KILLED_TWICE, LINK_CUT, NONSENSE, DISK_GONE };
static enum how how;
static bool is_lost;
static long packets_again;	/* KILLED_TWICE: those of the next server */

/* What a server says before calls are answered: its version, its limits, who we are (twice). */
#define GREETING 4

static struct disk *disk;
static struct disk_cache *cache;
static struct entry *top;
static char dir[64];
static uint8_t big[BIG];
static struct ssh *const the_ssh = (struct ssh *)&channel;	/* never looked at */

static const char *guest(const char *name)
{
	static char text[2][512];
	static int next;
	char *p = text[next++ % 2];

	snprintf(p, 512, "%s/%s", dir, name);
	return p;
}

static void guest_writes(const char *name, const void *data, size_t len)
{
	FILE *f = fopen(guest(name), "w");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static bool guest_has(const char *name, const void *data, size_t len)
{
	uint8_t *got = malloc(len + 1);
	FILE *f = fopen(guest(name), "r");
	bool same = f && fread(got, 1, len + 1, f) == len && !memcmp(got, data, len);

	if (f)
		fclose(f);
	free(got);
	return same;
}

/* --- the end of the guest ----------------------------------------------------------------- */

static void lose(struct ssh_channel *c)
{
	const struct ssh_channel_ops *ops = c->ops;
	struct ssh_exit killed = { .requested = true, .status = -1, .signal = "KILL" };

	is_lost = true;
	if (how == NONSENSE) {
		/* the length of a packet that nobody would send */
		ops->data(c->user, 0, (const uint8_t *)"\xff\xff\xff\xff", 4);
		return;
	}
	if (how == DISK_GONE) {
		disk_destroy(disk);
		disk = NULL;
		return;
	}
	if (how == KILLED_TWICE && packets_again) {
		packets_left = GREETING + packets_again;
		packets_again = 0;
	}
	peer_hang_up(&c->peer);
	c->ops = NULL;
	if (how == LINK_CUT)
		killed.error = -EHOSTDOWN;
	if (ops)
		ops->closed(c->user, &killed);
	if (how == LINK_CUT) {
		disk_detach(disk);
		disk_attach(disk, the_ssh, false);
	}
}

/* --- what is under way -------------------------------------------------------------------- */

/* A call, accepted: its answer comes once. */
struct call {
	const char *what;
	bool made, answered;
	int error;
	struct file *file;
	struct listing *listing;
};
static struct call calls[32];
static unsigned made;

static struct call *call(const char *what)
{
	struct call *c = &calls[made++];

	assert_true(made <= sizeof(calls) / sizeof(calls[0]));
	*c = (struct call){ .what = what };
	return c;
}

/* As the tree does: who is answered may at once want something else. */
static void go_on(void)
{
	if (disk)
		disk_ready(disk);
	loop_stop(loop);
}

static void note(struct call *c, int error)
{
	if (c->answered)
		fail_msg("%s was answered twice", c->what);
	c->answered = true;
	c->error = error;
	go_on();
}

static void on_answer(void *user, int error, const struct disk_answer *a)
{
	struct call *c = user;

	if (error == 0) {
		c->file = a->file;
		c->listing = a->listing;
	}
	note(c, error);
}

static void on_data(void *user, int error, const void *data, size_t len)
{
	note(user, error);
}

static void accept_call(struct call *c, int r)
{
	c->made = r == 0;
	if (r < 0)
		c->error = r;
}

#define ASK(what, f, ...)							\
	do {									\
		struct call *c_ = call(what);					\
		struct disk_call *unused_;					\
										\
		accept_call(c_, f(disk, __VA_ARGS__, on_answer, c_, &unused_));	\
	} while (0)
#define ASK_FILE(what, f, ...)							\
	do {									\
		struct call *c_ = call(what);					\
		struct file_call *unused_;					\
										\
		accept_call(c_, f(__VA_ARGS__, on_data, c_, &unused_));		\
	} while (0)

static bool all_answered(void)
{
	for (unsigned i = 0; i < made; i++)
		if (calls[i].made && !calls[i].answered)
			return false;
	return true;
}

static const struct call *find(const char *what)
{
	for (unsigned i = 0; i < made; i++)
		if (!strcmp(calls[i].what, what))
			return &calls[i];
	fail_msg("no %s", what);
	return NULL;
}

/* A reader that goes on to the end of the file, and asks again what the server did not answer. */
struct reader {
	struct file *file;
	off_t at;
	bool waits;
	int error;
	bool finished;
};
static struct reader readers[3];

static void reader_came(void *user, int error, const void *data, size_t len)
{
	struct reader *r = user;

	assert_true(r->waits);
	r->waits = false;
	if (error == 0) {
		assert_true(r->at + (off_t)len <= BIG);
		assert_memory_equal(data, big + r->at, len);
		r->at += (off_t)len;
		r->finished = len == 0;
		if (len > 0 && len < PART)
			assert_int_equal(r->at, BIG);
	} else if (error != -ESHUTDOWN) {
		r->error = error;
	}
	go_on();
}

/* True: there is something to wait for. */
static bool reader_step(struct reader *r)
{
	struct file_call *unused;
	int error;

	if (r->finished || r->error)
		return false;
	if (r->waits)
		return true;
	error = disk ? disk_ready(disk) : -ESTALE;
	if (error == 0)
		error = file_ready(r->file);
	if (error == 0) {
		error = file_read(r->file, r->at, PART, reader_came, r, &unused);
		r->waits = error == 0;
	}
	if (error != -EAGAIN)
		r->error = error;
	return !r->error;
}

static void wake(struct waiter *w)
{
	loop_stop(loop);
}

/* Until nobody waits any more. */
static void run_all(void)
{
	struct loop_timer late = { 0 };
	bool waiting = true;

	loop_timer_set(loop, &late, PATIENCE_MS, peer_too_late);
	while (waiting) {
		struct waiter news, reopened[3];

		waiting = !all_answered();
		for (unsigned i = 0; i < 3; i++)
			waiting |= reader_step(&readers[i]);
		if (!waiting)
			break;
		waiter_init(&news, wake);
		if (disk)
			wait_add(disk_news(disk), &news);
		for (unsigned i = 0; i < 3; i++) {
			waiter_init(&reopened[i], wake);
			wait_add(file_news(readers[i].file), &reopened[i]);
		}
		loop_run(loop);
		wait_cancel(&news);
		for (unsigned i = 0; i < 3; i++)
			wait_cancel(&reopened[i]);
	}
	loop_timer_cancel(&late);
}

/* --- one round ---------------------------------------------------------------------------- */

static void must_be_ready(void)
{
	struct waiter w;
	int r;

	while ((r = disk_ready(disk)) == -EAGAIN) {
		waiter_init(&w, wake);
		wait_add(disk_news(disk), &w);
		loop_run(loop);
		wait_cancel(&w);
	}
	assert_int_equal(r, 0);
}

static struct file *opened(const char *name, int flags)
{
	struct entry *e = entry_get(top, name);
	struct file *f;

	ASK(name, disk_open, e, flags);
	RUN_UNTIL(loop, all_answered());
	assert_int_equal(calls[made - 1].error, 0);
	f = calls[made - 1].file;
	calls[made - 1].file = NULL;
	entry_unref(e);
	return f;
}

static void begin(void)
{
	const char *const names[] = { "tmp", dir + 5 };

	made = 0;
	is_lost = false;
	cache = disk_cache_create(loop, 1 << 20);
	disk = disk_create(loop, cache);
	disk_attach(disk, the_ssh, false);
	must_be_ready();
	top = entry_ref(disk_root(disk));
	for (int i = 0; i < 2; i++) {
		struct entry *child = entry_get(top, names[i]);

		entry_unref(top);
		top = child;
	}
}

static void remove_leftovers(void)
{
	static const char *const names[] = { "new", "link", "moved" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		remove(guest(names[i]));
	guest_writes("out", "", 0);
	guest_writes("copy", "", 0);
	guest_writes("old", "old", 3);
	guest_writes("gone", "gone", 4);
	guest_writes("aside", "aside", 5);
}

static void start_names(struct entry *many, struct entry *file)
{
	struct entry *aside = entry_get(top, "aside");
	const struct stat st = { .st_mode = 0640, .st_atime = 1000000000, .st_mtime = 1000000000 };

	ASK("listing", disk_opendir, many);
	ASK("lookup", disk_lookup, top, "old");
	ASK("missing", disk_lookup, top, "none");
	ASK("getattr", disk_getattr, file, NULL);
	ASK("setattr", disk_setattr, aside, NULL, &st, DISK_SET_MODE | DISK_SET_MTIME);
	ASK("mkdir", disk_mkdir, top, "new", 0700);
	ASK("symlink", disk_symlink, top, "link", "big");
	ASK("unlink", disk_unlink, top, "gone");
	ASK("rename", disk_rename, top, "old", top, "moved", false);
	ASK("statfs", disk_statfs, top);
	ASK("open", disk_open, file, O_RDONLY);
	entry_unref(aside);
}

/* What was told is true. */
static void check(struct entry *many)
{
	struct listing *known = disk ? disk_opendir_now(many) : NULL;
	const struct listing *l = find("listing")->listing;
	bool written = find("write 1")->error == 0 && find("write 2")->error == 0 &&
		       find("fsync")->error == 0 && find("flush")->error == 0;

	if (known)
		assert_int_equal(listing_count(known), NAMES);
	listing_close(known);
	if (l && listing_ready(find("listing")->listing) == 0)
		assert_int_equal(listing_count(l), NAMES);
	if (written)
		assert_true(guest_has("out", big, BIG));
	if (find("copy")->error == 0)
		assert_true(guest_has("copy", big, BIG));
	assert_true(written || is_lost);
	if (is_lost && how != SERVER_KILLED && how != KILLED_TWICE)
		return;
	/* The end of a server alone is told as such, and costs nobody who reads. */
	for (unsigned i = 0; i < made; i++)
		if (calls[i].error == -EHOSTDOWN || calls[i].error == -ESTALE)
			fail_msg("%s: error %d", calls[i].what, calls[i].error);
	for (unsigned i = 0; i < 3; i++)
		if (!readers[i].finished)
			fail_msg("reader %u: error %d at %ld", i, readers[i].error,
				 (long)readers[i].at);
}

static bool is_whole(const char *name)
{
	uint8_t *all = malloc(LONG);
	bool same;

	for (size_t at = 0; at < LONG; at += BIG)
		memcpy(all + at, big, BIG);
	same = guest_has(name, all, LONG);
	free(all);
	return same;
}

/* The disk goes on, unless it is gone or has been told nonsense. */
static void finish(struct file **files, unsigned count)
{
	if (disk && how != NONSENSE) {
		must_be_ready();
		made = 0;
		file_close(opened("big", O_RDONLY));
	}
	for (unsigned i = 0; i < count; i++)
		file_close(files[i]);
	entry_unref(top);
	disk_destroy(disk);
	disk = NULL;
	disk_cache_unref(cache);
	channels_end();
}

/* Who was given a file or a listing by a call closes it. */
static void close_given(void)
{
	for (unsigned i = 0; i < made; i++) {
		file_close(calls[i].file);
		listing_close(calls[i].listing);
	}
}

/* True: the guest was lost, after so many packets. */
static bool round_of(long packets)
{
	struct entry *many, *file;
	struct file *out, *copy, *in;

	remove_leftovers();
	begin();
	many = entry_get(top, "many");
	file = entry_get(top, "big");
	out = opened("out", O_RDWR);
	copy = opened("copy", O_WRONLY);
	in = opened("big", O_RDONLY);
	for (unsigned i = 0; i < 3; i++)
		readers[i] = (struct reader){ .file = opened("big", O_RDONLY),
					      .at = i == 2 ? BIG / 2 : 0 };
	made = 0;
	packets_left = packets;
	packets_again = 1 + packets % 7;
	at_the_end = lose;
	for (unsigned i = 0; i < 3; i++)
		reader_step(&readers[i]);
	ASK_FILE("write 1", file_write, out, 0, big, BIG / 2);
	ASK_FILE("copy", file_copy, in, 0, copy, 0, BIG);
	start_names(many, file);
	ASK_FILE("write 2", file_write, out, BIG / 2, big + BIG / 2, BIG / 2);
	ASK_FILE("fsync", file_fsync, out);
	ASK_FILE("flush", file_flush, out);
	run_all();
	packets_left = -1;
	check(many);
	close_given();
	entry_unref(many);
	entry_unref(file);
	finish((struct file *[]){ out, copy, in, readers[0].file, readers[1].file, readers[2].file },
	       6);
	return is_lost;
}

/*
 * A file that is written from front to back over two channels (stripe.c). The packets of both are
 * counted: the one that is lost is the one that the last of them came on.
 */
static bool long_write_of(long packets)
{
	bool failed = false;
	struct file *out;

	remove_leftovers();
	begin();
	disk_spread_from(disk, 0, PART);
	out = opened("out", O_RDWR);
	channels = 0;
	made = 0;
	packets_left = packets;
	packets_again = 0;
	at_the_end = lose;
	for (off_t at = 0; at < LONG && disk && !failed; at += PART) {
		made = 0;
		ASK_FILE("write", file_write, out, at, big + at % BIG, PART);
		if (at % (4 * PART) == 0 && disk_ready(disk) == 0)
			ASK("lookup", disk_lookup, top, "old");
		RUN_UNTIL(loop, all_answered());
		failed = calls[0].error < 0;
	}
	made = 0;
	ASK_FILE("flush", file_flush, out);
	RUN_UNTIL(loop, all_answered());
	packets_left = -1;
	failed |= find("flush")->error < 0;
	assert_true(failed || is_whole("out"));
	assert_true(failed || is_lost || channels == 1);
	finish((struct file *[]){ out }, 1);
	return is_lost;
}

static void rounds(enum how h)
{
	long n = 1;

	how = h;
	while (round_of(n))
		n++;
	/* It was lost in the middle of everything, and not only at the beginning. */
	assert_true(n > 30);
	n = 1;
	while (long_write_of(n))
		n++;
	assert_true(n > 30);
}

#define TEST(name, h)					\
	static void name(void **state)			\
	{						\
		NEEDS_SFTP_SERVER();			\
		rounds(h);				\
	}

TEST(a_server_that_is_killed_is_no_fault_of_ours, SERVER_KILLED)
TEST(nor_one_that_is_killed_while_files_are_opened_again, KILLED_TWICE)
TEST(a_link_that_is_cut_answers_everything, LINK_CUT)
TEST(nonsense_ends_the_connection_and_nothing_else, NONSENSE)
TEST(a_disk_that_goes_away_answers_everything, DISK_GONE)

static int setup(void **state)
{
	if (!sftp_server_path())
		return 0;
	loop = loop_create();
	strcpy(dir, "/tmp/sbxfs-lost-XXXXXX");
	assert_non_null(mkdtemp(dir));
	for (size_t i = 0; i < BIG; i++)
		big[i] = (uint8_t)(i ^ i >> 8 ^ i >> 16);
	guest_writes("big", big, BIG);
	assert_int_equal(mkdir(guest("many"), 0700), 0);
	for (int i = 0; i < NAMES; i++) {
		char name[32];

		snprintf(name, sizeof(name), "many/%d", i);
		guest_writes(name, "", 0);
	}
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	if (!sftp_server_path())
		return 0;
	loop_destroy(loop);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_server_that_is_killed_is_no_fault_of_ours),
		cmocka_unit_test(nor_one_that_is_killed_while_files_are_opened_again),
		cmocka_unit_test(a_link_that_is_cut_answers_everything),
		cmocka_unit_test(nonsense_ends_the_connection_and_nothing_else),
		cmocka_unit_test(a_disk_that_goes_away_answers_everything),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
