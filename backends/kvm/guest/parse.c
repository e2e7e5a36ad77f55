/* The lines of the identity protocol (PROTOCOL) as the guest reads them. */
#include "parse.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

static int base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static int copy(char *to, size_t size, const char *value)
{
	if (!value[0] || strlen(value) >= size)
		return -EBADMSG;
	strcpy(to, value);
	return 0;
}

static int parse_hostname(struct identity *id, const char *value)
{
	for (const char *c = value; *c; c++)
		if (!isalnum((unsigned char)*c) && *c != '-' && *c != '.' && *c != '_')
			return -EBADMSG;
	return copy(id->hostname, sizeof(id->hostname), value);
}

static int parse_machine_id(struct identity *id, const char *value)
{
	if (strlen(value) != 32 || strspn(value, "0123456789abcdef") != 32)
		return -EBADMSG;
	return copy(id->machine_id, sizeof(id->machine_id), value);
}

static int parse_ip(char *to, size_t size, const char *value)
{
	struct in_addr ip;

	return inet_pton(AF_INET, value, &ip) == 1 ? copy(to, size, value) : -EBADMSG;
}

static int parse_address(struct identity *id, const char *value)
{
	char ip[16], rest;
	unsigned bits;

	if (sscanf(value, "%15[0-9.]/%2u%c", ip, &bits, &rest) != 2 || bits < 1 || bits > 32)
		return -EBADMSG;
	id->prefix = bits;
	return parse_ip(id->address, sizeof(id->address), ip);
}

static int parse_gateway(struct identity *id, const char *value)
{
	return parse_ip(id->gateway, sizeof(id->gateway), value);
}

static int parse_dns(struct identity *id, const char *value)
{
	return parse_ip(id->dns, sizeof(id->dns), value);
}

static int parse_time(struct identity *id, const char *value)
{
	char *end;

	errno = 0;
	id->time = strtoll(value, &end, 10);
	return errno || end == value || *end || id->time <= 0 ? -EBADMSG : 0;
}

static int parse_count(int64_t *to, const char *value)
{
	char *end;

	errno = 0;
	*to = strtoll(value, &end, 10);
	return errno || end == value || *end || *to < 0 ? -EBADMSG : 0;
}

static int parse_milliseconds(struct identity *id, const char *value)
{
	int r = parse_count(&id->milliseconds, value);

	return r == 0 && id->milliseconds > 999 ? -EBADMSG : r;
}

static int parse_disk_size(struct identity *id, const char *value)
{
	int64_t size;
	int r = parse_count(&size, value);

	id->disk_size = r == 0 ? (uint64_t)size : 0;
	return r;
}

static int parse_entropy(struct identity *id, const char *value)
{
	size_t n = strlen(value) / 2;

	if (strlen(value) % 2 || n > sizeof(id->entropy))
		return -EBADMSG;
	for (size_t i = 0; i < n; i++) {
		int high = hex_digit(value[2 * i]), low = hex_digit(value[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EBADMSG;
		id->entropy[i] = (uint8_t)(high << 4 | low);
	}
	id->entropy_len = n;
	return 0;
}

static int parse_authorized_key(struct identity *id, const char *value)
{
	return copy(id->authorized_key, sizeof(id->authorized_key), value);
}

static int parse_host_key(struct identity *id, const char *value)
{
	uint32_t bits = 0;
	size_t n = 0, digits = strcspn(value, "=");

	if (!digits || digits / 4 * 3 + 3 >= sizeof(id->host_key) ||
	    value[digits + strspn(value + digits, "=")])
		return -EBADMSG;
	for (size_t i = 0; i < digits; i++) {
		int digit = base64_digit(value[i]);

		if (digit < 0)
			return -EBADMSG;
		bits = bits << 6 | (uint32_t)digit;
		if (i % 4)	/* the 2nd, 3rd and 4th digit each complete a byte */
			id->host_key[n++] = (char)(bits >> (6 - 2 * (i % 4)));
	}
	id->host_key[n] = '\0';
	return 0;
}

static int parse_host_key_public(struct identity *id, const char *value)
{
	return copy(id->host_key_public, sizeof(id->host_key_public), value);
}

static const struct {
	const char *word;
	int (*parse)(struct identity *, const char *value);
} values[] = {
	{ "hostname", parse_hostname },
	{ "machine-id", parse_machine_id },
	{ "address", parse_address },
	{ "gateway", parse_gateway },
	{ "dns", parse_dns },
	{ "time", parse_time },
	{ "milliseconds", parse_milliseconds },
	{ "disk-size", parse_disk_size },
	{ "entropy", parse_entropy },
	{ "authorized-key", parse_authorized_key },
	{ "host-key", parse_host_key },
	{ "host-key-public", parse_host_key_public },
};

static int parse_value(struct identity *id, const char *line)
{
	size_t word = strcspn(line, " ");

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		if (strlen(values[i].word) == word && !memcmp(values[i].word, line, word))
			return values[i].parse(id, line[word] ? line + word + 1 : "");
	return 0;
}

static bool complete(const struct identity *id)
{
	return id->hostname[0] && id->machine_id[0] && id->address[0] && id->gateway[0] &&
	       id->authorized_key[0] && id->host_key[0] && id->host_key_public[0];
}

/* "clock SECONDS MILLISECONDS" */
static int parse_clock(struct identity *id, const char *value)
{
	char seconds[24], rest[24];

	memset(id, 0, sizeof(*id));
	if (sscanf(value, "%23s %23s", seconds, rest) != 2 || parse_time(id, seconds) ||
	    parse_milliseconds(id, rest))
		return -EBADMSG;
	return PARSED_CLOCK;
}

int identity_parse(struct identity *id, const char *nonce, const char *line)
{
	int r;

	if (!strncmp(line, "identity ", 9)) {
		memset(id, 0, sizeof(*id));
		id->clone = !strcmp(line + 9, "clone");
		id->open = id->clone || !strcmp(line + 9, nonce);
		return PARSED_NOTHING;
	}
	if (!strncmp(line, "clock ", 6))
		return parse_clock(id, line + 6);
	if (!strcmp(line, "sync"))
		return PARSED_SYNC;
	if (!strcmp(line, "freeze"))
		return PARSED_FREEZE;
	if (!strcmp(line, "poweroff"))
		return PARSED_POWEROFF;
	if (!strcmp(line, "reboot"))
		return PARSED_REBOOT;
	if (!id->open)
		return PARSED_NOTHING;
	if (!strcmp(line, "end")) {
		id->open = false;
		return complete(id) ? PARSED_IDENTITY : -EBADMSG;
	}
	r = parse_value(id, line);
	if (r < 0)
		id->open = false;
	return r;
}
