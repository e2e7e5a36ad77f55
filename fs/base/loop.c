/*
 * The event loop.
 *
 * A turn: sleep in epoll until a descriptor or the next timer, call the
 * descriptors' callbacks, then the timers that are due, then what was put off
 * (later). Nobody else is served while it lasts, so it is measured. Timers stand in a binary
 * heap. A callback may delete any descriptor: the rest of the batch that epoll returned is
 * searched for it.
 */
#include "loop.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"
#include "log.h"

#define BATCH 64

struct signal_watch {
	loop_signal_cb *cb;
	void *user;
};

struct post {
	struct post *next;
	void (*fn)(void *user);
	void *user;
};

struct loop {
	int epoll;
	bool stop;
	int64_t now;
	struct epoll_event batch[BATCH];
	int ready, current;		/* of the batch */
	struct loop_timer **heap;
	size_t timers, heap_cap;
	struct list later;
	struct loop_fd signals;
	sigset_t mask, mask_before;
	struct signal_watch watch[_NSIG];
	/* loop_post: the only thing other threads may touch */
	pthread_mutex_t post_lock;
	struct post *posts, **posts_end;
	struct loop_fd posted;
	struct loop_turns turns;
	struct timespec turn, turn_cpu;	/* when this one began */
};

int64_t loop_now(const struct loop *loop)
{
	return loop->now;
}

/* --- posts from other threads ------------------------------------------ */

void loop_post(struct loop *loop, void (*fn)(void *user), void *user)
{
	struct post *p = xcalloc(1, sizeof(*p));
	uint64_t one = 1;

	p->fn = fn;
	p->user = user;
	pthread_mutex_lock(&loop->post_lock);
	*loop->posts_end = p;
	loop->posts_end = &p->next;
	pthread_mutex_unlock(&loop->post_lock);
	/* A full counter means that the loop is about to be woken anyway. */
	if (write(loop->posted.fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN);
}

static void run_posts(struct loop_fd *f, uint32_t events)
{
	struct loop *loop = container_of(f, struct loop, posted);
	struct post *p, *next;
	uint64_t count;

	if (read(f->fd, &count, sizeof(count)) < 0)
		assert(errno == EAGAIN);
	pthread_mutex_lock(&loop->post_lock);
	p = loop->posts;
	loop->posts = NULL;
	loop->posts_end = &loop->posts;
	pthread_mutex_unlock(&loop->post_lock);
	for (; p; p = next) {
		next = p->next;
		p->fn(p->user);
		free(p);
	}
}

/* --- life -------------------------------------------------------------- */

struct loop *loop_create(void)
{
	struct loop *loop = xcalloc(1, sizeof(*loop));
	int fd = -1, r;

	list_init(&loop->later);
	pthread_mutex_init(&loop->post_lock, NULL);
	loop->posts_end = &loop->posts;
	sigemptyset(&loop->mask);
	pthread_sigmask(SIG_BLOCK, NULL, &loop->mask_before);
	loop->now = clock_ms();
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll >= 0)
		fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = fd < 0 ? -errno : loop_fd_add(loop, &loop->posted, fd, EPOLLIN, run_posts);
	if (r < 0) {
		if (fd >= 0)
			close(fd);
		loop_destroy(loop);
		errno = -r;
		return NULL;
	}
	return loop;
}

static void close_watched(struct loop_fd *f)
{
	int fd = f->fd;

	if (!f->loop)
		return;
	loop_fd_del(f);
	close(fd);
}

void loop_destroy(struct loop *loop)
{
	if (!loop)
		return;
	close_watched(&loop->posted);
	close_watched(&loop->signals);
	while (loop->posts) {
		struct post *p = loop->posts;

		loop->posts = p->next;
		free(p);
	}
	if (loop->epoll >= 0)
		close(loop->epoll);
	pthread_mutex_destroy(&loop->post_lock);
	pthread_sigmask(SIG_SETMASK, &loop->mask_before, NULL);
	free(loop->heap);
	free(loop);
}

/* --- descriptors ------------------------------------------------------- */

