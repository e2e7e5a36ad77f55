/* Trees that are removed, now and by the helper thread. */
#include "test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "loop.h"
#include "remove.h"

static char top[] = "/tmp/sbxfs-remove-XXXXXX";

static char *path(const char *name, int i)
{
	return xasprintf("%s/%s%d", top, name, i);
}

static void make_file(const char *folder, int i)
{
	char *p = xasprintf("%s/f%d", folder, i);
	int fd = open(p, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	close(fd);
	free(p);
}

static char *make_tree(int i)
{
	char *p = path("tree", i), *below = xasprintf("%s/below", p);

	assert_int_equal(mkdir(p, 0700), 0);
	assert_int_equal(mkdir(below, 0700), 0);
	make_file(p, 0);
	for (int n = 0; n < 20; n++)
		make_file(below, n);
	free(below);
	return p;
}

static bool there(const char *p)
{
	struct stat st;

	return lstat(p, &st) == 0;
}

static void a_tree_goes_and_nothing_else(void **state)
{
	char *tree = make_tree(1), *kept = make_tree(2), *link = xasprintf("%s/link", tree);

	assert_int_equal(symlink(kept, link), 0);
	assert_int_equal(remove_tree(tree), 0);
	assert_false(there(tree));
	assert_true(there(kept));
	assert_int_equal(remove_tree(tree), 0);		/* a missing one is fine */
	assert_int_equal(remove_tree(kept), 0);
	assert_true(remove_tree("/proc/self/fdinfo/0") < 0);
	free(tree);
	free(kept);
	free(link);
}

static void without_the_thread_it_goes_at_once(void **state)
{
	char *tree = make_tree(1);

	remove_soon(tree);
	assert_false(there(tree));
	free(tree);
}

static void the_end_waits_for_all(void **state)
{
	struct loop *loop = loop_create();
	char *trees[50];

	for (int round = 0; round < 2; round++) {
		remove_start(loop);
		for (int i = 0; i < 50; i++)
			remove_soon(trees[i] = make_tree(i));
		remove_soon("/proc/self/fdinfo/0");	/* is told, and holds nobody up */
		remove_finish();
		for (int i = 0; i < 50; i++) {
			assert_false(there(trees[i]));
			free(trees[i]);
		}
	}
	remove_finish();
	loop_destroy(loop);
	without_the_thread_it_goes_at_once(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_tree_goes_and_nothing_else),
		cmocka_unit_test(without_the_thread_it_goes_at_once),
		cmocka_unit_test(the_end_waits_for_all),
	};
	int r;

	if (!mkdtemp(top))
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	return rmdir(top) < 0 ? 1 : r;
}
