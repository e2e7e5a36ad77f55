/*
 * The helper thread for getaddrinfo(3): see resolve.h.
 *
 * It is started by the first lookup and never ends. It gets copies, and a struct
 * resolve is always one side's: the queue's, then the thread's, then (by
 * loop_post) the loop's. resolve_cancel only marks it; whoever has it then frees it.
 * The lock guards the queue and the mark, nothing else of the program.
 */
#include "resolve.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "err.h"
#include "loop.h"

struct resolve {
	struct resolve *next;
	struct loop *loop;
	char *host;
	int port;
	resolve_cb *cb;		/* NULL: cancelled */
	void *user;
	struct address found[RESOLVE_MAX];
	size_t n;
	struct err why;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER;
static struct resolve *queue, **queue_end = &queue;
static bool running;

static void resolve_free(struct resolve *r)
{
	free(r->host);
	free(r);
}

/* On the loop's thread. */
static void answer(void *user)
{
	struct resolve *r = user;

	if (r->cb)
		r->cb(r->user, r->found, r->n, &r->why);
	resolve_free(r);
}

static void look_up(struct resolve *r)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV }, *list;
	char port[16];
	int e;

	snprintf(port, sizeof(port), "%d", r->port);
	e = getaddrinfo(r->host, port, &hints, &list);
	if (e) {
		err_set(&r->why, -EHOSTUNREACH, "the address of %s is not found: %s", r->host,
			e == EAI_SYSTEM ? strerror(errno) : gai_strerror(e));
		return;
	}
	for (struct addrinfo *a = list; a && r->n < RESOLVE_MAX; a = a->ai_next) {
		memcpy(&r->found[r->n].addr, a->ai_addr, a->ai_addrlen);
		r->found[r->n++].len = a->ai_addrlen;
	}
	freeaddrinfo(list);
}

static void *helper(void *unused)
{
	struct resolve *r;

	pthread_mutex_lock(&lock);
	for (;;) {
		while (!queue)
			pthread_cond_wait(&work, &lock);
		r = queue;
		queue = r->next;
		if (!queue)
			queue_end = &queue;
		if (r->cb) {
			pthread_mutex_unlock(&lock);
			look_up(r);
			pthread_mutex_lock(&lock);
		}
		/* Cancelled: its loop may be gone by now. */
		if (r->cb)
			loop_post(r->loop, answer, r);
		else
			resolve_free(r);
	}
	return NULL;
}

static int start_helper(void)
{
	sigset_t all, before;
	pthread_t thread;
	int e;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	e = pthread_create(&thread, NULL, helper, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (e == 0)
		pthread_detach(thread);
	return -e;
}

struct resolve *resolve_start(struct loop *loop, const char *host, int port, resolve_cb *cb,
			      void *user)
{
	struct resolve *r = xcalloc(1, sizeof(*r));
	int e = 0;

	r->loop = loop;
	r->host = xstrdup(host);
	r->port = port;
	r->cb = cb;
	r->user = user;
	pthread_mutex_lock(&lock);
	if (!running) {
		e = start_helper();
		running = e == 0;
	}
	if (e == 0) {
		*queue_end = r;
		queue_end = &r->next;
		pthread_cond_signal(&work);
	}
	pthread_mutex_unlock(&lock);
	if (e < 0) {
		err_sys(&r->why, e, "cannot look up %s", host);
		loop_post(loop, answer, r);
	}
	return r;
}

void resolve_cancel(struct resolve *r)
{
	if (!r)
		return;
	pthread_mutex_lock(&lock);
	r->cb = NULL;
	pthread_mutex_unlock(&lock);
}
