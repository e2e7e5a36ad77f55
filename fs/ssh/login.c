/*
 * Logging in with a key: from a file, through libssh2; or one that the user's agent
 * holds. Called by session.c's pump until it says yes or no.
 *
 * With the agent: LISTING -> TRYING (the keys one after the other; each offered first,
 * and signed for when the server would take it) -> yes, or no key is left. libssh2 asks for
 * the signature by a callback, which answers EAGAIN until the agent has answered.
 */
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "log.h"
#include "ssh_internal.h"

#define KEYS_MAX 32		/* servers allow six attempts or so */

struct agent_key {
	uint8_t *blob;
	size_t len;
};

struct login {
	struct ssh *ssh;
	struct agent *agent;
	bool listed;
	struct agent_key keys[KEYS_MAX];
	unsigned count, next;
	/* the signature being made, or made */
	bool asked;		/* and not answered */
	char algorithm[64];
	struct buf signature;
	bool refused;
};

/* --- the key of a .pub file --------------------------------------------------- */

static bool is_public(const char *path)
{
	size_t n = strlen(path);

	return n > 4 && !strcmp(path + n - 4, ".pub");
}

/* "ssh-ed25519 AAAA… comment" into the blob, to be freed; NULL: there is none. */
static uint8_t *public_blob(const char *path, size_t *len)
{
	char line[16384], *text, *save = NULL;
	FILE *f = fopen(path, "re");
	uint8_t *blob;
	size_t n;
	int r;

	if (!f)
		return NULL;
	text = fgets(line, sizeof(line), f);
	fclose(f);
	if (!text || !strtok_r(line, " \t\n", &save) || !(text = strtok_r(NULL, " \t\n", &save)))
		return NULL;
	n = strlen(text);
	blob = xmalloc(n / 4 * 3 + 3);
	r = n % 4 ? -1 : EVP_DecodeBlock(blob, (const unsigned char *)text, (int)n);
	if (r < 0) {
		free(blob);
		return NULL;
	}
	*len = (size_t)r - (text[n - 1] == '=') - (n > 1 && text[n - 2] == '=');
	return blob;
}

/* --- the agent's keys ------------------------------------------------------------ */

void login_destroy(struct login *l)
{
	if (!l)
		return;
	agent_destroy(l->agent);
	for (unsigned i = 0; i < l->count; i++)
		free(l->keys[i].blob);
	buf_finish(&l->signature);
	free(l);
}

bool login_waits(const struct ssh *s)
{
	return s->login && (!s->login->listed || s->login->asked);
}

static void take_keys(struct login *l, struct rbuf *r, const uint8_t *wanted, size_t wanted_len)
{
	const uint8_t *blob, *comment;
	size_t len, comment_len;
	uint32_t n;

	if (rbuf_u32(r, &n) < 0)
		return;
	while (n-- > 0 && l->count < KEYS_MAX && rbuf_string(r, &blob, &len) == 0 &&
	       rbuf_string(r, &comment, &comment_len) == 0) {
		if (wanted && (len != wanted_len || memcmp(blob, wanted, len)))
			continue;
		l->keys[l->count].blob = xmalloc(len ? len : 1);
		memcpy(l->keys[l->count].blob, blob, len);
		l->keys[l->count++].len = len;
	}
}

static void listed(void *user, const uint8_t *body, size_t len, const struct err *why)
{
	struct login *l = user;
	struct ssh *s = l->ssh;
	const char *file = s->to.identity;
	struct rbuf r = { body, len };
	uint8_t *wanted = NULL;
	size_t wanted_len = 0;

	l->listed = true;
	if (!body) {
		ssh_fail(s, -EACCES, "%s", why->text);
		return;
	}
	if (file[0])
		wanted = public_blob(file, &wanted_len);
	if (file[0] && !wanted)
		ssh_fail(s, -EACCES, "%s holds no public key", file);
	else
		take_keys(l, &r, wanted, wanted_len);
	free(wanted);
	if (l->count == 0)
		ssh_fail(s, -EACCES, file[0] ? "the SSH agent does not hold the key of %s" :
			 "the SSH agent holds no key%s", file);
	ssh_kick(s);
}

/* string signature, which is (string algorithm, string bytes). */
static void have_signature(void *user, const uint8_t *body, size_t len, const struct err *why)
{
	struct login *l = user;
	struct rbuf r = { body, len }, inner;
	const uint8_t *sig, *algorithm, *bytes;
	size_t n, algorithm_len;

	l->asked = false;
	l->refused = true;
	if (!body) {
		log_debug("ssh: %s", why->text);
	} else if (rbuf_string(&r, &sig, &n) == 0) {
		inner = (struct rbuf){ sig, n };
		if (rbuf_string(&inner, &algorithm, &algorithm_len) == 0 &&
		    algorithm_len == strlen(l->algorithm) &&
		    !memcmp(algorithm, l->algorithm, algorithm_len) &&
		    rbuf_string(&inner, &bytes, &n) == 0 && n > 0) {
			buf_put(&l->signature, bytes, n);
			l->refused = false;
		}
	}
	ssh_kick(l->ssh);
}

