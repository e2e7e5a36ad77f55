/* Keys with values, kept as a cJSON object: the order is that of insertion. */
#include "facts.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "buf.h"

struct facts {
	cJSON *json;	/* numbers are numbers here … */
	cJSON *text;	/* … and what is shown in text is here */
};

struct facts *facts_create(void)
{
	struct facts *f = xcalloc(1, sizeof(*f));

	f->json = cJSON_CreateObject();
	f->text = cJSON_CreateObject();
	return f;
}

void facts_destroy(struct facts *f)
{
	if (!f)
		return;
	cJSON_Delete(f->json);
	cJSON_Delete(f->text);
	free(f);
}

void facts_text(struct facts *f, const char *key, const char *value)
{
	cJSON_AddStringToObject(f->json, key, value);
	cJSON_AddStringToObject(f->text, key, value);
}

/* Its text as it is: no digit is changed on the way. */
static void add_number(struct facts *f, const char *key, const char *text)
{
	cJSON_AddRawToObject(f->json, key, text);
	cJSON_AddStringToObject(f->text, key, text);
}

void facts_number(struct facts *f, const char *key, int64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRId64, value);
	add_number(f, key, text);
}

void facts_bytes(struct facts *f, const char *key, uint64_t bytes)
{
	struct buf text = BUF_INIT;
	char number[32], *s;

	snprintf(number, sizeof(number), "%" PRIu64, bytes);
	size_print(&text, bytes);
	s = buf_take_string(&text);
	cJSON_AddRawToObject(f->json, key, number);
	cJSON_AddStringToObject(f->text, key, s);
	free(s);
}

void time_print(struct buf *out, int64_t ms)
{
	time_t seconds = ms / 1000;
	struct tm tm;
	char text[32];

	gmtime_r(&seconds, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	buf_printf(out, "%s", text);
}

void facts_time(struct facts *f, const char *key, int64_t ms)
{
	struct buf text = BUF_INIT;
	char *s;

	if (ms == 0)
		return;
	time_print(&text, ms);
	s = buf_take_string(&text);
	facts_text(f, key, s);
	free(s);
}

#define DIGITS "0123456789"

/* As JSON writes one, and none that no reader has room for. */
static bool is_number(const char *s)
{
	size_t whole, more;

	s += *s == '-';
	whole = strspn(s, DIGITS);
	if (whole == 0 || whole > 18 || (s[0] == '0' && whole > 1))
		return false;
	s += whole;
	if (*s == '.') {
		more = strspn(s + 1, DIGITS);
		if (more == 0 || more > 18)
			return false;
		s += 1 + more;
	}
	if (*s == 'e') {
		s += 1 + (s[1] == '-' || s[1] == '+');
		more = strspn(s, DIGITS);
		if (more == 0 || more > 2)
			return false;
		s += more;
	}
	return !*s;
}

/* Takes the quotes from a text that has them. */
static bool unquote(char *value)
{
	size_t len = strlen(value);

	if (len < 2 || value[0] != '"' || value[len - 1] != '"')
		return false;
	memmove(value, value + 1, len - 2);
	value[len - 2] = 0;
	return true;
}

void facts_lines(struct facts *f, const char *lines)
{
	char *copy = xstrdup(lines), *save = NULL;

	for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *value = strchr(line, ' ');

		if (!value)
			continue;
		*value++ = 0;
		if (cJSON_HasObjectItem(f->text, line))
			continue;
		if (!unquote(value) && is_number(value))
			add_number(f, line, value);
		else
			facts_text(f, line, value);
	}
	free(copy);
}

void facts_print(const struct facts *f, struct buf *out)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, f->text)
		buf_printf(out, "%s %s\n", item->string, item->valuestring);
}

void facts_print_json(const struct facts *f, struct buf *out)
{
	char *text = cJSON_Print(f->json);

	buf_printf(out, "%s\n", text ? text : "{}");
	cJSON_free(text);
}

void size_print(struct buf *out, uint64_t bytes)
{
	static const char units[] = "TGMK";

	for (int i = 0; i < 4; i++) {
		uint64_t unit = 1ull << (40 - 10 * i);

		if (bytes >= unit && bytes % unit == 0) {
			buf_printf(out, "%" PRIu64 "%c", bytes / unit, units[i]);
			return;
		}
	}
	buf_printf(out, "%" PRIu64, bytes);
}

int size_parse(const char *text, uint64_t *bytes)
{
	static const char units[] = "KMGT";
	size_t digits = strspn(text, "0123456789");
	const char *unit;
	uint64_t n;
	int shift = 0;

	if (digits == 0 || digits > 18)
		return -EINVAL;
	n = strtoull(text, NULL, 10);
	if (text[digits]) {
		unit = strchr(units, toupper((unsigned char)text[digits]));
		if (!unit || text[digits + 1])
			return -EINVAL;
		shift = 10 * (int)(unit - units + 1);
	}
	if (n > UINT64_MAX >> shift)
		return -EINVAL;
	*bytes = n << shift;
	return 0;
}

int size_parse_large(const char *text, uint64_t *bytes)
{
	int r = size_parse(text, bytes);

	return r == 0 && *bytes < 1 << 20 ? -EINVAL : r;
}

/* In the order in which they are written; the largest first. */
static const struct unit {
	const char *name;
	uint64_t ms;
} units_of_time[] = {
	{ "d", 24 * 3600 * 1000 }, { "h", 3600 * 1000 }, { "m", 60 * 1000 }, { "s", 1000 },
	{ "ms", 1 },
};

#define TIME_UNITS (sizeof(units_of_time) / sizeof(units_of_time[0]))

void duration_print(struct buf *out, uint64_t ms)
{
	if (ms == 0)
		buf_printf(out, "0s");
	for (size_t i = 0; i < TIME_UNITS; i++) {
		uint64_t n = ms / units_of_time[i].ms;

		if (n > 0)
			buf_printf(out, "%" PRIu64 "%s", n, units_of_time[i].name);
		ms -= n * units_of_time[i].ms;
	}
}

/* The unit that the letters at text name, not before the first-th; TIME_UNITS: none. */
static size_t unit_find(const char *text, size_t len, size_t first)
{
	while (first < TIME_UNITS && (strlen(units_of_time[first].name) != len ||
				      strncmp(units_of_time[first].name, text, len)))
		first++;
	return first;
}

int duration_parse(const char *text, uint64_t *ms)
{
	uint64_t sum = 0;
	size_t unit = 0;

	for (const char *p = text; *p || p == text;) {
		size_t digits = strspn(p, "0123456789"), letters = strspn(p + digits, "dhms");
		uint64_t n;

		if (digits == 0 || digits > 15)
			return -EINVAL;
		n = strtoull(p, NULL, 10);
		if (letters == 0) {
			if (p != text || p[digits])
				return -EINVAL;
			unit = unit_find("s", 1, 0);
		} else {
			unit = unit_find(p + digits, letters, unit);
		}
		if (unit == TIME_UNITS || n > (DURATION_MAX - sum) / units_of_time[unit].ms)
			return -EINVAL;
		sum += n * units_of_time[unit++].ms;
		p += digits + letters;
	}
	*ms = sum;
	return 0;
}
