/*
 * An error: a negative errno for the machine and one sentence for the person.
 *
 * Functions that can fail in a way worth explaining take a struct err * (which
 * may be NULL), return err_set(...) and do not log; whoever drops an error logs it.
 */
#ifndef SBXFS_BASE_ERR_H
#define SBXFS_BASE_ERR_H

#define ERR_TEXT_MAX 2048	/* a provider's own words are not shortened */

struct err {
	int code;			/* negative errno; 0 is no error */
	char text[ERR_TEXT_MAX];	/* one sentence, no newline, cut with "..." */
};

#define ERR_NONE ((struct err){ 0 })

/*
 * Fill *err (if not NULL) and return code. code is a negative errno. Control
 * characters in the finished sentence become blanks, so that a peer's words
 * can be quoted in it. errno is kept.
 */
int err_set(struct err *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* As err_set, with "strerror(-code)" put behind the sentence: "fmt: No such file". */
int err_sys(struct err *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Put "fmt: " before the sentence that is there already; returns err->code. */
int err_prefix(struct err *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif
