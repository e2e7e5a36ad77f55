/* Lines and answers: see api.h. Tokens are in api_token.c. */
#include "api.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"

#define MIB (1ull << 20)

/* --- command lines ------------------------------------------------------------ */

static bool is_plain(const char *word)
{
	if (!*word)
		return false;
	for (; *word; word++)
		if (!isalnum((unsigned char)*word) && !strchr("_@%+=:,./-", *word))
			return false;
	return true;
}

/*
 * Single quotes keep everything as it is; a single quote itself is put between them
 * as '\''. The service's lexer, not a shell, reads it.
 */
void api_word(struct buf *line, const char *word)
{
	if (buf_size(line) > 0)
		buf_put_u8(line, ' ');
	if (is_plain(word)) {
		buf_put(line, word, strlen(word));
		return;
	}
	buf_put_u8(line, '\'');
	for (; *word; word++)
		if (*word == '\'')
			buf_put(line, "'\\''", 4);
		else
			buf_put_u8(line, (uint8_t)*word);
	buf_put_u8(line, '\'');
}

void api_flag(struct buf *line, const char *flag, const char *value)
{
	char *word = xasprintf("--%s=%s", flag, value);

	api_word(line, word);
	free(word);
}

void api_size(struct buf *line, const char *flag, uint64_t bytes)
{
	char text[32];

	if (!bytes)
		return;
	if (bytes % (1024 * MIB) == 0)
		snprintf(text, sizeof(text), "%lluGB", (unsigned long long)(bytes / (1024 * MIB)));
	else
		snprintf(text, sizeof(text), "%lluMB",
			 (unsigned long long)((bytes + MIB - 1) / MIB));
	api_flag(line, flag, text);
}

char *api_line(const char *const words[])
{
	struct buf line = BUF_INIT;

	for (; *words; words++)
		api_word(&line, *words);
	return buf_take_string(&line);
}

/* --- getters --------------------------------------------------------------------- */

static const char *text_of(const cJSON *j, const char *key)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));

	return s ? s : "";
}

static int64_t number_of(const cJSON *j, const char *key)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(j, key);

	return cJSON_IsNumber(v) && v->valuedouble > 0 && v->valuedouble < 9e15 ?
		       (int64_t)v->valuedouble : 0;
}

/* Copied where it fits and is printable; what does not is not told. */
static void take_text(const cJSON *j, const char *key, char *to, size_t size)
{
	const char *s = text_of(j, key);

	if (strlen(s) >= size)
		return;
	for (const char *p = s; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return;
	strcpy(to, s);
}

static bool is_label(const char *s)
{
	return *s && *s != '-' && strlen(s) < 64 &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(s);
}

static bool is_host(const char *s)
{
	return *s && *s != '-' && strlen(s) < 256 &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:") ==
		       strlen(s);
}

static bool is_user(const char *s)
{
	if (!*s || *s == '-' || strlen(s) >= 64)
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr("_+.-", *s))
			return false;
	return true;
}

bool api_has_tag(const char *tags, const char *tag)
{
	size_t n = strlen(tag);

	for (const char *p = tags; n && (p = strstr(p, tag)); p += n)
		if ((p == tags || p[-1] == ' ') && (!p[n] || p[n] == ' '))
			return true;
	return false;
}

/* --- was it done? -------------------------------------------------------------------- */

/* What stands under "error", if anything: a text, or an object with a message. */
static const char *error_of(const cJSON *j)
{
	const cJSON *e = NULL, *one;

	if (cJSON_IsObject(j))
		e = cJSON_GetObjectItemCaseSensitive(j, "error");
	else if (cJSON_IsArray(j))
		cJSON_ArrayForEach(one, j)
			if (!e && cJSON_IsObject(one))
				e = cJSON_GetObjectItemCaseSensitive(one, "error");
	if (cJSON_IsObject(e))
		e = cJSON_GetObjectItemCaseSensitive(e, "message");
	if (!e || cJSON_IsNull(e) || cJSON_IsFalse(e))
		return NULL;
	if (!cJSON_IsString(e))
		return "the service reports an error without words";
	return e->valuestring[0] ? e->valuestring : NULL;
}

/* One value, or several one after the other as an array. NULL: it is no JSON, or was cut. */
static cJSON *parse(const char *body)
{
	const char *end = NULL;
	cJSON *first = cJSON_ParseWithOpts(body, &end, 0), *list = NULL, *one;

	while (first && end[strspn(end, " \t\r\n")]) {
		if (!list) {
			list = cJSON_CreateArray();
			cJSON_AddItemToArray(list, first);
		}
		one = cJSON_ParseWithOpts(end, &end, 0);
		if (!one) {
			cJSON_Delete(list);
			return NULL;
		}
		cJSON_AddItemToArray(list, one);
	}
	return list ? list : first;
}

