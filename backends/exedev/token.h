/*
 * The bearer token: from a file, the environment, or made here from the user's SSH key
 * for an hour at a time. Its text is only ever in secret memory (secret.h).
 */
#ifndef SBXFS_EXEDEV_TOKEN_H
#define SBXFS_EXEDEV_TOKEN_H

#include <stdbool.h>

struct err;
struct loop;
struct token;

struct token_conf {
	const char *token_file;		/* or NULL */
	const char *signing_key;	/* or NULL: private, or a .pub whose key the agent holds */
	/* It is there, it is another, or it cannot be had: see token_state. */
	void (*changed)(void *user);
	void *user;
};

/*
 * Where it comes from, by the first that is given: token_file, signing_key, EXE_TOKEN,
 * EXE_API_TOKEN (these two are taken out of our environment in any case). Never NULL.
 */
struct token *token_create(struct loop *, const struct token_conf *);
void token_destroy(struct token *);	/* takes NULL */
/* 0: there is one. -EAGAIN: it is being made. -ENOKEY: none is configured. Else why not. */
int token_state(const struct token *, struct err *);
/* Borrowed until the next turn of the loop; NULL when there is none. */
const char *token_text(const struct token *);
/* "file /path", "EXE_TOKEN", "signed by /path": for .sbxfs/backends. Borrowed. */
const char *token_source(const struct token *);
/*
 * The service refused the one it was sent. true: another one is there or on its way (changed is
 * called); false: that was the one there is.
 */
bool token_refused(struct token *);
/* There was none: has its file one by now? Then `changed` was called. */
bool token_came(struct token *);
/* The service took it. */
void token_accepted(struct token *);

#endif
