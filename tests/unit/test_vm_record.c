/* The KVM backend's record of a VM, what it knows about KVM here, and last words. */
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "accel.h"
#include "err.h"
#include "process.h"
#include "record.h"

static char dir[64];

static int setup(void **state)
{
	strcpy(dir, "/tmp/sbxfs-test-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", dir);
	return system(command);
}

static void put(const char *file, const char *text, size_t len)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	fclose(f);
}

static const struct record whole = {
	.name = "web",
	.spec = { .image = "debian",
		  .cpus = 2,
		  .memory = 1ull << 30,
		  .disk = 40ull << 30,
		  .tag = "0123abcd",
		  .name = "shown",
		  .from = "other",
		  .from_snapshot = "before",
		  .no_network = true },
	.image_dir = "/images/.store/debian \"1\"",
	.machine_id = "0123456789abcdef0123456789abcdef",
	.created = 1700000000,
	.phase = PHASE_FAILED,
	.made = true,
	.stopping = true,
	.paused = true,
	.can_clone = true,
	.layer = "0123456789abcdef",
	.next_layer = "fedcba9876543210",
	.base = "/images/.store/x/templates/t",
	.incoming = "/state/.layers/0123456789abcdef",
	.cloning = true,
	.start_why = "no template",
	.snapshots = { { "first", "1111111111111111", 1700000000123 },
		       { "second", "2222222222222222", 1700000001456 } },
	.snapshot_count = 2,
	.accel = "tcg",
	.accel_why = "KVM said \"no\"",
	.pid = 4711,
	.pid_start = 123456789012,
	.net_pid = 4712,
	.net_start = 123456789013,
	.qemu_network = true,
	.run_dir = "/run/user/1000/sbxfs/kvm",
	.boot_id = "b",
	.port = 40000,
	.ready = true,
	.why = { -EIO, "it died" },
};

static void a_record_comes_back_as_it_was(void **state)
{
	struct record back;

	assert_int_equal(record_save(&whole, dir, NULL), 0);
	assert_int_equal(record_load(&back, dir, NULL), 0);
	assert_string_equal(back.name, whole.name);
	assert_memory_equal(&back.spec, &whole.spec, sizeof(whole.spec));
	assert_string_equal(back.image_dir, whole.image_dir);
	assert_string_equal(back.machine_id, whole.machine_id);
	assert_int_equal(back.created, whole.created);
	assert_int_equal(back.phase, whole.phase);
	assert_true(back.made && back.stopping && back.ready && back.paused && back.cloning &&
		    back.can_clone);
	assert_string_equal(back.layer, whole.layer);
	assert_string_equal(back.next_layer, whole.next_layer);
	assert_string_equal(back.base, whole.base);
	assert_string_equal(back.incoming, whole.incoming);
	assert_string_equal(back.start_why, whole.start_why);
	assert_int_equal(back.snapshot_count, 2);
	assert_memory_equal(&back.snapshots, &whole.snapshots, sizeof(whole.snapshots));
	assert_string_equal(back.accel, whole.accel);
	assert_string_equal(back.accel_why, whole.accel_why);
	assert_int_equal(back.pid, whole.pid);
	assert_int_equal(back.pid_start, whole.pid_start);
	assert_int_equal(back.net_pid, whole.net_pid);
	assert_int_equal(back.net_start, whole.net_start);
	assert_true(back.qemu_network);
	assert_string_equal(back.run_dir, whole.run_dir);
	assert_string_equal(back.boot_id, whole.boot_id);
	assert_int_equal(back.port, whole.port);
	assert_int_equal(back.why.code, -EIO);
	assert_string_equal(back.why.text, "it died");
}

/* One that was written before there were layers and snapshots. */
static void an_old_record_still_loads(void **state)
{
	static const char text[] =
		"{\"version\": 1, \"name\": \"web\", \"tag\": \"t\", \"image\": \"debian\","
		" \"image_dir\": \"/i\", \"cpus\": 2, \"memory\": 268435456, \"disk\": 4294967296,"
		" \"machine_id\": \"0123456789abcdef0123456789abcdef\", \"created\": 1,"
		" \"phase\": \"stopped\", \"made\": true}";
	struct record back;

	put("vm.json", text, sizeof(text) - 1);
	assert_int_equal(record_load(&back, dir, NULL), 0);
	assert_int_equal(back.phase, PHASE_STOPPED);
	assert_string_equal(back.layer, "");
	assert_int_equal(back.snapshot_count, 0);
	assert_true(back.qemu_network);		/* there was nothing else */
	assert_string_equal(back.run_dir, "");
}

static void a_network_of_ours_is_remembered(void **state)
{
	struct record ours = whole, back;

	ours.qemu_network = false;
	assert_int_equal(record_save(&ours, dir, NULL), 0);
	assert_int_equal(record_load(&back, dir, NULL), 0);
	assert_false(back.qemu_network);
}

static void every_phase_has_a_name(void **state)
{
	struct record rec = whole, back;

	for (int p = PHASE_NEW; p <= PHASE_DESTROYING; p++) {
		rec.phase = (enum phase)p;
		assert_int_equal(record_save(&rec, dir, NULL), 0);
		assert_int_equal(record_load(&back, dir, NULL), 0);
		assert_int_equal(back.phase, p);
	}
}

static void a_damaged_record_is_an_error(void **state)
{
	static const char *const texts[] = { "", "{", "[]", "{\"version\": 1}",
					     "{\"version\": 2}" };
	struct record back;
	struct err err;

	assert_int_equal(record_load(&back, dir, &err), -ENOENT);
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		put("vm.json", texts[i], strlen(texts[i]));
		assert_int_equal(record_load(&back, dir, &err), -EBADMSG);
		assert_non_null(strstr(err.text, "damaged"));
	}
}

