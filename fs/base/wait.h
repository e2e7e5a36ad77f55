/*
 * Who waits for news. A struct waiter stands on at most one wait_list; waking
 * takes it off and calls it. What it waited for may or may not be true by then:
 * it looks again, and waits again if it must.
 */
#ifndef SBXFS_BASE_WAIT_H
#define SBXFS_BASE_WAIT_H

#include "list.h"

struct waiter;
typedef void waiter_cb(struct waiter *);

struct waiter {
	struct list link;
	waiter_cb *wake;
};

struct wait_list {
	struct list waiters;
};

static inline void wait_init(struct wait_list *w)
{
	list_init(&w->waiters);
}

static inline void waiter_init(struct waiter *w, waiter_cb *wake)
{
	list_init(&w->link);
	w->wake = wake;
}

static inline void wait_add(struct wait_list *list, struct waiter *w)
{
	list_add_tail(&list->waiters, &w->link);
}

static inline void wait_cancel(struct waiter *w)
{
	list_del(&w->link);
}

/*
 * Wake everybody who waits now, in order. Callbacks may add themselves (or
 * others) again, cancel each other, or free the wait_list's owner: the list
 * head is not touched once the first callback runs.
 */
static inline void wait_wake(struct wait_list *list)
{
	LIST_HEAD(now);

	list_splice_tail(&now, &list->waiters);
	while (!list_empty(&now)) {
		struct waiter *w = list_entry(now.next, struct waiter, link);

		list_del(&w->link);
		w->wake(w);
	}
}

#endif
