/*
 * The memory of a session: libssh2 asks us for all that it needs. It is bounded, it is on a list
 * (so that none is left behind), and what libssh2 is done with is looked at before it goes.
 */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "ssh_internal.h"

#define MEMORY_MAX (64 * 1024 * 1024)

/*
 * libssh2 keeps messages that nobody asked for until the end of the session; a
 * hostile server must not fill our memory with them.
 */
static bool within_budget(struct ssh *s, size_t more)
{
	if (s->memory + more <= MEMORY_MAX)
		return true;
	ssh_fail(s, -EPROTO, "the server sends what nobody asked for");
	return false;
}

/*
 * A session that ends within a key exchange leaves some of it behind (libssh2 1.11.1), so
 * what it has is on a list.
 */
struct piece {
	struct list link;
	_Alignas(16) uint8_t data[];
};

static size_t piece_size(struct piece *p)
{
	return malloc_usable_size(p) - sizeof(*p);
}

static struct piece *piece_of(void *data)
{
	return container_of(data, struct piece, data);
}

static void *on_alloc(size_t n, void **abstract)
{
	struct ssh *s = *abstract;
	struct piece *p = within_budget(s, n) ? malloc(sizeof(*p) + n) : NULL;

	if (!p)
		return NULL;
	s->memory += piece_size(p);
	list_add_tail(&s->pieces, &p->link);
	return p->data;
}

void *ssh_alloc(struct ssh *s, size_t n)
{
	void *self = s;

	return on_alloc(n, &self);
}

static void *on_realloc(void *old, size_t n, void **abstract)
{
	struct ssh *s = *abstract;
	struct piece *p = old ? piece_of(old) : NULL;
	size_t before = p ? piece_size(p) : 0;

	if (!p)
		return on_alloc(n, abstract);
	if (!within_budget(s, n))
		return NULL;
	list_del(&p->link);
	old = p;
	p = realloc(p, sizeof(*p) + n);
	if (!p) {
		list_add_tail(&s->pieces, &((struct piece *)old)->link);
		return NULL;
	}
	s->memory += piece_size(p) - before;
	list_add_tail(&s->pieces, &p->link);
	return p->data;
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/*
 * libssh2 cannot tell "exit status 0" from "no exit status was sent", and an
 * exit code must be a fact. It frees each message through us once it has dealt
 * with it, so look at them: CHANNEL_OPEN (90) of ours tells the number of the
 * channel being opened, CHANNEL_REQUEST (98) "exit-status" tells that one came.
 * status_proven: messages do come by here. Should a future libssh2 no longer free
 * them this way, it stays unset and 0 is believed.
 */
static void note_free(struct ssh *s, const uint8_t *p, size_t n)
{
	static const char open_head[] = "\x5a\0\0\0\7session";
	static const char exit_status[] = "\0\0\0\13exit-status";
	static const char exit_signal[] = "\0\0\0\13exit-signal";

	if (n >= 16 && p[0] == 90 && s->opening && !memcmp(p, open_head, 12)) {
		s->opening->local_id = be32(p + 12);
		s->opening->has_local_id = true;
		s->status_proven = true;
	} else if (n >= 25 && p[0] == 98 &&
		   (!memcmp(p + 5, exit_status, 15) || !memcmp(p + 5, exit_signal, 15))) {
		list_for_each(c, &s->channels, struct ssh_channel, link)
			if (c->has_local_id && c->local_id == be32(p + 1) && c->ch)
				c->status_seen = true;
	}
}

static void on_free(void *p, void **abstract)
{
	struct ssh *s = *abstract;
	struct piece *piece = p ? piece_of(p) : NULL;

	if (!piece)
		return;
	s->memory -= piece_size(piece);
	note_free(s, p, piece_size(piece));
	list_del(&piece->link);
	free(piece);
}

int memory_session(struct ssh *s)
{
	s->session = libssh2_session_init_ex(on_alloc, on_free, on_realloc, s);
	return s->session ? 0 : -ENOMEM;
}

void memory_finish(struct ssh *s)
{
	/* Not list_for_each: the head lies in no piece, and is not aligned as one. */
	while (!list_empty(&s->pieces)) {
		struct piece *p = list_entry(s->pieces.next, struct piece, link);

		list_del(&p->link);
		free(p);
	}
}