static void a_record_that_cannot_be_written_leaves_the_old_one(void **state)
{
	struct record rec = whole, back;
	char path[128];

	assert_int_equal(record_save(&whole, dir, NULL), 0);
	snprintf(path, sizeof(path), "%s/vm.json.new", dir);
	assert_int_equal(mkdir(path, 0700), 0); /* in the way */
	strcpy(rec.accel, "kvm");
	assert_true(record_save(&rec, dir, NULL) < 0);
	assert_int_equal(record_load(&back, dir, NULL), 0);
	assert_string_equal(back.accel, "tcg");
}

/* --- KVM here ------------------------------------------------------------------ */

static void what_was_found_is_remembered(void **state)
{
	struct accel a;
	const char *why;

	accel_init(&a, dir, "/bin/sh");
	assert_int_equal(accel_lookup(&a, "/i/debian-1", &why), ACCEL_UNKNOWN);
	accel_store(&a, "/i/debian-1", ACCEL_TCG, "internal error");
	accel_store(&a, "/i/debian-2", ACCEL_KVM, "");
	accel_finish(&a);
	accel_init(&a, dir, "/bin/sh");
	assert_int_equal(accel_lookup(&a, "/i/debian-1", &why), ACCEL_TCG);
	assert_string_equal(why, "internal error");
	assert_int_equal(accel_lookup(&a, "/i/debian-2", &why), ACCEL_KVM);
	assert_int_equal(accel_lookup(&a, "/i/debian-3", &why), ACCEL_UNKNOWN);
	accel_finish(&a);
	accel_init(&a, dir, "/bin/true"); /* another QEMU: tried again */
	assert_int_equal(accel_lookup(&a, "/i/debian-1", &why), ACCEL_UNKNOWN);
	accel_finish(&a);
}

static void a_damaged_memory_is_no_memory(void **state)
{
	struct accel a;
	const char *why;

	put(".accel.json", "{\"found\": 3", 10);
	accel_init(&a, dir, "/bin/sh");
	accel_store(&a, "/i", ACCEL_KVM, "");
	assert_int_equal(accel_lookup(&a, "/i", &why), ACCEL_KVM);
	accel_finish(&a);
}

/* --- processes ------------------------------------------------------------------- */

static void a_process_is_known_by_its_start(void **state)
{
	assert_true(process_start(getpid()) > 0);
	assert_true(process_start(1) < process_start(getpid()));
	assert_int_equal(process_start(0x7ffffff0), 0);
}

static void a_lock_is_held_once(void **state)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/lock", dir);
	fd = process_lock(path);
	assert_true(fd >= 0);
	assert_int_equal(process_lock(path), -EWOULDBLOCK);
	close(fd);
	fd = process_lock(path);
	assert_true(fd >= 0);
	close(fd);
}

static void last_words_are_the_last_line(void **state)
{
	static const struct {
		const char *text, *words;
	} cases[] = {
		{ "", "" },
		{ "\n\n", "" },
		{ "one\ntwo\r\n\n", "two" },
		{ "one\n\033[0;32m  OK  \033[0m Reached \033[1mtarget\033[m",
		  "OK   Reached target" },
	};
	char path[128], words[64];

	snprintf(path, sizeof(path), "%s/console", dir);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		put("console", cases[i].text, strlen(cases[i].text));
		last_words(path, words, sizeof(words));
		assert_string_equal(words, cases[i].words);
	}
	last_words("/nonexistent", words, sizeof(words));
	assert_string_equal(words, "");
}

static void words_are_found_behind_a_mark(void **state)
{
	static const char text[] = "[ 1.0] panic: no init\r\nCPU: 0\n---[ end ]---\n";
	char path[128], words[64], *long_text = calloc(1, 20000);

	snprintf(path, sizeof(path), "%s/console", dir);
	put("console", text, strlen(text));
	assert_true(words_behind(path, 0, "panic: ", words, sizeof(words)));
	assert_string_equal(words, "no init");
	assert_false(words_behind(path, 10, "panic: ", words, sizeof(words)));
	assert_false(words_behind(path, 1000, "panic: ", words, sizeof(words)));
	assert_false(words_behind("/nonexistent", 0, "panic: ", words, sizeof(words)));
	memset(long_text, '.', 15000);
	strcat(long_text, text);
	put("console", long_text, strlen(long_text));
	assert_true(words_behind(path, 100, "panic: ", words, sizeof(words)));
	assert_string_equal(words, "no init");
	free(long_text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_record_comes_back_as_it_was, setup, teardown),
		cmocka_unit_test_setup_teardown(every_phase_has_a_name, setup, teardown),
		cmocka_unit_test_setup_teardown(an_old_record_still_loads, setup, teardown),
		cmocka_unit_test_setup_teardown(a_network_of_ours_is_remembered, setup, teardown),
		cmocka_unit_test_setup_teardown(a_damaged_record_is_an_error, setup, teardown),
		cmocka_unit_test_setup_teardown(a_record_that_cannot_be_written_leaves_the_old_one,
						setup, teardown),
		cmocka_unit_test_setup_teardown(what_was_found_is_remembered, setup, teardown),
		cmocka_unit_test_setup_teardown(a_damaged_memory_is_no_memory, setup, teardown),
		cmocka_unit_test(a_process_is_known_by_its_start),
		cmocka_unit_test_setup_teardown(a_lock_is_held_once, setup, teardown),
		cmocka_unit_test_setup_teardown(last_words_are_the_last_line, setup, teardown),
		cmocka_unit_test_setup_teardown(words_are_found_behind_a_mark, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