int loop_fd_add(struct loop *loop, struct loop_fd *f, int fd, uint32_t events, loop_fd_cb *cb)
{
	struct epoll_event ev = { .events = events, .data.ptr = f };

	assert(!f->loop);
	if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &ev) < 0)
		return -errno;
	*f = (struct loop_fd){ .loop = loop, .fd = fd, .events = events, .cb = cb };
	return 0;
}

void loop_fd_set(struct loop_fd *f, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = f };

	assert(f->loop);
	if (f->events == events)
		return;
	if (epoll_ctl(f->loop->epoll, EPOLL_CTL_MOD, f->fd, &ev) < 0)
		log_error("epoll: cannot change descriptor %d: %s", f->fd, strerror(errno));
	f->events = events;
}

void loop_fd_del(struct loop_fd *f)
{
	struct loop *loop = f->loop;

	if (!loop)
		return;
	epoll_ctl(loop->epoll, EPOLL_CTL_DEL, f->fd, NULL);
	for (int i = loop->current + 1; i < loop->ready; i++)
		if (loop->batch[i].data.ptr == f)
			loop->batch[i].data.ptr = NULL;
	f->loop = NULL;
}

/* --- timers: a binary heap, earliest first ------------------------------ */

static void heap_put(struct loop *loop, size_t i, struct loop_timer *t)
{
	loop->heap[i] = t;
	t->index = i;
}

static void heap_up(struct loop *loop, size_t i)
{
	struct loop_timer *t = loop->heap[i];

	for (; i > 0 && loop->heap[(i - 1) / 2]->when > t->when; i = (i - 1) / 2)
		heap_put(loop, i, loop->heap[(i - 1) / 2]);
	heap_put(loop, i, t);
}

static void heap_down(struct loop *loop, size_t i)
{
	struct loop_timer *t = loop->heap[i];

	for (;;) {
		size_t child = 2 * i + 1;

		if (child + 1 < loop->timers &&
		    loop->heap[child + 1]->when < loop->heap[child]->when)
			child++;
		if (child >= loop->timers || loop->heap[child]->when >= t->when)
			break;
		heap_put(loop, i, loop->heap[child]);
		i = child;
	}
	heap_put(loop, i, t);
}

void loop_timer_set(struct loop *loop, struct loop_timer *t, int64_t ms, loop_timer_cb *cb)
{
	loop_timer_cancel(t);
	if (loop->timers == loop->heap_cap) {
		loop->heap_cap = loop->heap_cap ? 2 * loop->heap_cap : 16;
		loop->heap = xrealloc(loop->heap, loop->heap_cap * sizeof(*loop->heap));
	}
	*t = (struct loop_timer){ .loop = loop, .when = clock_ms() + (ms > 0 ? ms : 0), .cb = cb };
	heap_put(loop, loop->timers++, t);
	heap_up(loop, t->index);
}

void loop_timer_cancel(struct loop_timer *t)
{
	struct loop *loop = t->loop;
	size_t i = t->index;

	if (!loop)
		return;
	t->loop = NULL;
	if (i == --loop->timers)
		return;
	heap_put(loop, i, loop->heap[loop->timers]);
	heap_up(loop, i);
	heap_down(loop, loop->heap[i]->index);
}

static void run_timers(struct loop *loop)
{
	/* Only those due as of now: a timer set to 0 again and again must not starve epoll. */
	while (loop->timers && loop->heap[0]->when <= loop->now && !loop->stop) {
		struct loop_timer *t = loop->heap[0];

		loop_timer_cancel(t);
		t->cb(t);
	}
}

/* --- later ------------------------------------------------------------- */

void loop_later(struct loop *loop, struct loop_later *l, loop_later_cb *cb)
{
	if (!l->link.next)
		list_init(&l->link);
	l->cb = cb;
	if (list_empty(&l->link))
		list_add_tail(&loop->later, &l->link);
}

void loop_later_cancel(struct loop_later *l)
{
	if (l->link.next)
		list_del(&l->link);
}

static void run_later(struct loop *loop)
{
	LIST_HEAD(now);

	list_splice_tail(&now, &loop->later);
	while (!list_empty(&now)) {
		struct loop_later *l = list_entry(now.next, struct loop_later, link);

		list_del(&l->link);
		l->cb(l);
	}
}

/* --- signals and children ---------------------------------------------- */

