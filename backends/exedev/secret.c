/*
 * See secret.h. Powers of two from 32 bytes to 32 KiB are cut from regions of
 * 256 KiB, which are never given back; larger ones are mapped one by one.
 */
#include "secret.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define REGION (256 * 1024)
#define CLASS_MIN 5			/* 32 bytes, 16 of them the head */
#define CLASS_MAX 15

struct head {
	size_t size;			/* whole, with the head */
	struct head *next;		/* while free */
};

static struct head *free_heads[CLASS_MAX + 1];

static void *map(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	if (madvise(p, size, MADV_DONTDUMP) < 0) {
		munmap(p, size);
		return NULL;
	}
	/* Swap is the lesser leak: where the limit is small it goes without. */
	(void)!mlock(p, size);
	return p;
}

static unsigned class_of(size_t size)
{
	unsigned c = CLASS_MIN;

	while (((size_t)1 << c) < size)
		c++;
	return c;
}

static struct head *take_small(unsigned c)
{
	struct head *h = free_heads[c];

	if (!h) {
		uint8_t *region = map(REGION);

		for (size_t off = 0; region && off < REGION; off += (size_t)1 << c) {
			h = (struct head *)(void *)(region + off);
			h->size = (size_t)1 << c;
			h->next = free_heads[c];
			free_heads[c] = h;
		}
		h = free_heads[c];
	}
	if (h)
		free_heads[c] = h->next;
	return h;
}

void *secret_malloc(size_t n)
{
	struct head *h;

	if (n > SIZE_MAX / 2)
		return NULL;
	n += sizeof(*h);
	if (n <= (size_t)1 << CLASS_MAX) {
		h = take_small(class_of(n));
	} else {
		h = map(n);
		if (h)
			h->size = n;
	}
	return h ? h + 1 : NULL;
}

void secret_free(void *p)
{
	struct head *h;

	if (!p)
		return;
	h = (struct head *)p - 1;
	explicit_bzero(p, h->size - sizeof(*h));
	if (h->size > (size_t)1 << CLASS_MAX) {
		munmap(h, h->size);
		return;
	}
	h->next = free_heads[class_of(h->size)];
	free_heads[class_of(h->size)] = h;
}

void *secret_calloc(size_t n, size_t size)
{
	void *p;

	if (size && n > SIZE_MAX / 2 / size)
		return NULL;
	p = secret_malloc(n * size);
	return p ? memset(p, 0, n * size) : NULL;
}

void *secret_realloc(void *old, size_t n)
{
	size_t had = old ? ((struct head *)old - 1)->size - sizeof(struct head) : 0;
	void *p;

	if (had >= n && old)
		return old;
	p = secret_malloc(n);
	if (!p)
		return NULL;
	if (old)
		memcpy(p, old, had);
	secret_free(old);
	return p;
}

char *secret_strdup(const char *s)
{
	size_t n = strlen(s) + 1;
	char *p = secret_malloc(n);

	return p ? memcpy(p, s, n) : NULL;
}

void secret_wipe(const char *s)
{
	if (s)
		explicit_bzero((char *)(uintptr_t)s, strlen(s));
}
