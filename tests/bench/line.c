/* A delay line; see line.h. */
#include "line.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int line_init(struct line *l, size_t size, int64_t delay)
{
	*l = (struct line){ .delay = delay, .size = size };
	l->ring = malloc(size);
	l->marks = malloc(LINE_MARKS * sizeof(*l->marks));
	if (l->ring && l->marks)
		return 0;
	line_finish(l);
	return -ENOMEM;
}

void line_finish(struct line *l)
{
	free(l->ring);
	free(l->marks);
	l->ring = NULL;
	l->marks = NULL;
}

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

uint8_t *line_space(struct line *l, size_t *len)
{
	size_t at;

	/* An empty ring begins anew, so that a slow stream keeps to the same few pages. */
	if (l->in == l->out && l->count == 0)
		l->in = l->out = 0;
	at = l->in % l->size;
	*len = least(l->size - (l->in - l->out), l->size - at);
	/* The last mark is for the end of the stream. */
	if (l->ended || l->count >= LINE_MARKS - 1)
		*len = 0;
	return l->ring + at;
}

static void mark(struct line *l, int64_t due)
{
	assert(l->count < LINE_MARKS);
	l->marks[(l->first + l->count++) % LINE_MARKS] = (struct line_mark){ l->in, due };
}

void line_put(struct line *l, size_t len, int64_t now)
{
	assert(!l->ended && len <= l->size - (l->in - l->out));
	l->in += len;
	mark(l, now + l->delay);
}

void line_end(struct line *l, int64_t now)
{
	assert(!l->ended);
	l->ended = true;
	mark(l, now + l->delay);
}

const uint8_t *line_due(const struct line *l, int64_t now, size_t *len)
{
	uint64_t end = l->out;
	size_t at = l->out % l->size;

	for (unsigned i = 0; i < l->count; i++) {
		const struct line_mark *m = &l->marks[(l->first + i) % LINE_MARKS];

		if (m->due > now || end - l->out >= l->size - at)
			break;
		end = m->end;
	}
	*len = least(end - l->out, l->size - at);
	return l->ring + at;
}

void line_take(struct line *l, size_t len)
{
	l->out += len;
	assert(l->out <= l->in);
	/* The mark of the end stays: it is at the same place as the last byte's. */
	while (l->count > (l->ended ? 1 : 0) && l->marks[l->first].end <= l->out) {
		l->first = (l->first + 1) % LINE_MARKS;
		l->count--;
	}
}

bool line_over(const struct line *l, int64_t now)
{
	return l->ended && l->in == l->out &&
	       l->marks[(l->first + l->count - 1) % LINE_MARKS].due <= now;
}

int64_t line_next(const struct line *l)
{
	return l->count ? l->marks[l->first].due : INT64_MAX;
}
