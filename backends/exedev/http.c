/*
 * libcurl on the loop: see http.h.
 *
 * A call is WAITING (on http->waiting, in order) -> RUNNING (its easy handle is in the
 * multi) -> answered, or WAITING again at the head after a 429. start_next runs from one
 * timer and starts what the pace allows: gap_ms after the last start, not before hold_until, and
 * PARALLEL_MAX at once. gap_ms doubles with a 429 and shrinks with each answer that is none.
 *
 * libcurl repeats by itself a request that met a kept connection which the server had
 * just closed. A `new` must not be: the body comes through a read function that cannot be
 * rewound, so that a request of which anything was sent fails instead.
 */
#include "http.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>

#include "buf.h"
#include "err.h"
#include "list.h"
#include "log.h"
#include "loop.h"
#include "secret.h"

#define PARALLEL_MAX 4
#define GAP_MIN_MS 20
#define GAP_MAX_MS 2000
#define HOLD_FIRST_MS 500
#define HOLD_MAX_MS 60000
#define TOLD_MAX_S 3600		/* by Retry-After */

struct http {
	struct loop *loop;
	CURLM *multi;
	struct curl_slist *headers;
	char *url, *ca_file;
	struct list waiting, running, sockets;
	unsigned running_count;
	int64_t gap_ms, next_start, hold_until, hold_ms;
	struct loop_timer pace;		/* the next start */
	struct loop_timer curl;		/* libcurl's */
	uint64_t requests, limited;
};

struct http_call {
	struct list link;
	struct http *http;
	CURL *easy;			/* while RUNNING */
	struct curl_slist *headers;
	char error[CURL_ERROR_SIZE];
	char *body;
	size_t len, sent;
	struct buf answer;
	const char *(*token)(void *user);
	http_cb *cb;
	void *user;
};

struct sock {
	struct list link;
	struct loop_fd fd;
	struct http *http;
};

static void schedule(struct http *);

/* --- libcurl's sockets and timer ------------------------------------------ */

static void check_done(struct http *);

static void on_ready(struct loop_fd *f, uint32_t events)
{
	struct sock *s = container_of(f, struct sock, fd);
	struct http *h = s->http;
	int flags = (events & EPOLLIN ? CURL_CSELECT_IN : 0) |
		    (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
		    (events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0), left;

	curl_multi_socket_action(h->multi, f->fd, flags, &left);
	secret_forget();
	check_done(h);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *data)
{
	struct http *h = user;
	struct sock *s = data;
	uint32_t events = (what & CURL_POLL_IN ? EPOLLIN : 0u) |
			  (what & CURL_POLL_OUT ? EPOLLOUT : 0u);

	if (what == CURL_POLL_REMOVE) {
		if (s) {
			loop_fd_del(&s->fd);
			list_del(&s->link);
			free(s);
		}
		curl_multi_assign(h->multi, fd, NULL);
		return 0;
	}
	if (s) {
		loop_fd_set(&s->fd, events);
		return 0;
	}
	s = xcalloc(1, sizeof(*s));
	s->http = h;
	if (loop_fd_add(h->loop, &s->fd, fd, events, on_ready) < 0) {
		free(s);
		return -1;
	}
	list_add_tail(&h->sockets, &s->link);
	curl_multi_assign(h->multi, fd, s);
	return 0;
}

static void on_curl_timer(struct loop_timer *t)
{
	struct http *h = container_of(t, struct http, curl);
	int left;

	curl_multi_socket_action(h->multi, CURL_SOCKET_TIMEOUT, 0, &left);
	secret_forget();
	check_done(h);
}

static int set_curl_timer(CURLM *multi, long ms, void *user)
{
	struct http *h = user;

	if (ms < 0)
		loop_timer_cancel(&h->curl);
	else
		loop_timer_set(h->loop, &h->curl, ms, on_curl_timer);
	return 0;
}

/* --- one request ---------------------------------------------------------- */

static size_t on_read(char *to, size_t size, size_t n, void *user)
{
	struct http_call *c = user;
	size_t left = c->len - c->sent, room = size * n;

	if (left > room)
		left = room;
	memcpy(to, c->body + c->sent, left);
	c->sent += left;
	return left;
}

static size_t on_body(char *data, size_t size, size_t n, void *user)
{
	struct http_call *c = user;

	if (buf_size(&c->answer) + size * n > HTTP_BODY_MAX)
		return 0;
	buf_put(&c->answer, data, size * n);
	return size * n;
}

static void set_options(struct http_call *c)
{
	struct http *h = c->http;
	CURL *e = c->easy;

	curl_easy_setopt(e, CURLOPT_URL, h->url);
	curl_easy_setopt(e, CURLOPT_PRIVATE, c);
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, c->error);
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "https,http");
	/* The token is for this address and no other. */
	curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(e, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
	if (!strncasecmp(h->url, "http:", 5))
		curl_easy_setopt(e, CURLOPT_NOPROXY, "*");
	if (h->ca_file)
		curl_easy_setopt(e, CURLOPT_CAINFO, h->ca_file);
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)HTTP_TIMEOUT_MS);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, c->headers);
	curl_easy_setopt(e, CURLOPT_POST, 1L);
	curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE, (long)c->len);
	curl_easy_setopt(e, CURLOPT_READFUNCTION, on_read);
	curl_easy_setopt(e, CURLOPT_READDATA, c);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, c);
}

