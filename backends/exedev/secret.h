/*
 * Memory for what must not be seen: excluded from core files, locked where the
 * limit allows it, and wiped when it is freed. The token lives here, and whatever
 * libcurl allocates, since it copies the header that holds the token.
 *
 * That is not all of it: OpenSSL's buffers, the stacks and the vector registers hold copies too.
 * secret_begin keeps the former out of core files, secret_forget the latter.
 */
#ifndef SBXFS_EXEDEV_SECRET_H
#define SBXFS_EXEDEV_SECRET_H

#include <stddef.h>

/*
 * Before the first secret comes in: from now on a core file of this process, or of a child, holds
 * registers and the list of mappings, but no private memory.
 */
void secret_begin(void);
/*
 * After a secret was copied or sent: clear the vector registers, which memcpy(3) and its like leave
 * as they are. A core file holds them, and a new thread starts with a copy of them.
 */
void secret_forget(void);

/* As malloc(3) and its family; NULL when memory is out. */
void *secret_malloc(size_t);
void *secret_calloc(size_t n, size_t size);
void *secret_realloc(void *, size_t);
void secret_free(void *);		/* takes NULL */
char *secret_strdup(const char *);
/* Overwrite a string that lies elsewhere; takes NULL. */
void secret_wipe(const char *);

#endif
