/*
 * Containment of symbolic links.
 *
 * The host's kernel follows the texts that readlink gives, component by
 * component, and ".." leads it to the parent as the mount shows it. A text is safe
 * when its ".."s all come first and do not climb above the disk's root: each name that
 * follows is below the root, and if it is a link itself, its own text is as safe.
 * A ".." behind a name would not be: the name may be a link to the root, now or
 * by the time the kernel gets there.
 */
#include "link.h"

#include <errno.h>
#include <string.h>

/* The next component of *text: its bytes; NULL at the end. Empty ones and "." are skipped. */
static const char *next_component(const char **text, const char *end, size_t *len)
{
	const char *start;

	for (;;) {
		while (*text < end && **text == '/')
			(*text)++;
		if (*text == end)
			return NULL;
		start = *text;
		while (*text < end && **text != '/')
			(*text)++;
		*len = (size_t)(*text - start);
		if (*len != 1 || *start != '.')
			return start;
	}
}

static bool is_up(const char *component, size_t len)
{
	return len == 2 && component[0] == '.' && component[1] == '.';
}

bool link_needs_resolving(const char *text, size_t len)
{
	const char *end = text + len, *c;
	bool name = false;
	size_t n;

	while ((c = next_component(&text, end, &n))) {
		if (is_up(c, n) && name)
			return true;
		name |= !is_up(c, n);
	}
	return false;
}

static size_t depth_of(const char *dir)
{
	const char *end = dir + strlen(dir);
	size_t depth = 0, len;

	while (next_component(&dir, end, &len))
		depth++;
	return depth;
}

/* Put "/component" (or just "component" at the start) behind out[0 .. at). */
static bool append(char *out, size_t size, size_t *at, const char *component, size_t len)
{
	size_t slash = *at > 0;

	if (*at + slash + len + 1 > size)
		return false;
	if (slash)
		out[(*at)++] = '/';
	memcpy(out + *at, component, len);
	*at += len;
	out[*at] = 0;
	return true;
}

/* Drop the last component of out[floor .. at). */
static size_t drop_last(char *out, size_t floor, size_t at)
{
	while (at > floor && out[at - 1] != '/')
		at--;
	/* and the slash before it */
	if (at > 0)
		at--;
	if (at < floor)
		at = floor;
	out[at] = 0;
	return at;
}

int link_contain(const char *dir, const char *text, size_t len, char *out, size_t size)
{
	const char *end = text + len, *c;
	size_t depth = depth_of(dir), ups = 0, at = 0, floor = 0, names = 0, n;

	if (len == 0 || memchr(text, 0, len))
		return -EIO;
	if (size == 0)
		return -ENAMETOOLONG;
	out[0] = 0;
	if (text[0] == '/')
		for (; ups < depth; ups++)
			if (!append(out, size, &at, "..", 2))
				return -ENAMETOOLONG;
	floor = at;
	while ((c = next_component(&text, end, &n))) {
		if (!is_up(c, n)) {
			if (!append(out, size, &at, c, n))
				return -ENAMETOOLONG;
			names++;
		} else if (names > 0) {
			at = drop_last(out, floor, at);
			names--;
		} else if (ups < depth) {
			if (!append(out, size, &at, "..", 2))
				return -ENAMETOOLONG;
			ups++;
			floor = at;
		}
		/* else: ".." of the root is the root */
	}
	if (at == 0 && !append(out, size, &at, ".", 1))
		return -ENAMETOOLONG;
	return 0;
}
