/*
 * See secret.h. Powers of two from 32 bytes to 32 KiB are cut from regions of
 * 256 KiB, which are never given back; larger ones are mapped one by one.
 */
#include "secret.h"

#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define REGION (256 * 1024)
#define CLASS_MIN 5			/* 32 bytes, 16 of them the head */
#define CLASS_MAX 15

struct head {
	size_t size;			/* whole, with the head */
	struct head *next;		/* while free */
};

static struct head *free_heads[CLASS_MAX + 1];

/* core(5): of the default 0x33 without private anonymous memory (0x01) and huge pages (0x20). */
void secret_begin(void)
{
	static const char filter[] = "0x12\n";
	int fd = open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, filter, sizeof(filter) - 1) < 0)
		prctl(PR_SET_DUMPABLE, 0);	/* then none at all */
	if (fd >= 0)
		close(fd);
}

#ifdef __x86_64__
/* A caller has nothing in these registers over a call, which is why this must be one. */
__attribute__((noinline)) void secret_forget(void)
{
	if (__builtin_cpu_supports("avx512f"))
		__asm__ volatile(".irp r,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n\t"
				 "vpxord %zmm\\r, %zmm\\r, %zmm\\r\n\t"
				 ".endr");
	if (__builtin_cpu_supports("avx"))
		__asm__ volatile("vzeroall" : : : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",
				 "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
				 "xmm13", "xmm14", "xmm15");
	else
		__asm__ volatile(".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\t"
				 "pxor %%xmm\\r, %%xmm\\r\n\t"
				 ".endr" : : : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",
				 "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
				 "xmm13", "xmm14", "xmm15");
}
#else
/* Copying zeros uses the registers that copying the secret has used: one way for each size. */
void secret_forget(void)
{
	char from[2048] = { 0 }, to[2048];

	for (size_t n = 8; n <= sizeof(to); n *= 2) {
		memcpy(to, from, n);
		__asm__ volatile("" : : "r"(to), "r"(from) : "memory");
	}
}
#endif

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
