/*
 * The user's SSH agent ($SSH_AUTH_SOCK), asked without waiting for it: one that
 * wants a touch or a password may take a minute. (libssh2's own client blocks.)
 * Protocol: draft-miller-ssh-agent, messages 5, 11 to 14.
 */
#ifndef SBXFS_SSH_AGENT_H
#define SBXFS_SSH_AGENT_H

#include <stddef.h>
#include <stdint.h>

struct agent;
struct err;
struct loop;

/*
 * The answer: a message's body behind its type, borrowed for the call; or NULL and why.
 * No further request may be under way.
 */
typedef void agent_cb(void *user, const uint8_t *body, size_t len, const struct err *why);

/* Connect. NULL with a sentence: there is no agent. */
struct agent *agent_create(struct loop *, struct err *);
/* No callback runs any more. Takes NULL. */
void agent_destroy(struct agent *);
/*
 * One request at a time; cb runs once, later from the loop. The body of agent_list's
 * answer: uint32 count, then (string key, string comment) each. Of agent_sign's: string
 * signature (RFC 4253 6.6).
 */
void agent_list(struct agent *, agent_cb *, void *user);
void agent_sign(struct agent *, const void *key, size_t key_len, const void *data, size_t len,
		uint32_t flags, agent_cb *, void *user);
#define AGENT_RSA_SHA2_256 2u
#define AGENT_RSA_SHA2_512 4u

#endif
