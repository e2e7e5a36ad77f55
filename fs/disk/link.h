/* Link texts that stay inside root/; pure. */
#ifndef SBXFS_DISK_LINK_H
#define SBXFS_DISK_LINK_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Rewrite the text of a link that lies in the folder dir (absolute, as the
 * guest names it, no "." or ".." in it) so that a host process that follows it from
 * there ends inside the disk: some "..", at most as many as dir has names, then names
 * only. An absolute text becomes one that climbs to the disk's root. What the guest
 * would find at the end of it is found, except behind "name/..", which is taken
 * for nothing even where name is a link itself (see link_needs_resolving).
 *
 * 0, with the text in out. -EIO: no text that a guest's kernel would give (empty,
 * or with a NUL). -ENAMETOOLONG: does not fit.
 */
int link_contain(const char *dir, const char *text, size_t len, char *out, size_t size);

/* Is there a ".." behind a name in it, so that only the guest knows where it leads? */
bool link_needs_resolving(const char *text, size_t len);

#endif
