/* Link texts: what the guest would find is found, and nothing leads outside. */
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "link.h"

static void gives(const char *dir, const char *text, const char *expected)
{
	char out[4096] = "";
	int r = link_contain(dir, text, strlen(text), out, sizeof(out));

	if (r != 0 || strcmp(out, expected))
		fail_msg("link %s in %s: %d \"%s\", not \"%s\"", text, dir, r, out, expected);
}

static void relative_texts_stay_as_they_are(void **state)
{
	gives("/etc", "hosts", "hosts");
	gives("/etc", "alternatives/vi", "alternatives/vi");
	gives("/usr/bin", "../lib/x", "../lib/x");
	gives("/usr/bin", "../../etc/x", "../../etc/x");
	gives("/", "etc", "etc");
	gives("/etc", "...", "...");
	gives("/etc", "..a/.b", "..a/.b");
	gives("/proc/1/fd", "pipe:[12]", "pipe:[12]");
	gives("/etc", "a b\nc\xff", "a b\nc\xff");
}

static void absolute_texts_climb_to_the_root(void **state)
{
	gives("/", "/etc/hosts", "etc/hosts");
	gives("/etc", "/etc/hosts", "../etc/hosts");
	gives("/usr/share/zoneinfo", "/etc/localtime", "../../../etc/localtime");
	gives("/etc", "/", "..");
	gives("/", "/", ".");
	gives("/etc", "//usr//bin/", "../usr/bin");
}

static void blanks_of_a_path_are_dropped(void **state)
{
	gives("/etc", "./hosts", "hosts");
	gives("/etc", "././a/./b/.", "a/b");
	gives("/etc", "a//b///c", "a/b/c");
	gives("/etc", "a/", "a");
	gives("/etc", ".", ".");
	gives("/etc", "./", ".");
	gives("/etc", "..", "..");
}

static void no_text_climbs_above_the_root(void **state)
{
	gives("/", "..", ".");
	gives("/", "../../../../etc/passwd", "etc/passwd");
	gives("/etc", "../../etc/passwd", "../etc/passwd");
	gives("/etc", "../../../../../../../../root", "../root");
	gives("/a/b", "../../../../x", "../../x");
	gives("/", "/../../etc", "etc");
	gives("/a", "/../../etc", "../etc");
	gives("/a", "./.././../b", "../b");
}

static void a_name_and_its_parent_cancel_out(void **state)
{
	gives("/etc", "a/..", ".");
	gives("/etc", "a/../b", "b");
	gives("/etc", "a/b/../../c", "c");
	gives("/etc", "a/../../b", "../b");
	gives("/etc", "a/../../../b", "../b");
	gives("/", "a/../../b", "b");
	gives("/a/b", "x/../../../../y/../z", "../../z");
	gives("/etc", "/a/../..", "..");
	gives("/etc", "/usr/lib/../share", "../usr/share");
	gives("/x", "../a/..", "..");
	gives("/x", "../a/../../b", "../b");
}

static void only_leading_parents_are_left(void **state)
{
	static const char *const parts[] = { "..", "a", ".", "", "b", "..", "...", "/" };
	char text[256], out[4096];

	/* All texts of up to five parts, in folders of depth 0 to 3. */
	for (unsigned n = 0; n < 8 * 8 * 8 * 8 * 8; n++) {
		static const char *const dirs[] = { "/", "/x", "/x/y", "/x/y/z" };

		snprintf(text, sizeof(text), "%s/%s/%s/%s/%s", parts[n & 7], parts[n >> 3 & 7],
			 parts[n >> 6 & 7], parts[n >> 9 & 7], parts[n >> 12 & 7]);
		for (size_t depth = 0; depth < 4; depth++) {
			size_t ups = 0;
			bool names = false;
			char *save = NULL;

			assert_int_equal(link_contain(dirs[depth], text, strlen(text), out,
						      sizeof(out)), 0);
			assert_int_not_equal(out[0], '/');
			for (char *p = strtok_r(out, "/", &save); p; p = strtok_r(NULL, "/", &save)) {
				if (strcmp(p, "..")) {
					names = true;
					continue;
				}
				assert_false(names);
				ups++;
			}
			assert_true(ups <= depth);
		}
	}
}

static void impossible_texts_are_refused(void **state)
{
	char out[64], *deep = malloc(8192);

	assert_int_equal(link_contain("/etc", "", 0, out, sizeof(out)), -EIO);
	assert_int_equal(link_contain("/etc", "a\0b", 3, out, sizeof(out)), -EIO);
	assert_int_equal(link_contain("/etc", "/a/b/c", 6, out, 8), -ENAMETOOLONG);
	assert_int_equal(link_contain("/etc", "/a/b/c", 6, out, 9), 0);
	assert_string_equal(out, "../a/b/c");
	memset(deep, 'a', 8191);
	for (int i = 0; i < 8191; i += 2)
		deep[i] = '/';
	deep[8191] = 0;
	assert_int_equal(link_contain(deep, "/etc", 4, out, sizeof(out)), -ENAMETOOLONG);
	free(deep);
}

static void needs_resolving(void **state)
{
	assert_false(link_needs_resolving("../../a/b", 9));
	assert_false(link_needs_resolving("/a/b", 4));
	assert_false(link_needs_resolving(".././../a", 9));
	assert_true(link_needs_resolving("a/..", 4));
	assert_true(link_needs_resolving("../a/../b", 9));
	assert_true(link_needs_resolving("/lib/../share", 13));
	/* only the bytes that are its own */
	assert_false(link_needs_resolving("a/..", 3));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(relative_texts_stay_as_they_are),
		cmocka_unit_test(absolute_texts_climb_to_the_root),
		cmocka_unit_test(blanks_of_a_path_are_dropped),
		cmocka_unit_test(no_text_climbs_above_the_root),
		cmocka_unit_test(a_name_and_its_parent_cancel_out),
		cmocka_unit_test(only_leading_parents_are_left),
		cmocka_unit_test(impossible_texts_are_refused),
		cmocka_unit_test(needs_resolving),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