static struct curl_slist *make_headers(const char *token)
{
	struct curl_slist *list = curl_slist_append(NULL, "Content-Type: text/plain");
	size_t n = token ? strlen(token) + 32 : 0;
	char *line = token ? secret_malloc(n) : NULL;

	list = curl_slist_append(list, "Expect:");
	if (line) {
		snprintf(line, n, "Authorization: Bearer %s", token);
		list = curl_slist_append(list, line);
	}
	secret_free(line);
	/* Before libcurl starts a thread that resolves the address. */
	secret_forget();
	return list;
}

static void start(struct http_call *c)
{
	struct http *h = c->http;

	list_del(&c->link);
	list_add_tail(&h->running, &c->link);
	h->running_count++;
	h->requests++;
	c->sent = 0;
	c->error[0] = 0;
	buf_clear(&c->answer);
	c->headers = make_headers(c->token ? c->token(c->user) : NULL);
	c->easy = curl_easy_init();
	if (!c->easy)
		abort();	/* out of memory, as xmalloc does */
	set_options(c);
	curl_multi_add_handle(h->multi, c->easy);
}

/* Its easy handle goes; the connection stays with the multi. */
static void stop(struct http_call *c)
{
	if (!c->easy)
		return;
	curl_multi_remove_handle(c->http->multi, c->easy);
	curl_easy_cleanup(c->easy);
	curl_slist_free_all(c->headers);
	c->easy = NULL;
	c->headers = NULL;
	c->http->running_count--;
}

static void call_free(struct http_call *c)
{
	stop(c);
	list_del(&c->link);
	buf_finish(&c->answer);
	free(c->body);
	free(c);
}

/* --- the pace ------------------------------------------------------------- */

static void on_pace(struct loop_timer *t)
{
	struct http *h = container_of(t, struct http, pace);

	h->next_start = clock_ms() + h->gap_ms;
	start(list_entry(h->waiting.next, struct http_call, link));
	schedule(h);
}

static void schedule(struct http *h)
{
	int64_t now = clock_ms(), when = h->next_start > h->hold_until ? h->next_start :
								      h->hold_until;

	loop_timer_cancel(&h->pace);
	if (!list_empty(&h->waiting) && h->running_count < PARALLEL_MAX)
		loop_timer_set(h->loop, &h->pace, when > now ? when - now : 0, on_pace);
}

static int64_t jitter(int64_t ms)
{
	uint32_t r = 0;

	(void)!getrandom(&r, sizeof(r), 0);
	return ms + (int64_t)(r % 1000) * ms / 2000;	/* up to half more */
}

/* It was not run: it goes first when the service listens again. */
static void limited(struct http_call *c)
{
	struct http *h = c->http;
	int64_t hold = jitter(h->hold_ms);
	curl_off_t told = 0;		/* seconds from now, if any: of a date as well */

	h->limited++;
	if (curl_easy_getinfo(c->easy, CURLINFO_RETRY_AFTER, &told) == CURLE_OK && told > 0)
		hold = told < TOLD_MAX_S ? told * 1000 : TOLD_MAX_S * 1000;
	log_debug("exe.dev: too many requests: the next in %lld ms", (long long)hold);
	if (clock_ms() + hold > h->hold_until)
		h->hold_until = clock_ms() + hold;
	h->hold_ms = h->hold_ms * 2 > HOLD_MAX_MS ? HOLD_MAX_MS : h->hold_ms * 2;
	h->gap_ms = h->gap_ms * 2 > GAP_MAX_MS ? GAP_MAX_MS : h->gap_ms * 2;
	stop(c);
	list_del(&c->link);
	list_add(&h->waiting, &c->link);
}

/* --- answers -------------------------------------------------------------- */

/* Has the service not seen a byte of it? Only what is certain counts. */
static bool never_sent(CURLcode code)
{
	switch (code) {
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_CONNECT:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
		return true;
	default:
		return false;
	}
}

static void answered(struct http_call *c, CURLcode code)
{
	struct http_answer a = { 0 };
	struct http *h = c->http;
	char why[CURL_ERROR_SIZE + 64];
	char *body;

	if (code == CURLE_OK)
		curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &a.status);
	if (a.status == 429) {
		limited(c);
		schedule(h);
		return;
	}
	if (a.status) {
		h->hold_ms = HOLD_FIRST_MS;
		h->gap_ms -= h->gap_ms > GAP_MIN_MS ? (h->gap_ms - GAP_MIN_MS + 15) / 16 : 0;
	}
	snprintf(why, sizeof(why), "%s", c->error[0] ? c->error : curl_easy_strerror(code));
	/* A body that was cut is worth nothing; nor is one that was never sent in part. */
	a.not_sent = code != CURLE_OK && (never_sent(code) || c->sent == 0);
	a.why = why;
	a.len = buf_size(&c->answer);
	a.body = body = buf_take_string(&c->answer);
	stop(c);
	if (c->cb)
		c->cb(c->user, &a);
	call_free(c);
	free(body);
	schedule(h);
}

