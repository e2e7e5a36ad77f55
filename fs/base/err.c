/* Sentences for people beside errnos for machines. */
#include "err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A peer's words may stand in the sentence: no line breaks, no escape sequences. */
static void clean(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p; p++)
		if (*p < 0x20 || *p == 0x7f)
			*p = ' ';
}

static void format(char text[ERR_TEXT_MAX], const char *fmt, va_list ap)
{
	int n = vsnprintf(text, ERR_TEXT_MAX, fmt, ap);

	if (n >= ERR_TEXT_MAX)
		memcpy(text + ERR_TEXT_MAX - 4, "...", 4);
	clean(text);
}

int err_set(struct err *err, int code, const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	if (err) {
		char text[ERR_TEXT_MAX];	/* err->text may be an argument */

		va_start(ap, fmt);
		format(text, fmt, ap);
		va_end(ap);
		err->code = code;
		memcpy(err->text, text, sizeof(text));
	}
	errno = saved;
	return code;
}

int err_sys(struct err *err, int code, const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	if (err) {
		char text[ERR_TEXT_MAX];

		va_start(ap, fmt);
		format(text, fmt, ap);
		va_end(ap);
		err_set(err, code, "%.400s: %s", text, strerror(-code));
	}
	errno = saved;
	return code;
}

int err_prefix(struct err *err, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return 0;
	char text[ERR_TEXT_MAX];

	va_start(ap, fmt);
	format(text, fmt, ap);
	va_end(ap);
	return err_set(err, err->code, "%.200s: %s", text, err->text);
}
