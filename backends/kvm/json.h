/* JSON files of the KVM backend: read whole, replaced whole and synced; and getters. */
#ifndef SBXFS_KVM_JSON_H
#define SBXFS_KVM_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cJSON;
struct err;

/* The object in a file of at most 1 MiB, to be freed with cJSON_Delete; or NULL, *err filled. */
struct cJSON *json_load(const char *path, struct err *err);
/* Write beside, sync, rename over, sync the folder. 0, or a negative errno and *err. */
int json_save(const char *path, const struct cJSON *, struct err *err);

/* The value of a key, or what a missing one or one of another kind gives: "", 0, false. */
const char *json_string(const struct cJSON *, const char *key);
uint64_t json_u64(const struct cJSON *, const char *key);
bool json_bool(const struct cJSON *, const char *key);
/* Numbers beyond 2^53 do not occur: sizes in bytes, times, process ids. */
void json_add_u64(struct cJSON *, const char *key, uint64_t);
/* Copy a string if it is there and fits; else -EBADMSG. */
int json_copy(const struct cJSON *, const char *key, char *to, size_t size);

/* fsync of a folder, so that names made or removed in it last. 0 or a negative errno. */
int sync_folder(const char *path);

#endif
