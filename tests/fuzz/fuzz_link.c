/*
 * Texts of symbolic links, as a hostile guest makes them: what link_contain gives has all
 * of its ".." first, no more than there are folders above, and is given unchanged when
 * it is contained again. The first byte tells how deep the link lies.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "link.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_safe(const char *text, unsigned depth)
{
	unsigned ups = 0;
	bool name = false;

	if (!*text || *text == '/')
		return false;
	while (*text) {
		size_t len = strcspn(text, "/");

		if (len == 2 && !memcmp(text, "..", 2)) {
			if (name || ++ups > depth)
				return false;
		} else {
			name = true;
		}
		text += len;
		text += strspn(text, "/");
	}
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char folders[] = "/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o";
	char dir[sizeof(folders)], out[4096], again[4096], *text;
	unsigned depth;

	if (size < 1)
		return 0;
	depth = data[0] % 16;
	memcpy(dir, folders, sizeof(dir));
	dir[2 * depth] = 0;
	text = malloc(size);		/* of just its length */
	memcpy(text, data + 1, size - 1);
	link_needs_resolving(text, size - 1);
	if (link_contain(dir, text, size - 1, out, sizeof(out)) == 0) {
		if (!is_safe(out, depth))
			abort();
		if (link_contain(dir, out, strlen(out), again, sizeof(again)) || strcmp(out, again))
			abort();
	}
	free(text);
	return 0;
}
