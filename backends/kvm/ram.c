/*
 * Splitting QEMU's migration stream: see ram.h. Runs in a child of the daemon
 * (save.c), and in the unit tests.
 *
 * The stream, big-endian: magic, version, an optional configuration section (of
 * which the defaults that we use make no subsections);
 * then sections. RAM comes first, as one start section (the list of blocks), any
 * number of parts, and an end, each a list of items that ends with EOS. Behind its
 * end the devices follow, whose lengths nobody knows but themselves: from there
 * on all is copied.
 */
#include "ram.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAGIC 0x5145564du	/* "QEVM" */
#define VERSION 3
#define PAGE 4096u

enum {
	SECTION_START = 0x01,
	SECTION_PART = 0x02,
	SECTION_END = 0x03,
	SECTION_FULL = 0x04,
	SECTION_CONFIGURATION = 0x07,
	SECTION_FOOTER = 0x7e,
};

/* In the low bits of a page's address. */
enum {
	FLAG_ZERO = 0x02,
	FLAG_MEM_SIZE = 0x04,
	FLAG_PAGE = 0x08,
	FLAG_EOS = 0x10,
	FLAG_CONTINUE = 0x20,
};

struct split {
	int in, ram, state;
	uint64_t size;
	bool found;			/* the machine's own block */
	char block[256];		/* its name */
	char name[256];			/* of the block that items are about, across sections */
	bool own;			/* that is the machine's own */
	uint64_t end;			/* of what was written of the memory */
	uint8_t in_data[1 << 16], out_data[1 << 16], run_data[1 << 18];
	size_t in_at, in_len, out_len;
	uint64_t run_offset;		/* pages that lie behind one another */
	size_t run_len;
	int error;
	const char *why;
};

static void fail(struct split *s, int error, const char *why)
{
	if (!s->error) {
		s->error = error;
		s->why = why;
	}
}

/* --- bytes ------------------------------------------------------------------ */

static void take(struct split *s, void *to, size_t len)
{
	uint8_t *at = to;

	while (len && !s->error) {
		size_t n = s->in_len - s->in_at;
		ssize_t got;

		if (n) {
			n = n < len ? n : len;
			memcpy(at, s->in_data + s->in_at, n);
			s->in_at += n;
			at += n;
			len -= n;
			continue;
		}
		got = read(s->in, s->in_data, sizeof(s->in_data));
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			fail(s, got < 0 ? -errno : -EPIPE, "QEMU's stream broke off");
		s->in_at = 0;
		s->in_len = got > 0 ? (size_t)got : 0;
	}
	if (s->error)
		memset(at, 0, len);
}

static void write_at(struct split *s, int fd, const uint8_t *data, size_t len, uint64_t at)
{
	while (len && !s->error) {
		ssize_t n = fd == s->state ? write(fd, data, len) :
					     pwrite(fd, data, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			fail(s, n < 0 ? -errno : -EIO, "it cannot be written");
			return;
		}
		data += n;
		len -= (size_t)n;
		at += (uint64_t)n;
	}
}

static void flush_state(struct split *s)
{
	write_at(s, s->state, s->out_data, s->out_len, 0);
	s->out_len = 0;
}

static void put(struct split *s, const void *data, size_t len)
{
	if (s->out_len + len > sizeof(s->out_data))
		flush_state(s);
	memcpy(s->out_data + s->out_len, data, len);	/* len is at most a page */
	s->out_len += len;
}

static void flush_run(struct split *s)
{
	write_at(s, s->ram, s->run_data, s->run_len, s->run_offset);
	s->run_len = 0;
}

static uint64_t number(const uint8_t *p, size_t len)
{
	uint64_t n = 0;

	while (len--)
		n = n << 8 | *p++;
	return n;
}

/* A number or a text that is copied and looked at. */
static uint64_t copy_number(struct split *s, size_t len)
{
	uint8_t p[8];

	take(s, p, len);
	put(s, p, len);
	return number(p, len);
}

static void copy_text(struct split *s, char text[256])
{
	size_t len = (size_t)copy_number(s, 1);

	take(s, text, len);
	put(s, text, len);
	text[len] = '\0';
}

static void copy_bytes(struct split *s, uint64_t len)
{
	uint8_t data[512];

	while (len && !s->error) {
		size_t n = len < sizeof(data) ? (size_t)len : sizeof(data);

		take(s, data, n);
		put(s, data, n);
		len -= n;
	}
}

/* --- the items of a RAM section ------------------------------------------------ */

static bool is_own(const struct split *s, const char *name, uint64_t length)
{
	size_t len = strlen(name);

	return length == s->size && (!strcmp(name, "mem") ||
				     (len > 4 && !strcmp(name + len - 4, "/mem")));
}

/* The list of blocks: name and length each, as many as the total says. */
static void copy_blocks(struct split *s, uint64_t total)
{
	char name[256];
	uint64_t length;

	while (total && !s->error) {
		copy_text(s, name);
		length = copy_number(s, 8);
		if (length > total || !length)
			fail(s, -EBADMSG, "QEMU's list of memory makes no sense");
		total -= length;
		if (is_own(s, name, length)) {
			s->found = true;
			strcpy(s->block, name);
		}
	}
	if (!s->found)
		fail(s, -EBADMSG, "QEMU's list of memory does not have the machine's");
}

