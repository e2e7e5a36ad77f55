/* Facts for info and info.json: keys with values, in order, written once and shown twice. */
#ifndef SBXFS_VM_FACTS_H
#define SBXFS_VM_FACTS_H

#include <stdbool.h>
#include <stdint.h>

struct buf;
struct facts;

struct facts *facts_create(void);
void facts_destroy(struct facts *);
void facts_text(struct facts *, const char *key, const char *value);
void facts_number(struct facts *, const char *key, int64_t value);
void facts_bytes(struct facts *, const char *key, uint64_t bytes);	/* 512M; a number in JSON */
/* Milliseconds since the epoch; 0 leaves it out. 2026-01-31T12:00:00Z, to the second. */
void facts_time(struct facts *, const char *key, int64_t ms);
/*
 * "key value" lines as a backend writes them (backend.h, info); keys that are there already
 * are skipped.
 */
void facts_lines(struct facts *, const char *lines);
/* "key value\n" a line. */
void facts_print(const struct facts *, struct buf *out);
/* One JSON object and a newline. */
void facts_print_json(const struct facts *, struct buf *out);

/* 2026-01-31T12:00:00Z of milliseconds since the epoch. */
void time_print(struct buf *out, int64_t ms);
/* 512M, 2G, 1048576: as sizes are written in all files. */
void size_print(struct buf *out, uint64_t bytes);
/* 0 and *bytes, or -EINVAL: digits and one of K M G T (powers of 1024) or nothing. */
int size_parse(const char *text, uint64_t *bytes);
/* The same for what a VM has, 1M at least: "4" was to be 4G, and is four bytes. -EINVAL. */
int size_parse_large(const char *text, uint64_t *bytes);
/* 30s, 5m, 1h30m, 250ms, as times are written in all files: the largest units first; "0s". */
void duration_print(struct buf *out, uint64_t ms);
/*
 * 0 and *ms, or -EINVAL: numbers, each with one of d h m s ms behind it, in that order;
 * or a number alone, which is seconds. At most DURATION_MAX.
 */
int duration_parse(const char *text, uint64_t *ms);
#define DURATION_MAX (100ull * 366 * 24 * 3600 * 1000)

#endif
