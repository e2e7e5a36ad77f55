/* The helper thread for what is removed: see remove.h. It has a queue of paths, under the lock. */
#include "remove.h"

#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "list.h"
#include "log.h"
#include "loop.h"

struct tree {
	struct list link;
	int error;
	char path[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER;
static LIST_HEAD(trees);
static LIST_HEAD(failed);		/* to be told by the loop */
static bool ending = true;	/* nothing is to come: who has the queue ends with it */
static pthread_t thread;
static struct loop *loop;		/* NULL: there is no thread */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path) < 0 && errno != ENOENT ? -errno : 0;
}

int remove_tree(const char *path)
{
	int r = nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);

	if (r == -1)
		r = errno == ENOENT ? 0 : -errno;
	return r;
}

static void complain(void *unused)
{
	pthread_mutex_lock(&lock);
	while (!list_empty(&failed)) {
		struct tree *t = list_entry(failed.next, struct tree, link);

		list_del(&t->link);
		log_warn("cannot remove %s: %s", t->path, strerror(-t->error));
		free(t);
	}
	pthread_mutex_unlock(&lock);
}

static void *helper(void *unused)
{
	pthread_mutex_lock(&lock);
	while (!ending || !list_empty(&trees)) {
		struct tree *t;

		if (list_empty(&trees)) {
			pthread_cond_wait(&work, &lock);
			continue;
		}
		t = list_entry(trees.next, struct tree, link);
		list_del(&t->link);
		pthread_mutex_unlock(&lock);
		t->error = remove_tree(t->path);
		pthread_mutex_lock(&lock);
		if (!t->error) {
			free(t);
			continue;
		}
		list_add_tail(&failed, &t->link);
		if (loop)
			loop_post(loop, complain, NULL);
	}
	pthread_mutex_unlock(&lock);
	return NULL;
}

void remove_start(struct loop *l)
{
	sigset_t all, before;
	int e;

	loop = l;
	ending = false;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	e = pthread_create(&thread, NULL, helper, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (e) {
		log_warn("what is removed is waited for: no thread: %s", strerror(e));
		loop = NULL;
		ending = true;
	}
}

void remove_finish(void)
{
	if (!loop)
		return;
	pthread_mutex_lock(&lock);
	ending = true;
	pthread_cond_signal(&work);
	pthread_mutex_unlock(&lock);
	pthread_join(thread, NULL);
	complain(NULL);
	loop = NULL;
}

void remove_soon(const char *path)
{
	struct tree *t = xcalloc(1, sizeof(*t) + strlen(path) + 1);

	strcpy(t->path, path);
	pthread_mutex_lock(&lock);
	list_add_tail(&trees, &t->link);
	pthread_cond_signal(&work);
	pthread_mutex_unlock(&lock);
	if (!loop) {
		helper(NULL);
		complain(NULL);
	}
}
