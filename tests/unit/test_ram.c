/* QEMU's migration stream, made up here, into a machine's memory and the rest. */
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "ram.h"

#define PAGE 4096
#define SIZE (16ull * PAGE)

enum { ZERO = 0x02, MEM_SIZE = 0x04, DATA = 0x08, EOS = 0x10, CONTINUE = 0x20 };

static struct buf s;

static void text(const char *t)
{
	buf_put_u8(&s, (uint8_t)strlen(t));
	buf_put(&s, t, strlen(t));
}

static void be64(uint64_t v)
{
	buf_put_u32(&s, (uint32_t)(v >> 32));
	buf_put_u32(&s, (uint32_t)v);
}

static void section(uint8_t type)
{
	buf_put_u8(&s, type);
	buf_put_u32(&s, 2);
	if (type != 1)
		return;
	text("ram");
	buf_put_u32(&s, 0);
	buf_put_u32(&s, 4);
}

static void section_end(void)
{
	be64(EOS);
	buf_put_u8(&s, 0x7e);
	buf_put_u32(&s, 2);
}

static void page(uint64_t at, int flags, const char *block, uint8_t fill)
{
	be64(at * PAGE | (uint64_t)flags);
	if (!(flags & CONTINUE))
		text(block);
	for (int i = 0; i < (flags & ZERO ? 1 : PAGE); i++)
		buf_put_u8(&s, fill);
}

static void head(void)
{
	buf_put_u32(&s, 0x5145564d);
	buf_put_u32(&s, 3);
	buf_put_u8(&s, 7);		/* the configuration: a machine's name */
	buf_put_u32(&s, 3);
	buf_put(&s, "q35", 3);
	section(1);
	be64((SIZE + 2 * PAGE) | MEM_SIZE);
	text("pc.bios");
	be64(2 * PAGE);
	text("/objects/mem");
	be64(SIZE);
	section_end();
}

static void devices(void)
{
	section(3);
	section_end();
	buf_put(&s, "\4devices\0\1\2\3", 13);
}

static int split(int ram, int state, char *why)
{
	FILE *in = tmpfile();
	int r;

	if (buf_size(&s) > 0)
		fwrite(buf_peek(&s), 1, buf_size(&s), in);
	fflush(in);
	lseek(fileno(in), 0, SEEK_SET);
	r = ram_split(fileno(in), ram, state, SIZE, why, 100);
	fclose(in);
	return r;
}

/* The pages of the machine's block come to where they belong; zeros are holes. */
static void memory_comes_to_its_place(void **state)
{
	FILE *ram = tmpfile(), *rest = tmpfile();
	uint8_t memory[SIZE];
	char why[100] = "";

	head();
	section(2);
	page(3, DATA, "/objects/mem", 0x33);
	page(4, DATA | CONTINUE, NULL, 0x44);
	page(5, ZERO | CONTINUE, NULL, 0);
	page(1, DATA, "pc.bios", 0xb1);
	page(9, DATA, "/objects/mem", 0x99);
	page(4, DATA | CONTINUE, NULL, 0x45);	/* once more: the later one holds */
	page(3, ZERO | CONTINUE, NULL, 0);
	section_end();
	section(2);				/* of the same block still */
	page(6, DATA | CONTINUE, NULL, 0x66);
	page(7, DATA | CONTINUE, NULL, 0x77);
	page(7, ZERO | CONTINUE, NULL, 0);
	section_end();
	devices();
	assert_int_equal(split(fileno(ram), fileno(rest), why), 0);
	assert_int_equal(pread(fileno(ram), memory, SIZE, 0), SIZE);
	for (size_t i = 0; i < SIZE; i++)
		assert_int_equal(memory[i], i / PAGE == 4 ? 0x45 : i / PAGE == 6 ? 0x66 :
					    i / PAGE == 9 ? 0x99 : 0);
	fclose(ram);
	fclose(rest);
	buf_finish(&s);
}

/* What remains is a stream without the machine's pages, each of the others with its name. */
static void the_rest_is_a_stream_still(void **state)
{
	FILE *ram = tmpfile(), *rest = tmpfile();
	struct buf want;
	uint8_t *got;
	char why[100];

	head();
	section(2);
	page(0, DATA, "pc.bios", 0xb0);
	section_end();
	section(2);
	page(1, DATA, "pc.bios", 0xb1);
	section_end();
	devices();
	want = s;
	s = BUF_INIT;

	head();
	section(2);
	page(7, DATA, "/objects/mem", 7);
	page(0, DATA, "pc.bios", 0xb0);
	section_end();
	section(2);			/* wherever QEMU's 50 ms are over */
	page(1, DATA | CONTINUE, NULL, 0xb1);
	page(8, ZERO, "/objects/mem", 0);
	section_end();
	devices();
	assert_int_equal(split(fileno(ram), fileno(rest), why), 0);
	got = malloc(buf_size(&want) + 1);
	assert_int_equal(pread(fileno(rest), got, buf_size(&want) + 1, 0), buf_size(&want));
	assert_memory_equal(got, buf_peek(&want), buf_size(&want));
	free(got);
	fclose(ram);
	fclose(rest);
	buf_finish(&want);
	buf_finish(&s);
}

static void refuse(int error, const char *sentence)
{
	FILE *ram = tmpfile(), *rest = tmpfile();
	char why[100] = "";

	assert_int_equal(split(fileno(ram), fileno(rest), why), error);
	assert_non_null(strstr(why, sentence));
	fclose(ram);
	fclose(rest);
	buf_finish(&s);
}

static void what_is_not_understood_is_an_error(void **state)
{
	buf_put(&s, "hello, this is not QEMU", 23);
	refuse(-EBADMSG, "no stream");

	head();
	section(2);
	page(SIZE / PAGE, DATA, "/objects/mem", 1);
	section_end();
	refuse(-EBADMSG, "beyond");

	head();
	section(2);
	page(3, DATA | CONTINUE, NULL, 1);
	section_end();
	refuse(-EBADMSG, "of which block");

	head();
	section(2);
	be64(0x100);			/* a compressed page */
	refuse(-EBADMSG, "not understood");

	head();
	buf_put_u8(&s, 0x55);
	refuse(-EBADMSG, "not understood");
}

/* Wherever the stream ends before the devices come, that is seen. */
static void a_stream_that_breaks_off_is_an_error(void **state)
{
	head();
	section(2);
	page(3, DATA, "/objects/mem", 3);
	section_end();
	section(3);
	section_end();
	for (size_t len = buf_size(&s); len-- > 0;) {
		struct buf whole = s;

		s = BUF_INIT;
		buf_put(&s, buf_peek(&whole), len);
		if (len % 97 == 0 || len < 60)
			refuse(-EPIPE, "broke off");
		buf_finish(&s);
		s = whole;
	}
	buf_finish(&s);
}

static void memory_that_is_missing_is_an_error(void **state)
{
	buf_put_u32(&s, 0x5145564d);
	buf_put_u32(&s, 3);
	section(1);
	be64((2 * SIZE) | MEM_SIZE);
	text("/objects/mem");
	be64(2 * SIZE);			/* another size than was asked for */
	refuse(-EBADMSG, "does not have the machine's");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_comes_to_its_place),
		cmocka_unit_test(the_rest_is_a_stream_still),
		cmocka_unit_test(what_is_not_understood_is_an_error),
		cmocka_unit_test(a_stream_that_breaks_off_is_an_error),
		cmocka_unit_test(memory_that_is_missing_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