/* The algorithm stands in what is to be signed (RFC 4252 section 7). */
static int find_algorithm(struct login *l, const uint8_t *data, size_t len)
{
	struct rbuf r = { data, len };
	const uint8_t *s;
	uint8_t byte;
	size_t n;

	if (rbuf_string(&r, &s, &n) < 0 || rbuf_u8(&r, &byte) < 0 ||	/* session id, 50 */
	    rbuf_string(&r, &s, &n) < 0 || rbuf_string(&r, &s, &n) < 0 || /* user, service */
	    rbuf_string(&r, &s, &n) < 0 || rbuf_u8(&r, &byte) < 0 ||	/* publickey, true */
	    rbuf_string(&r, &s, &n) < 0 || n >= sizeof(l->algorithm))
		return -EBADMSG;
	memcpy(l->algorithm, s, n);
	l->algorithm[n] = 0;
	return 0;
}

static int sign(LIBSSH2_SESSION *session, unsigned char **sig, size_t *sig_len,
		const unsigned char *data, size_t len, void **abstract)
{
	struct login *l = *abstract;
	const struct agent_key *key = &l->keys[l->next];
	size_t n = buf_size(&l->signature);

	if (l->asked)
		return LIBSSH2_ERROR_EAGAIN;
	if (n > 0) {
		*sig = ssh_alloc(l->ssh, n);
		if (!*sig)
			return LIBSSH2_ERROR_ALLOC;
		memcpy(*sig, buf_peek(&l->signature), n);
		*sig_len = n;
		buf_clear(&l->signature);
		return 0;
	}
	if (l->refused || find_algorithm(l, data, len) < 0)
		return -1;
	l->asked = true;
	agent_sign(l->agent, key->blob, key->len, data, len,
		   !strcmp(l->algorithm, "rsa-sha2-512") ? AGENT_RSA_SHA2_512 :
		   !strcmp(l->algorithm, "rsa-sha2-256") ? AGENT_RSA_SHA2_256 : 0,
		   have_signature, l);
	return LIBSSH2_ERROR_EAGAIN;
}

/* --- steps ----------------------------------------------------------------------------- */

static int refused(struct ssh *s)
{
	if (s->peer_closed)
		ssh_fail(s, -ECONNREFUSED, "the server closed the connection at login");
	else
		ssh_fail(s, -EACCES, "login as %s was refused: %s", s->to.user,
			 ssh_last_message(s));
	return -EACCES;
}

static int by_file(struct ssh *s)
{
	int r = libssh2_userauth_publickey_fromfile_ex(s->session, s->to.user,
						       (unsigned)strlen(s->to.user), NULL,
						       s->to.identity, NULL);

	if (r == LIBSSH2_ERROR_EAGAIN)
		return 0;
	if (r == LIBSSH2_ERROR_FILE) {
		ssh_fail(s, -EACCES, "cannot use the key %s: %s (a key with a passphrase must be "
			 "in the SSH agent, and its .pub named)", s->to.identity,
			 ssh_last_message(s));
		return -EACCES;
	}
	return r < 0 ? refused(s) : 1;
}

static int by_agent(struct ssh *s)
{
	struct login *l = s->login;
	struct err err;
	int r;

	if (!l) {
		struct agent *agent = agent_create(s->loop, &err);

		if (!agent) {
			ssh_fail(s, -EACCES, "%s", err.text);
			return -EACCES;
		}
		l = s->login = xcalloc(1, sizeof(*l));
		l->ssh = s;
		l->agent = agent;
		agent_list(agent, listed, l);
	}
	if (!l->listed)
		return 0;
	while (l->next < l->count) {
		void *abstract = l;

		r = libssh2_userauth_publickey(s->session, s->to.user, l->keys[l->next].blob,
					       l->keys[l->next].len, sign, &abstract);
		if (r == LIBSSH2_ERROR_EAGAIN)
			return 0;
		if (r == 0)
			return 1;
		if (s->peer_closed || r == LIBSSH2_ERROR_SOCKET_DISCONNECT)
			break;
		l->next++;
		l->refused = false;
	}
	return refused(s);
}

int login_step(struct ssh *s)
{
	return s->to.identity[0] && !is_public(s->to.identity) ? by_file(s) : by_agent(s);
}
