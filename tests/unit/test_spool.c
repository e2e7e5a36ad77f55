/*
 * A spool whose daemon is killed: at every write, and in the middle of it, with the sizes of
 * appends that meet the seams of the ring in all ways. What is read afterwards is what came,
 * at its place, or was dropped.
 */
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "spool.h"
#include "remove.h"

#define CAP 128
#define ALL 1500

static char dir[64];
static int writes_left;		/* until it is killed; 0: it is not */
static bool halfway;
static uint64_t *appended;	/* shared: what was told to have been taken */

/* In place of libc's. */
ssize_t pwrite(int fd, const void *data, size_t len, off_t off)
{
	if (writes_left > 0 && --writes_left == 0) {
		/* (What lies in one page of a file is written or not: so with the few bytes of .gap.) */
		if (halfway && len > 24)
			syscall(SYS_pwrite64, fd, data, len / 2, off);
		_exit(0);
	}
	return syscall(SYS_pwrite64, fd, data, len, off);
}

static uint8_t byte_at(uint64_t off)
{
	return (uint8_t)(off * 2654435761u >> 13);
}

static void append_all(size_t step)
{
	uint8_t data[ALL];
	struct spool s;

	spool_init(&s, dir, "stdout", CAP);
	for (uint64_t off = 0; off < ALL; off += step) {
		for (size_t i = 0; i < step; i++)
			data[i] = byte_at(off + i);
		if (spool_append(&s, data, step) < 0)
			abort();
		*appended = off + step;
	}
	writes_left = 0;
	spool_rest(&s);
}

/* Everything from the beginning to the end; returns how many bytes were dropped. */
static uint64_t check(struct spool *s)
{
	uint64_t off = 0, dropped = 0, next;
	uint8_t data[50];

	while (off < s->size) {
		ssize_t n = spool_read(s, data, sizeof(data), off);

		if (n == -ENODATA) {
			next = spool_next(s, off);
			assert_true(next > off && next <= s->size);
			dropped += next - off;
			off = next;
			continue;
		}
		assert_true(n > 0);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(data[i], byte_at(off + (uint64_t)i));
		off += (uint64_t)n;
	}
	assert_int_equal(off, s->size);
	return dropped;
}

/* False: it was not killed any more. */
static bool killed_at(size_t step, int write, bool half)
{
	struct spool s;
	int status;
	pid_t child;

	assert_int_equal(mkdir(dir, 0700), 0);
	*appended = 0;
	child = fork();
	if (child == 0) {
		writes_left = write;
		halfway = half;
		append_all(step);
		_exit(1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	spool_init(&s, dir, "stdout", CAP);
	spool_load(&s);
	assert_true(s.size >= *appended);
	assert_int_equal(check(&s), spool_dropped(&s));
	/* The beginning is there, and of the end all but what was just being written over. */
	assert_true(spool_dropped(&s) <= (s.size > CAP / 2 ? s.size - CAP / 2 : 0));
	if (WEXITSTATUS(status) == 1) {
		assert_int_equal(s.size, *appended);
		assert_int_equal(spool_dropped(&s), s.size > CAP ? s.size - CAP : 0);
	}
	spool_rest(&s);
	assert_int_equal(remove_tree(dir), 0);
	return WEXITSTATUS(status) == 0;
}

static void killed_at_every_write(void **state)
{
	static const size_t steps[] = { 1500, 500, 100, 60, 25 };

	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		for (int half = 0; half < 2; half++)
			for (int write = 1; killed_at(steps[i], write, half); write++)
				;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(killed_at_every_write),
	};

	strcpy(dir, "/tmp/sbxfs-spool-XXXXXX");
	if (!mkdtemp(dir) || rmdir(dir) < 0)
		return 1;
	appended = mmap(NULL, sizeof(*appended), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
