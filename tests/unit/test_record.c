/* The record of a sandbox as JSON and back; what a daemon of before wrote. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "store.h"

static const struct record whole = {
	.id = "web-1a2b",
	.name = "renamed",
	.backend = "kvm",
	.spec = { .image = "debian \"12\"", .cpus = 3, .memory = UINT64_MAX - 1, .disk = 40ull << 30,
		  .tag = "0123abcd", .name = "web", .from = "base", .from_snapshot = "s1",
		  .no_network = true, .extra = "colour red\nsize 4\n" },
	.created = 1700000000123,
	.made = true,
	.foreign = true,
	.protect = true,
	.tags = "ci nightly",
	.comment = "a \\ line with \xc3\xbc and \"quotes\"",
	.ttl = 28800000,
	.idle = 1800000,
	.expires = 1700028800123,
	.trashed = 1700000001000,
	.was_running = true,
	.revive = true,
	.setup = SETUP_STARTED,
	.placed = "not fake: [limits] memory",
	.ports = { 53, 8080, 65535 },
	.port_count = 3,
};

static struct record round_trip(const struct record *r)
{
	char *text = store_print(r);
	struct record back;

	memset(&back, 0xff, sizeof(back));
	assert_int_equal(store_parse(text, &back), 0);
	free(text);
	return back;
}

static void a_record_comes_back_as_it_was(void **state)
{
	struct record back = round_trip(&whole);

	assert_string_equal(back.id, whole.id);
	assert_string_equal(back.name, whole.name);
	assert_string_equal(back.backend, whole.backend);
	assert_string_equal(back.spec.image, whole.spec.image);
	assert_true(back.spec.memory == whole.spec.memory && back.spec.disk == whole.spec.disk);
	assert_int_equal(back.spec.cpus, 3);
	assert_string_equal(back.spec.name, "web");
	assert_string_equal(back.spec.from, "base");
	assert_string_equal(back.spec.from_snapshot, "s1");
	assert_string_equal(back.spec.extra, whole.spec.extra);
	assert_true(back.spec.no_network && back.made && !back.destroying && back.foreign);
	assert_true(back.protect && back.was_running && back.revive);
	assert_string_equal(back.tags, whole.tags);
	assert_string_equal(back.comment, whole.comment);
	assert_true(back.created == whole.created && back.ttl == whole.ttl);
	assert_true(back.idle == whole.idle && back.expires == whole.expires);
	assert_true(back.trashed == whole.trashed);
	assert_int_equal(back.setup, SETUP_STARTED);
	assert_string_equal(back.placed, whole.placed);
	assert_int_equal(back.port_count, 3);
	assert_memory_equal(back.ports, whole.ports, 3 * sizeof(whole.ports[0]));
}

static void every_state_comes_back(void **state)
{
	struct record r = whole;

	for (unsigned s = SETUP_NONE; s <= SETUP_DONE; s++) {
		r.setup = (enum setup_state)s;
		assert_int_equal(round_trip(&r).setup, s);
	}
	r.made = false;
	assert_true(!round_trip(&r).made && !round_trip(&r).destroying);
	r.destroying = true;
	assert_true(round_trip(&r).destroying);
}

static void one_of_before_has_its_name_as_its_id(void **state)
{
	static const char old[] =
		"{\"name\":\"web\",\"backend\":\"kvm\",\"state\":\"made\",\"image\":\"debian\","
		"\"cpus\":2,\"memory\":\"1073741824\",\"disk\":\"10737418240\",\"tag\":\"ab\","
		"\"created\":1700000000000}";
	struct record r;

	assert_int_equal(store_parse(old, &r), 0);
	assert_string_equal(r.id, "web");
	assert_string_equal(r.spec.name, "web");
	assert_true(r.made && r.spec.memory == 1ull << 30);
	assert_true(!r.ttl && !r.expires && !r.trashed && !r.protect && !r.port_count);
}

static void what_is_no_record(void **state)
{
	static const char *const texts[] = { "", "{", "[]", "{}", "{\"name\":\"web\"}",
					     "{\"backend\":\"kvm\"}", "{\"name\":3,\"backend\":4}" };
	struct record r;

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		assert_true(store_parse(texts[i], &r) < 0);
	/* Ports that are none are passed over. */
	assert_int_equal(store_parse("{\"name\":\"a\",\"backend\":\"b\",\"ports\":[0,-1,70000,\"x\",22]}",
				     &r), 0);
	assert_int_equal(r.port_count, 1);
	assert_int_equal(r.ports[0], 22);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_record_comes_back_as_it_was),
		cmocka_unit_test(every_state_comes_back),
		cmocka_unit_test(one_of_before_has_its_name_as_its_id),
		cmocka_unit_test(what_is_no_record),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
