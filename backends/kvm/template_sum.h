/*
 * What the files of a template were like when it was made: their sizes, times of
 * change and SHA-256 sums, in its template.json as "files". The sums leave out pages of
 * zeros (and go by the places of all others), for the memory's file is mostly holes.
 */
#ifndef SBXFS_KVM_TEMPLATE_SUM_H
#define SBXFS_KVM_TEMPLATE_SUM_H

#include <stdbool.h>
#include <stddef.h>

struct cJSON;

/*
 * Sync the files in this folder, read all of them, and write the description template.json
 * with about (from cJSON) and their sums. 0, or a negative errno with a sentence in said.
 * Takes a second; for a child or a program.
 */
int template_sum_write(const char *folder, const struct cJSON *about, char *said, size_t size);
/* Does it look as it did, by sizes and times? Costs next to nothing. Else why is a reason. */
bool template_sum_unchanged(const char *folder, const struct cJSON *about, const char **why);
/*
 * Are its files what they were, to the byte? 0, -EBADMSG with a sentence in said: they are
 * not; or another negative errno: nobody knows. Takes as long as writing the sums. One of
 * an earlier sbxfs has no sums, and is not used.
 */
int template_sum_verify(const char *folder, char *said, size_t size);

#endif