static bool says(const char *text, const char *what)
{
	return strcasestr(text, what) != NULL;
}

static int refusal_code(long status, const char *text)
{
	/* "Not found" is then the address of the whole: no VM is known to be gone. */
	if (status == 404 && !says(text, "command"))
		return -ENODEV;
	if (status == 404 || says(text, "unknown command"))
		return -ENOSYS;
	if (status == 401 || status == 403 || says(text, "not allowed") ||
	    says(text, "permission"))
		return -EACCES;
	if (says(text, "not available") || says(text, "already") || says(text, "taken"))
		return -EEXIST;
	if (says(text, "not found") || says(text, "no such"))
		return -ENOENT;
	if (says(text, "quota") || says(text, "limit") || says(text, "plan"))
		return -EDQUOT;
	return status == 400 || status == 413 ? -EINVAL : -EIO;
}

static void refuse(struct api_answer *a, long status, const char *text)
{
	a->verdict = API_REFUSED;
	a->code = refusal_code(status, text);
	if (a->code == -ENODEV)
		a->text = xasprintf("the service answered HTTP status 404%s%s: is the address right "
				    "(api in [exe.dev])?", *text ? ", " : "", text);
	else
		a->text = *text ? xstrdup(text) :
			xasprintf("the service answered HTTP status %ld", status);
}

static void unclear(struct api_answer *a, char *text)
{
	a->verdict = API_UNCLEAR;
	a->code = -EIO;
	a->text = text;
}

void api_judge(struct api_answer *a, long status, const char *body, size_t len, const char *why)
{
	bool empty = len == 0 || strspn(body, " \t\r\n") >= len;
	const char *error;

	*a = (struct api_answer){ .code = -EIO, .status = status };
	a->json = status && !empty && !memchr(body, 0, len) ? parse(body) : NULL;
	error = error_of(a->json);
	if (status == 0) {
		unclear(a, xasprintf("the service did not answer: %s",
				     why ? why : "no reason given"));
	} else if (status >= 500) {
		unclear(a, error ? xstrdup(error) :
			xasprintf("the service answered HTTP status %ld", status));
	} else if (status >= 300 && status < 400) {
		refuse(a, status, "the service sends requests elsewhere (a redirect), which is not "
		       "followed with a token: is the address right?");
	} else if (status != 200 || error) {
		refuse(a, status, error ? error : "");
	} else if (!empty && !a->json) {
		unclear(a, xstrdup("the service's answer cannot be read: it was cut, or is no "
				   "JSON"));
	} else {
		a->text = xstrdup("");
		return;
	}
	cJSON_Delete(a->json);
	a->json = NULL;
}

void api_finish(struct api_answer *a)
{
	free(a->text);
	cJSON_Delete(a->json);
	*a = (struct api_answer){ 0 };
}

bool api_not_found(const struct api_answer *a)
{
	return a->verdict == API_REFUSED && a->code == -ENOENT;
}

bool api_not_ready(const struct api_answer *a)
{
	return a->verdict == API_REFUSED &&
	       (says(a->text, "failed to connect") || says(a->text, "handshake failed"));
}

bool api_rm_failed(const struct api_answer *a)
{
	return cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(a->json, "failed")) > 0;
}

/* --- VMs ------------------------------------------------------------------------------- */

void api_parse_dest(const char *dest, char host[256], int *port, char user[64])
{
	char text[512], *at, *colon, *end;
	long n;

	if (!strncmp(dest, "ssh://", 6))
		dest += 6;
	if (strlen(dest) >= sizeof(text))
		return;
	strcpy(text, dest);
	text[strcspn(text, "/ \t")] = 0;
	at = strrchr(text, '@');
	if (at) {
		*at = 0;
		if (is_user(text))
			strcpy(user, text);
		memmove(text, at + 1, strlen(at + 1) + 1);
	}
	/* [v6]:22, host:22; a bare v6 address has several colons */
	colon = strrchr(text, ':');
	if (colon && (text[0] == '[' ? colon[-1] == ']' : strchr(text, ':') == colon)) {
		n = strtol(colon + 1, &end, 10);
		if (colon[1] && !*end && n > 0 && n < 65536)
			*port = (int)n;
		*colon = 0;
	}
	if (text[0] == '[' && text[strlen(text) - 1] == ']') {
		text[strlen(text) - 1] = 0;
		memmove(text, text + 1, strlen(text));
	}
	if (is_host(text))
		strcpy(host, text);
}

