/*
 * Where a sandbox is, and the small files of a job: nothing but paths and files. What fails
 * ends the program with a sentence and the status 255 (die).
 */
#ifndef SBX_PLACE_H
#define SBX_PLACE_H

#include <stdbool.h>
#include <stddef.h>

void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* The folder of that sandbox: a path, or below $SBXFS_ROOT, here, or in a mount. For good. */
char *place_find(const char *name);
/* A printed text, for good. */
char *text(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The first line of DIR/NAME, or "" when it cannot be read. For good. */
char *file_line(const char *dir, const char *name);
/* Write a value to DIR/NAME: whether that was taken. */
bool file_put(const char *dir, const char *name, const char *value);

#endif
