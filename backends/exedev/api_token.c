/*
 * Tokens that are signed by the user's own key: "exe0.PERMISSIONS.SIGNATURE", both
 * base64url without padding; the signature is an SSHSIG blob (OpenSSH's PROTOCOL.sshsig)
 * over the permissions' exact bytes, in the namespace v0@exe.dev.
 */
#include "api.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"

const char *const api_grant_names[GRANT_COUNT] = {
	[GRANT_NEW] = "new", [GRANT_LS] = "ls", [GRANT_RM] = "rm", [GRANT_RESTART] = "restart",
	[GRANT_PAUSE] = "pause", [GRANT_RESUME] = "resume", [GRANT_RENAME] = "rename",
	[GRANT_CP] = "cp", [GRANT_TAG] = "tag", [GRANT_COMMENT] = "comment",
	[GRANT_RESIZE] = "resize", [GRANT_STAT] = "stat", [GRANT_SHARE_PORT] = "share port",
	[GRANT_SHARE_PUBLIC] = "share set-public", [GRANT_SHARE_PRIVATE] = "share set-private",
	[GRANT_WHOAMI] = "whoami",
};

/* What a token without cmds may do, of the above. */
#define GRANTS_DEFAULT (1u << GRANT_LS | 1u << GRANT_NEW | 1u << GRANT_WHOAMI)

/* base64url of n bytes, to be freed, NUL terminated; NULL: it is none. */
static char *decode(const char *text, size_t n)
{
	char *padded = xmalloc(n + 5), *out = NULL;
	size_t len = 0;
	int got;

	for (size_t i = 0; i < n; i++)
		padded[len++] = text[i] == '-' ? '+' : text[i] == '_' ? '/' : text[i];
	while (len % 4)
		padded[len++] = '=';
	padded[len] = 0;
	if (len - n < 3 && len > 0) {
		out = xcalloc(1, len);
		got = EVP_DecodeBlock((unsigned char *)out, (const unsigned char *)padded,
				      (int)len);
		if (got < 0) {
			free(out);
			out = NULL;
		} else {
			out[got - (int)(len - n)] = 0;
		}
	}
	free(padded);
	return out;
}

static unsigned grant_bit(const char *name)
{
	for (unsigned i = 0; name && i < GRANT_COUNT; i++)
		if (!strcmp(api_grant_names[i], name))
			return 1u << i;
	return 0;
}

bool api_token_grants(const char *token, unsigned *grants)
{
	const cJSON *list, *one;
	char *text;
	cJSON *j;
	bool told;

	if (strncmp(token, "exe0.", 5) || strlen(token) > 8192)
		return false;
	text = decode(token + 5, strcspn(token + 5, "."));
	j = text ? cJSON_Parse(text) : NULL;
	free(text);
	told = cJSON_IsObject(j);
	list = cJSON_GetObjectItemCaseSensitive(j, "cmds");
	*grants = list ? 0 : GRANTS_DEFAULT;
	cJSON_ArrayForEach(one, list)
		*grants |= grant_bit(cJSON_GetStringValue(one));
	cJSON_Delete(j);
	return told;
}

void api_permissions(struct buf *out, int64_t expires_s)
{
	const char *comma = "";

	buf_printf(out, "{\"exp\":%lld,\"cmds\":[", (long long)expires_s);
	for (unsigned i = 0; i < GRANT_COUNT; i++) {
		buf_printf(out, "%s\"%s\"", comma, api_grant_names[i]);
		comma = ",";
	}
	buf_printf(out, "]}");
}

/* Puts c into out as base64url has it; false when it is neither. */
static bool put_url(char c, char **out, const char *end)
{
	if (c == '\n' || c == '\r' || c == '=')
		return true;
	if (*out + 1 >= end)
		return false;
	*(*out)++ = c == '+' ? '-' : c == '/' ? '_' : c;
	return true;
}

/* The signature goes straight into out, which is the caller's guarded memory. */
int api_make_token(const char *permissions, const char *signature, char *out, size_t size)
{
	static const char begin[] = "-----BEGIN SSH SIGNATURE-----", finish[] = "-----END";
	const char *from = strstr(signature, begin), *to = from ? strstr(from, finish) : NULL;
	size_t n = strlen(permissions);
	unsigned char *text;
	char *end = out + size;
	bool fits = true;

	if (!to || size < 16)
		return -EBADMSG;
	text = xmalloc(4 * ((n + 2) / 3) + 1);
	EVP_EncodeBlock(text, (const unsigned char *)permissions, (int)n);
	memcpy(out, "exe0.", 5);
	out += 5;
	for (const unsigned char *p = text; *p && fits; p++)
		fits = put_url((char)*p, &out, end);
	free(text);
	fits = fits && put_url('.', &out, end);
	for (const char *p = from + sizeof(begin) - 1; p < to && fits; p++)
		fits = put_url(*p, &out, end);
	*out = 0;
	return fits ? 0 : -E2BIG;
}
