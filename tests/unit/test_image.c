/* Finding images. */
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "image.h"

static char dir[64];
static struct image image;

static void put(const char *name, const char *file, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	mkdir(path, 0700);
	snprintf(path, sizeof(path), "%s/%s/%s", dir, name, file);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void put_image(const char *name)
{
	put(name, "image.json",
	    "{ \"user\": \"root\", \"disk_size\": 2147483648, "
	    "\"min_memory\": 134217728, \"cmdline\": \"quiet\" }");
	put(name, "vmlinux", "k");
	put(name, "initrd", "i");
	put(name, "root.qcow2", "r");
}

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

static void a_complete_image_is_found(void **state)
{
	char path[256];

	put_image("debian");
	assert_int_equal(image_find(&image, dir, "debian", NULL), 0);
	snprintf(path, sizeof(path), "%s/debian/vmlinux", dir);
	assert_string_equal(image.kernel, path);
	assert_string_equal(image.cmdline, "quiet");
	assert_string_equal(image.user, "root");
	assert_int_equal(image.disk_size, 2147483648);
	assert_int_equal(image.min_memory, 134217728);
}

static void an_image_is_the_build_that_its_link_names(void **state)
{
	char path[256], build[256];

	put_image("build-1");
	snprintf(path, sizeof(path), "%s/debian", dir);
	snprintf(build, sizeof(build), "%s/build-1", dir);
	assert_int_equal(symlink("build-1", path), 0);
	assert_int_equal(image_find(&image, dir, "debian", NULL), 0);
	assert_string_equal(image.dir, build);
	assert_int_equal(image_load(&image, build, NULL), 0);
}

static void an_incomplete_image_is_refused(void **state)
{
	static const char *const files[] = { "image.json", "vmlinux", "initrd", "root.qcow2" };
	char path[256];

	for (size_t i = 0; i < 4; i++) {
		struct err err = ERR_NONE;

		put_image("debian");
		snprintf(path, sizeof(path), "%s/debian/%s", dir, files[i]);
		assert_int_equal(unlink(path), 0);
		assert_int_equal(image_find(&image, dir, "debian", &err), -EINVAL);
		assert_int_equal(err.code, -EINVAL);
		assert_non_null(strstr(err.text, "not complete"));
	}
}

static void a_damaged_description_is_refused(void **state)
{
	static const char *const texts[] = { "",
					     "{",
					     "[]",
					     "{}",
					     "{ \"user\": 3, \"disk_size\": 1 }",
					     "{ \"user\": \"root\", \"disk_size\": \"big\" }" };

	put_image("debian");
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		put("debian", "image.json", texts[i]);
		assert_int_equal(image_find(&image, dir, "debian", NULL), -EINVAL);
	}
}

static void a_name_leads_nowhere_else(void **state)
{
	static const char *const names[] = { "",    ".",      "..",	"../etc",
					     "a/b", ".store", "Debian", "a b" };
	struct err err;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		assert_int_equal(image_find(&image, dir, names[i], NULL), -EINVAL);
	assert_int_equal(image_find(&image, dir, "fedora", &err), -EINVAL);
	assert_non_null(strstr(err.text, "sbxfs-image build fedora"));
}

static void the_list_has_what_is_complete(void **state)
{
	struct buf out = BUF_INIT;
	char *text;

	put_image("ubuntu");
	put_image("debian");
	put(".store", "image.json", "{}");
	put("halfway", "initrd", "");
	image_names(dir, &out);
	text = buf_take_string(&out);
	assert_string_equal(text, "debian,ubuntu");
	free(text);
	image_names("/nonexistent", &out);
	assert_int_equal(buf_size(&out), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_complete_image_is_found, setup, teardown),
		cmocka_unit_test_setup_teardown(an_image_is_the_build_that_its_link_names, setup,
						teardown),
		cmocka_unit_test_setup_teardown(an_incomplete_image_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(a_damaged_description_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(a_name_leads_nowhere_else, setup, teardown),
		cmocka_unit_test_setup_teardown(the_list_has_what_is_complete, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
