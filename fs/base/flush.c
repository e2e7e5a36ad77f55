/*
 * The helper thread for fsync(2): see flush.h.
 *
 * It gets copies of paths, a batch at a time, and posts to the loop how far it has
 * come. The lock guards `shared`, nothing else of the program; `waiting` is the loop's.
 */
#include "flush.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "log.h"
#include "loop.h"

struct batch {
	char **paths;
	size_t count, room;
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t work, done_some;
	struct batch batch;
	unsigned long asked, done;	/* paths so far */
	int error;			/* the first that the loop has not been told of */
	char error_path[256];
	bool ending;
} shared = {
	.lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER,
	.done_some = PTHREAD_COND_INITIALIZER,
};
static pthread_t thread;
static struct loop *loop;		/* NULL: there is no thread */
static LIST_HEAD(waiting);
static int last_error;
static unsigned long told_of;		/* paths that it is about */

static int sync_path(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), r = 0;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (fsync(fd) < 0)
		r = -errno;
	close(fd);
	return r;
}

/* --- the thread ------------------------------------------------------------------- */

/* On the loop's thread. */
static void told(void *user)
{
	char path[sizeof(shared.error_path)];
	unsigned long done;
	int error;

	pthread_mutex_lock(&shared.lock);
	done = shared.done;
	error = shared.error;
	memcpy(path, shared.error_path, sizeof(path));
	shared.error = 0;
	pthread_mutex_unlock(&shared.lock);
	/* It is posted by who waits as well, and then has no news. */
	if (done != told_of)
		last_error = error;
	told_of = done;
	if (error < 0)
		log_error("cannot sync %s: %s", path, strerror(-error));
	list_for_each(w, &waiting, struct flush_wait, link)
		w->error = w->error ? w->error : error;
	while (!list_empty(&waiting)) {
		struct flush_wait *w = list_entry(waiting.next, struct flush_wait, link);

		if (w->upto > done)
			break;
		list_del(&w->link);
		w->cb(w, w->error);
	}
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Each path once, however often it was given: folders are in every batch many times. */
static void sync_batch(struct batch *b, char *error_path, size_t size, int *error)
{
	qsort(b->paths, b->count, sizeof(*b->paths), by_name);
	for (size_t i = 0; i < b->count; i++) {
		int r = i > 0 && !strcmp(b->paths[i], b->paths[i - 1]) ? 0 :
			sync_path(b->paths[i]);

		if (r < 0 && *error == 0) {
			*error = r;
			snprintf(error_path, size, "%s", b->paths[i]);
		}
	}
	for (size_t i = 0; i < b->count; i++)
		free(b->paths[i]);
	free(b->paths);
}

static void *helper(void *unused)
{
	pthread_mutex_lock(&shared.lock);
	while (!shared.ending || shared.batch.count > 0) {
		struct batch batch = shared.batch;
		unsigned long upto = shared.asked;
		char path[sizeof(shared.error_path)] = "";
		int error = 0;

		if (batch.count == 0) {
			pthread_cond_wait(&shared.work, &shared.lock);
			continue;
		}
		memset(&shared.batch, 0, sizeof(shared.batch));
		pthread_mutex_unlock(&shared.lock);
		sync_batch(&batch, path, sizeof(path), &error);
		pthread_mutex_lock(&shared.lock);
		shared.done = upto;
		if (error < 0 && shared.error == 0) {
			shared.error = error;
			memcpy(shared.error_path, path, sizeof(path));
		}
		pthread_cond_broadcast(&shared.done_some);
		loop_post(loop, told, NULL);
	}
	pthread_mutex_unlock(&shared.lock);
	return NULL;
}

void flush_start(struct loop *l)
{
	sigset_t all, before;
	int e;

	loop = l;
	shared.ending = false;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	e = pthread_create(&thread, NULL, helper, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (e) {
		log_warn("records are synced one by one: no thread: %s", strerror(e));
		loop = NULL;
	}
}

void flush_finish(void)
{
	if (!loop)
		return;
	pthread_mutex_lock(&shared.lock);
	shared.ending = true;
	pthread_cond_signal(&shared.work);
	pthread_mutex_unlock(&shared.lock);
	pthread_join(thread, NULL);
	told(NULL);
	assert(list_empty(&waiting));
	loop = NULL;
}

/* --- what is to be synced ------------------------------------------------------------ */

int flush_path(const char *path)
{
	struct batch *b = &shared.batch;

	if (!loop)
		return sync_path(path);
	pthread_mutex_lock(&shared.lock);
	if (b->count == b->room) {
		b->room = b->room ? 2 * b->room : 16;
		b->paths = xrealloc(b->paths, b->room * sizeof(*b->paths));
	}
	b->paths[b->count++] = xstrdup(path);
	shared.asked++;
	pthread_cond_signal(&shared.work);
	pthread_mutex_unlock(&shared.lock);
	return 0;
}

bool flush_idle(void)
{
	bool idle;

	pthread_mutex_lock(&shared.lock);
	idle = shared.done == shared.asked && !shared.error;
	pthread_mutex_unlock(&shared.lock);
	/* Whoever waits is told first. */
	return idle && list_empty(&waiting);
}

int flush_error(void)
{
	return last_error;
}

void flush_wait(struct flush_wait *w, flush_cb *cb)
{
	assert(loop);
	flush_cancel(w);
	list_init(&w->link);
	w->cb = cb;
	w->error = 0;
	pthread_mutex_lock(&shared.lock);
	w->upto = shared.asked;
	pthread_mutex_unlock(&shared.lock);
	list_add_tail(&waiting, &w->link);
	loop_post(loop, told, NULL);	/* it may be so already */
}

void flush_cancel(struct flush_wait *w)
{
	if (w->link.next)
		list_del(&w->link);
}

bool flush_is_waiting(const struct flush_wait *w)
{
	return w->link.next && !list_empty(&w->link);
}

void flush_now(void)
{
	pthread_mutex_lock(&shared.lock);
	while (shared.done != shared.asked)
		pthread_cond_wait(&shared.done_some, &shared.lock);
	pthread_mutex_unlock(&shared.lock);
}

/* --- files --------------------------------------------------------------------------------- */

static int write_whole(const char *path, const char *p, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), r = 0;

	if (fd < 0)
		return -errno;
	while (len > 0 && r == 0) {
		ssize_t n = write(fd, p, len);

		if (n >= 0) {
			p += n;
			len -= (size_t)n;
		} else if (errno != EINTR) {
			r = -errno;
		}
	}
	if (close(fd) < 0 && r == 0)
		r = -errno;
	return r;
}

/*
 * Exchanged, not replaced: ext4 starts to write a file out in the midst of a rename that
 * replaces another (and at the close of one that was truncated), which takes as long as the
 * disk is busy. And the text before stays, in case the new one never gets to the disk.
 */
static int put_in_place(const char *temp, const char *path)
{
	if (renameat2(AT_FDCWD, temp, AT_FDCWD, path, RENAME_EXCHANGE) == 0)
		return 0;
	return rename(temp, path) < 0 ? -errno : 0;
}

int write_file(const char *path, const void *data, unsigned len, bool sync, struct err *err)
{
	char *temp = xasprintf("%s.new", path), *dir = xstrdup(path);
	int r;

	*strrchr(dir, '/') = 0;
	unlink(temp);
	r = write_whole(temp, data, len);
	if (r == 0)
		r = put_in_place(temp, path);
	if (r == 0 && sync)
		r = flush_path(path);
	if (r == 0 && sync)
		r = flush_path(dir);
	if (r < 0 || !sync)
		unlink(temp);
	if (r < 0)
		err_sys(err, r, "cannot write %s", path);
	free(temp);
	free(dir);
	return r;
}

int remove_file(const char *path)
{
	char *temp = xasprintf("%s.new", path);
	int r = 0;

	unlink(temp);
	free(temp);
	if (unlink(path) < 0 && errno != ENOENT)
		r = -errno;
	return r;
}