static void read_signals(struct loop_fd *f, uint32_t events)
{
	struct loop *loop = container_of(f, struct loop, signals);
	struct signalfd_siginfo info;

	while (f->loop && read(f->fd, &info, sizeof(info)) == sizeof(info)) {
		struct signal_watch *w = &loop->watch[info.ssi_signo];

		if (w->cb)
			w->cb(w->user, (int)info.ssi_signo);
	}
}

int loop_signal(struct loop *loop, int signo, loop_signal_cb *cb, void *user)
{
	int fd;

	assert(signo > 0 && signo < _NSIG);
	loop->watch[signo] = (struct signal_watch){ cb, user };
	sigaddset(&loop->mask, signo);
	pthread_sigmask(SIG_BLOCK, &loop->mask, NULL);
	fd = signalfd(loop->signals.loop ? loop->signals.fd : -1, &loop->mask,
		      SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	return loop->signals.loop ? 0 : loop_fd_add(loop, &loop->signals, fd, EPOLLIN,
						    read_signals);
}

const void *loop_signal_mask(const struct loop *loop)
{
	return &loop->mask_before;
}

static void child_ended(struct loop_fd *f, uint32_t events)
{
	struct loop_child *c = container_of(f, struct loop_child, fd);
	int status = -1, fd = f->fd;

	/* ECHILD: somebody else's child, whose status is not ours to know. */
	if (waitpid(c->pid, &status, WNOHANG) != c->pid)
		status = -1;
	loop_fd_del(f);
	close(fd);
	c->cb(c, status);
}

int loop_child_add(struct loop *loop, struct loop_child *c, pid_t pid, loop_child_cb *cb)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	int r;

	if (fd < 0)
		return -errno;
	c->pid = pid;
	c->cb = cb;
	r = loop_fd_add(loop, &c->fd, fd, EPOLLIN, child_ended);
	if (r < 0)
		close(fd);
	return r;
}

void loop_child_del(struct loop_child *c)
{
	close_watched(&c->fd);
}

/* --- how long turns take ------------------------------------------------ */

static double seconds_since(const struct timespec *then, clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (double)(now.tv_sec - then->tv_sec) + (double)(now.tv_nsec - then->tv_nsec) / 1e9;
}

static void turn_begins(struct loop *loop)
{
	clock_gettime(CLOCK_MONOTONIC, &loop->turn);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &loop->turn_cpu);
}

static void turn_ends(struct loop *loop)
{
	double took = seconds_since(&loop->turn, CLOCK_MONOTONIC);
	double cpu = seconds_since(&loop->turn_cpu, CLOCK_THREAD_CPUTIME_ID);

	histogram_add(&loop->turns.took, took);
	histogram_add(&loop->turns.cpu, cpu);
	if (took > loop->turns.longest)
		loop->turns.longest = took;
	if (cpu > loop->turns.longest_cpu)
		loop->turns.longest_cpu = cpu;
}

const struct loop_turns *loop_turns(const struct loop *loop)
{
	return &loop->turns;
}

/* --- the loop itself ---------------------------------------------------- */

static int sleep_ms(const struct loop *loop)
{
	int64_t ms;

	if (loop->stop || !list_empty(&loop->later))
		return 0;
	if (!loop->timers)
		return -1;
	ms = loop->heap[0]->when - clock_ms();
	return ms < 0 ? 0 : ms > 3600000 ? 3600000 : (int)ms;
}

int loop_run(struct loop *loop)
{
	loop->stop = false;
	turn_begins(loop);
	while (!loop->stop) {
		loop->now = clock_ms();
		run_later(loop);
		turn_ends(loop);
		loop->ready = epoll_wait(loop->epoll, loop->batch, BATCH, sleep_ms(loop));
		if (loop->ready < 0) {
			if (errno != EINTR)
				return -errno;
			loop->ready = 0;
		}
		turn_begins(loop);
		loop->now = clock_ms();
		for (loop->current = 0; loop->current < loop->ready; loop->current++) {
			struct loop_fd *f = loop->batch[loop->current].data.ptr;

			if (f)
				f->cb(f, loop->batch[loop->current].events);
		}
		loop->ready = 0;
		run_timers(loop);
	}
	turn_ends(loop);
	return 0;
}

void loop_stop(struct loop *loop)
{
	loop->stop = true;
}
