/*
 * Requests to the service's one address, over libcurl's multi interface on the loop.
 *
 * They are paced: all of one key share the service's limit. One that was answered
 * 429 has not been run and is sent again by itself, after Retry-After or a back-off with
 * jitter, and everybody waits until then. Nothing else is ever sent twice.
 */
#ifndef SBXFS_EXEDEV_HTTP_H
#define SBXFS_EXEDEV_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct http;
struct http_call;
struct loop;

#define HTTP_TIMEOUT_MS 40000		/* the service's own limit is 30 s: its word comes first */
#define HTTP_BODY_MAX (16u << 20)	/* of an answer */

struct http_conf {
	const char *url;		/* https, or http to a loopback address: http_check_url */
	const char *ca_file;		/* NULL: the system's */
};

struct http_answer {
	long status;			/* 0: none came */
	/* No answer, and it is certain that the service has not seen the request. */
	bool not_sent;
	const char *body;		/* NUL terminated, borrowed for the call */
	size_t len;
	const char *why;		/* a sentence, when status is 0 */
};
typedef void http_cb(void *user, const struct http_answer *);

/* 0, or -EINVAL with a sentence: a token must not travel in the open. */
int http_check_url(const char *url, struct err *);
/* NULL with a sentence. The conf is copied. */
struct http *http_create(struct loop *, const struct http_conf *, struct err *);
/* No callback runs any more. Takes NULL. */
void http_destroy(struct http *);
/*
 * POST body (copied). token: a bearer token, or NULL; asked for again, by the function,
 * each time the request goes out. cb runs exactly once, later from the loop, unless
 * http_cancel came first; the call is valid until then. It may take long: it waits for its turn
 * first.
 */
struct http_call *http_post(struct http *, const char *body,
			    const char *(*token)(void *user), http_cb *, void *user);
void http_cancel(struct http_call *);		/* takes NULL */
/* It waits for its turn: it was not sent, or was answered 429. */
bool http_is_waiting(const struct http_call *);
/* Requests that went out so far, and the 429s among their answers. */
void http_count(const struct http *, uint64_t *requests, uint64_t *limited);
/* So many ms nothing is sent, since there were too many requests; 0: no such thing. */
int64_t http_held(const struct http *);

#endif