static void check_done(struct http *h)
{
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(h->multi, &left))) {
		struct http_call *c;

		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&c);
		answered(c, m->data.result);
	}
}

/* --- calls ---------------------------------------------------------------- */

struct http_call *http_post(struct http *h, const char *body,
			    const char *(*token)(void *user), http_cb *cb, void *user)
{
	struct http_call *c = xcalloc(1, sizeof(*c));

	c->http = h;
	c->body = xstrdup(body);
	c->len = strlen(body);
	c->token = token;
	c->cb = cb;
	c->user = user;
	list_add_tail(&h->waiting, &c->link);
	schedule(h);
	return c;
}

void http_cancel(struct http_call *c)
{
	struct http *h;

	if (!c)
		return;
	h = c->http;
	call_free(c);
	schedule(h);
}

bool http_is_waiting(const struct http_call *c)
{
	return !c->easy;
}

void http_count(const struct http *h, uint64_t *requests, uint64_t *limited_ones)
{
	*requests = h->requests;
	*limited_ones = h->limited;
}

int64_t http_held(const struct http *h)
{
	int64_t left = h->hold_until - clock_ms();

	return left > 0 ? left : 0;
}

/* --- life ----------------------------------------------------------------- */

static bool is_loopback(const char *host, size_t n)
{
	if (n == 9 && !strncasecmp(host, "localhost", 9))
		return true;
	if (n == 5 && !strncmp(host, "[::1]", 5))
		return true;
	return n >= 7 && !strncmp(host, "127.", 4) && strspn(host, "0123456789.") >= n;
}

int http_check_url(const char *url, struct err *err)
{
	CURLU *u = curl_url();
	char *scheme = NULL, *host = NULL, *user = NULL;
	int r = 0;

	if (curl_url_set(u, CURLUPART_URL, url, 0) ||
	    curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) ||
	    curl_url_get(u, CURLUPART_HOST, &host, 0))
		r = err_set(err, -EINVAL, "[exe.dev] api = %s: that is no address", url);
	else if (!curl_url_get(u, CURLUPART_USER, &user, 0) ||
		 !curl_url_get(u, CURLUPART_PASSWORD, &user, 0))
		r = err_set(err, -EINVAL, "[exe.dev] api: no user name or password stands in the "
			    "address: it is shown to everybody");
	else if (strcmp(scheme, "https") &&
		 (strcmp(scheme, "http") || !is_loopback(host, strlen(host))))
		r = err_set(err, -EINVAL, "[exe.dev] api = %s: only https, or http to this machine "
			    "itself: a token must not travel in the open", url);
	curl_free(scheme);
	curl_free(host);
	curl_free(user);
	curl_url_cleanup(u);
	return r;
}

static void init_curl(void)
{
	static bool done;

	if (!done)
		curl_global_init_mem(CURL_GLOBAL_DEFAULT, secret_malloc, secret_free,
				     secret_realloc, secret_strdup, secret_calloc);
	done = true;
}

struct http *http_create(struct loop *loop, const struct http_conf *conf, struct err *err)
{
	struct http *h;

	init_curl();
	if (http_check_url(conf->url, err) < 0)
		return NULL;
	h = xcalloc(1, sizeof(*h));
	h->loop = loop;
	h->url = xstrdup(conf->url);
	h->ca_file = conf->ca_file ? xstrdup(conf->ca_file) : NULL;
	h->gap_ms = GAP_MIN_MS;
	h->hold_ms = HOLD_FIRST_MS;
	list_init(&h->waiting);
	list_init(&h->running);
	list_init(&h->sockets);
	h->multi = curl_multi_init();
	curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
	curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, set_curl_timer);
	curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
	curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, 1L);	/* kept alive when idle */
	return h;
}

void http_destroy(struct http *h)
{
	if (!h)
		return;
	while (!list_empty(&h->waiting))
		call_free(list_entry(h->waiting.next, struct http_call, link));
	while (!list_empty(&h->running))
		call_free(list_entry(h->running.next, struct http_call, link));
	curl_multi_cleanup(h->multi);
	list_for_each_safe(s, &h->sockets, struct sock, link) {
		loop_fd_del(&s->fd);
		list_del(&s->link);
		free(s);
	}
	loop_timer_cancel(&h->pace);
	loop_timer_cancel(&h->curl);
	free(h->url);
	free(h->ca_file);
	free(h);
}