static void keep_page(struct split *s, uint64_t offset)
{
	if (offset > s->size - PAGE) {
		fail(s, -EBADMSG, "QEMU sent a page beyond the memory's end");
		return;
	}
	if (s->run_len && (s->run_offset + s->run_len != offset ||
			   s->run_len == sizeof(s->run_data)))
		flush_run(s);
	if (!s->run_len)
		s->run_offset = offset;
	take(s, s->run_data + s->run_len, PAGE);
	s->run_len += PAGE;
	s->end = offset + PAGE > s->end ? offset + PAGE : s->end;
}

/* A hole, but where something may have been written: what is sent once more may be zeros now. */
static void keep_zeros(struct split *s, uint64_t offset)
{
	static const uint8_t zeros[PAGE];
	uint8_t fill;

	take(s, &fill, 1);
	if (offset >= s->end)
		return;
	flush_run(s);
	write_at(s, s->ram, zeros, PAGE, offset);
}

/* A page of another block: copied with its block's name, whatever came before. */
static void copy_page(struct split *s, uint64_t head)
{
	uint8_t p[8], len = (uint8_t)strlen(s->name), data[PAGE];

	head &= ~(uint64_t)FLAG_CONTINUE;
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)(head >> (56 - 8 * i));
	put(s, p, 8);
	put(s, &len, 1);
	put(s, s->name, len);
	take(s, data, head & FLAG_ZERO ? 1 : PAGE);
	put(s, data, head & FLAG_ZERO ? 1 : PAGE);
}

static void take_name(struct split *s)
{
	uint8_t len;

	take(s, &len, 1);
	take(s, s->name, len);
	s->name[len] = '\0';
	s->own = !strcmp(s->name, s->block);
}

static void take_items(struct split *s)
{
	uint8_t p[8];

	while (!s->error) {
		uint64_t head, flags;

		take(s, p, 8);
		head = number(p, 8);
		flags = head & (PAGE - 1);
		if (flags == FLAG_EOS) {
			put(s, p, 8);
			return;
		}
		if (flags & FLAG_MEM_SIZE) {
			put(s, p, 8);
			copy_blocks(s, head & ~(uint64_t)(PAGE - 1));
			continue;
		}
		if ((flags & ~(uint64_t)FLAG_CONTINUE) != FLAG_ZERO &&
		    (flags & ~(uint64_t)FLAG_CONTINUE) != FLAG_PAGE) {
			fail(s, -EBADMSG, "QEMU sent memory in a way that is not understood");
			return;
		}
		if (!(flags & FLAG_CONTINUE))
			take_name(s);
		else if (!s->name[0])
			fail(s, -EBADMSG, "QEMU sent memory without saying of which block");
		if (!s->own)
			copy_page(s, head);
		else if (flags & FLAG_PAGE)
			keep_page(s, head & ~(uint64_t)(PAGE - 1));
		else
			keep_zeros(s, head & ~(uint64_t)(PAGE - 1));
	}
}

/* --- the sections ----------------------------------------------------------------- */

static void ram_section(struct split *s, uint64_t type)
{
	uint64_t id = copy_number(s, 4);
	char name[256] = "ram";

	if (type == SECTION_START) {
		copy_text(s, name);
		copy_number(s, 4);
		if (copy_number(s, 4) != 4)
			strcpy(name, "");
	}
	if (strcmp(name, "ram")) {
		fail(s, -EBADMSG, "QEMU's stream has a section that is not understood");
		return;
	}
	take_items(s);
	if (copy_number(s, 1) != SECTION_FOOTER || copy_number(s, 4) != id)
		fail(s, -EBADMSG, "QEMU's memory section does not end where it should");
}

/* Of the devices no byte is looked at but the first. */
static void copy_rest(struct split *s)
{
	ssize_t n = 1;

	flush_state(s);
	write_at(s, s->state, s->in_data + s->in_at, s->in_len - s->in_at, 0);
	while (!s->error && n) {
		n = read(s->in, s->in_data, sizeof(s->in_data));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			fail(s, -errno, "QEMU's stream broke off");
		if (n > 0)
			write_at(s, s->state, s->in_data, (size_t)n, 0);
	}
}

static void split(struct split *s)
{
	uint64_t type;

	if (copy_number(s, 4) != MAGIC || copy_number(s, 4) != VERSION) {
		fail(s, -EBADMSG, "this is no stream of QEMU's");
		return;
	}
	for (;;) {
		type = copy_number(s, 1);
		if (s->error)
			return;
		switch (type) {
		case SECTION_CONFIGURATION:
			copy_bytes(s, copy_number(s, 4));
			break;
		case SECTION_START:
		case SECTION_PART:
		case SECTION_END:
			ram_section(s, type);
			break;
		case SECTION_FULL:
			if (!s->found)
				fail(s, -EBADMSG, "QEMU's stream has no memory");
			flush_run(s);
			copy_rest(s);
			return;
		default:
			fail(s, -EBADMSG, "QEMU's stream has a section that is not understood");
		}
	}
}

int ram_split(int in, int ram, int state, uint64_t size, char *why, size_t why_size)
{
	static struct split s;

	memset(&s, 0, sizeof(s));
	s.in = in;
	s.ram = ram;
	s.state = state;
	s.size = size;
	if (ftruncate(ram, (off_t)size) < 0)
		fail(&s, -errno, "it cannot be written");
	else
		split(&s);
	if (s.error)
		snprintf(why, why_size, "%s", s.why);
	return s.error;
}