static void take_tags(const cJSON *j, struct api_vm *vm)
{
	const cJSON *one, *list = cJSON_GetObjectItemCaseSensitive(j, "tags");

	cJSON_ArrayForEach(one, list) {
		const char *tag = cJSON_GetStringValue(one);
		size_t have = strlen(vm->tags);

		if (tag && *tag && !strpbrk(tag, " \t\n/") &&
		    have + strlen(tag) + 2 < sizeof(vm->tags))
			sprintf(vm->tags + have, "%s%s", have ? " " : "", tag);
	}
}

static void take_address(const cJSON *j, struct api_vm *vm)
{
	const char *host = text_of(j, "ssh_host"), *user = text_of(j, "ssh_user");
	const char *command = text_of(j, "ssh_command");
	int64_t port = number_of(j, "ssh_port");

	vm->port = 22;
	if (!strncmp(command, "ssh ", 4) && command[4] != '-')
		api_parse_dest(command + 4, vm->host, &vm->port, vm->user);
	api_parse_dest(text_of(j, "ssh_dest"), vm->host, &vm->port, vm->user);
	if (is_host(host))
		strcpy(vm->host, host);
	if (is_user(user))
		strcpy(vm->user, user);
	if (port > 0 && port < 65536)
		vm->port = (int)port;
}

static bool take_vm(const cJSON *j, struct api_vm *vm)
{
	static const char *const keys[] = { "vm_name", "name", "vm" };

	memset(vm, 0, sizeof(*vm));
	if (!cJSON_IsObject(j))
		return false;
	for (size_t i = 0; i < 3 && !vm->name[0]; i++)
		if (is_label(text_of(j, keys[i])))
			strcpy(vm->name, text_of(j, keys[i]));
	if (!vm->name[0])
		return false;
	take_address(j, vm);
	take_tags(j, vm);
	take_text(j, "status", vm->status, sizeof(vm->status));
	take_text(j, "https_url", vm->https_url, sizeof(vm->https_url));
	take_text(j, "region", vm->region, sizeof(vm->region));
	take_text(j, "region_display", vm->region_display, sizeof(vm->region_display));
	take_text(j, "image", vm->image, sizeof(vm->image));
	take_text(j, "created_at", vm->created, sizeof(vm->created));
	take_text(j, "comment", vm->comment, sizeof(vm->comment));
	take_text(j, "proxy_share", vm->proxy_share, sizeof(vm->proxy_share));
	vm->cpus = number_of(j, "allocated_cpus");
	vm->memory = number_of(j, "memory_capacity_bytes");
	vm->disk = number_of(j, "disk_capacity_bytes");
	vm->proxy_port = (int)(number_of(j, "proxy_port") % 65536);
	return true;
}

bool api_vm_of(const cJSON *j, struct api_vm *vm)
{
	const cJSON *one, *inner = cJSON_GetObjectItemCaseSensitive(j, "vm");

	if (cJSON_IsObject(inner))
		return take_vm(inner, vm);
	if (cJSON_IsArray(j)) {
		cJSON_ArrayForEach(one, j)
			if (api_vm_of(one, vm))
				return true;
		return false;
	}
	return take_vm(j, vm);
}

int api_vms_of(const cJSON *j, void (*each)(void *user, const struct api_vm *), void *user)
{
	const cJSON *one, *list = cJSON_IsArray(j) ? j : cJSON_GetObjectItemCaseSensitive(j, "vms");
	unsigned items = 0, vms = 0;
	struct api_vm vm;

	if (!list && cJSON_IsObject(j))
		list = cJSON_GetObjectItemCaseSensitive(j, "data");
	if (cJSON_IsNull(list))
		return 0;
	if (!cJSON_IsArray(list))
		return -EBADMSG;
	cJSON_ArrayForEach(one, list) {
		items++;
		if (!take_vm(one, &vm))
			continue;
		vms++;
		each(user, &vm);
	}
	/* Things that nobody can read are no empty account. */
	return items && !vms ? -EBADMSG : 0;
}

static void flatten(const cJSON *j, const char *prefix, unsigned depth, struct buf *out)
{
	const cJSON *one;
	char name[128];

	cJSON_ArrayForEach(one, j) {
		if (!one->string || depth > 3)
			continue;
		snprintf(name, sizeof(name), "%s_%s", prefix, one->string);
		for (char *p = name; *p; p++)
			if (!isalnum((unsigned char)*p))
				*p = '_';
		if (cJSON_IsNumber(one))
			buf_printf(out, "%s %.15g\n", name, one->valuedouble);
		else if (cJSON_IsObject(one))
			flatten(one, name, depth + 1, out);
	}
}

void api_stat_lines(const cJSON *j, struct buf *out)
{
	if (cJSON_IsObject(j))
		flatten(j, "stat", 0, out);
}
