/*
 * Memory for what must not be seen: excluded from core files, locked where the
 * limit allows it, and wiped when it is freed. The token lives here, and whatever
 * libcurl allocates, since it copies the header that holds the token.
 */
#ifndef SBXFS_EXEDEV_SECRET_H
#define SBXFS_EXEDEV_SECRET_H

#include <stddef.h>

/* As malloc(3) and its family; NULL when memory is out. */
void *secret_malloc(size_t);
void *secret_calloc(size_t n, size_t size);
void *secret_realloc(void *, size_t);
void secret_free(void *);		/* takes NULL */
char *secret_strdup(const char *);
/* Overwrite a string that lies elsewhere; takes NULL. */
void secret_wipe(const char *);

#endif
