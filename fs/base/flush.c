/*
 * The helper thread for fsync(2), and for files that nobody waits for: see flush.h.
 *
 * It gets copies of paths and texts, a batch at a time, and posts to the loop how far it has
 * come. The lock guards `shared`, nothing else of the program; `waiting` is the loop's.
 *
 * A file is written by the loop and by the thread, beside it under the same name, but never by
 * both: what the loop does to it drops the text that the thread has not begun to write, and
 * waits for the one that it is writing (drop_file_soon).
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

struct text {
	struct list link;
	char *path;
	void *data;
	unsigned len;
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t work, done_some;
	struct batch batch;
	struct list texts;		/* to be written, the newest of each path */
	const char *writing;		/* the path of the one being written, or NULL */
	unsigned long asked, done;	/* paths and texts so far */
	int error;			/* the first that the loop has not been told of */
	char error_path[256];
	bool ending;
} shared = {
	.lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER,
	.done_some = PTHREAD_COND_INITIALIZER, .texts = { &shared.texts, &shared.texts },
};
static pthread_t thread;
static struct loop *loop;		/* NULL: there is no thread */
static LIST_HEAD(waiting);
static int last_error;
static unsigned long told_of;		/* paths that it is about */

static int put_file(const char *path, const void *data, unsigned len);

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

static void add_path(struct batch *b, char *path)
{
	if (b->count == b->room) {
		b->room = b->room ? 2 * b->room : 16;
		b->paths = xrealloc(b->paths, b->room * sizeof(*b->paths));
	}
	b->paths[b->count++] = path;
}

static void text_free(struct text *t)
{
	list_del(&t->link);
	free(t->path);
	free(t->data);
	free(t);
}

/*
 * One after the other, so that the loop waits for one at most; then they are to be synced.
 * With the lock held.
 */
static void write_texts(char *error_path, size_t size, int *error)
{
	while (!list_empty(&shared.texts)) {
		struct text *t = list_entry(shared.texts.next, struct text, link);
		int r;

		list_del(&t->link);
		shared.writing = t->path;
		pthread_mutex_unlock(&shared.lock);
		r = put_file(t->path, t->data, t->len);
		pthread_mutex_lock(&shared.lock);
		shared.writing = NULL;
		pthread_cond_broadcast(&shared.done_some);
		if (r < 0 && *error == 0) {
			*error = r;
			snprintf(error_path, size, "%s", t->path);
		}
		add_path(&shared.batch, xstrdup(t->path));
		*strrchr(t->path, '/') = 0;
		add_path(&shared.batch, xstrdup(t->path));
		text_free(t);
	}
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Each path once, however often it was given: folders are in every batch many times. */
static void sync_batch(struct batch *b, char *error_path, size_t size, int *error)
{
	if (b->count > 0)		/* what was asked for may all have been dropped */
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

/* With the lock held, but for the while in which it syncs. */
static void flush_batch(void)
{
	char path[sizeof(shared.error_path)] = "";
	struct batch batch;
	unsigned long upto;
	int error = 0;

	write_texts(path, sizeof(path), &error);
	batch = shared.batch;
	upto = shared.asked;
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
}

static void *helper(void *unused)
{
	pthread_mutex_lock(&shared.lock);
	while (!shared.ending || shared.done != shared.asked) {
		/* Not by what there is to do: a text may have been dropped. */
		if (shared.done == shared.asked) {
			pthread_cond_wait(&shared.work, &shared.lock);
			continue;
		}
		flush_batch();
		/* Without the lock: the loop, woken, wants it. */
		pthread_mutex_unlock(&shared.lock);
		loop_post(loop, told, NULL);
		pthread_mutex_lock(&shared.lock);
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
	if (!loop)
		return sync_path(path);
	pthread_mutex_lock(&shared.lock);
	add_path(&shared.batch, xstrdup(path));
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

static int put_file(const char *path, const void *data, unsigned len)
{
	char *temp = xasprintf("%s.new", path);
	int r;

	unlink(temp);
	r = write_whole(temp, data, len);
	if (r == 0)
		r = put_in_place(temp, path);
	if (r < 0)
		unlink(temp);
	free(temp);
	return r;
}

/* What the thread was to write there is older than what the loop does now. With the lock held. */
static void drop_text(const char *path)
{
	list_for_each_safe(t, &shared.texts, struct text, link)
		if (!strcmp(t->path, path))
			text_free(t);
}

void drop_file_soon(const char *path)
{
	pthread_mutex_lock(&shared.lock);
	drop_text(path);
	while (shared.writing && !strcmp(shared.writing, path))
		pthread_cond_wait(&shared.done_some, &shared.lock);
	pthread_mutex_unlock(&shared.lock);
}

int write_file(const char *path, const void *data, unsigned len, bool sync, struct err *err)
{
	char *temp = xasprintf("%s.new", path), *dir = xstrdup(path);
	int r;

	*strrchr(dir, '/') = 0;
	drop_file_soon(path);
	r = put_file(path, data, len);
	if (r == 0 && sync)
		r = flush_path(path);
	if (r == 0 && sync)
		r = flush_path(dir);
	if (!sync)
		unlink(temp);
	if (r < 0)
		err_sys(err, r, "cannot write %s", path);
	free(temp);
	free(dir);
	return r;
}

int write_file_soon(const char *path, const void *data, unsigned len, struct err *err)
{
	struct text *t;

	if (!loop)
		return write_file(path, data, len, true, err);
	t = xcalloc(1, sizeof(*t));
	t->path = xstrdup(path);
	t->data = xmalloc(len + 1);
	memcpy(t->data, data, len);
	t->len = len;
	pthread_mutex_lock(&shared.lock);
	drop_text(path);
	list_add_tail(&shared.texts, &t->link);
	shared.asked++;
	pthread_cond_signal(&shared.work);
	pthread_mutex_unlock(&shared.lock);
	return 0;
}

int remove_file(const char *path)
{
	char *temp = xasprintf("%s.new", path);
	int r = 0;

	drop_file_soon(path);
	unlink(temp);
	free(temp);
	if (unlink(path) < 0 && errno != ENOENT)
		r = -errno;
	return r;
}
