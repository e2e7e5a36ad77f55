/*
 * An intrusive doubly linked list, as in the Linux kernel and libwayland. A
 * list head and the entries are the same struct; an entry that is on no list
 * points at itself after list_init or list_del.
 */
#ifndef SBXFS_BASE_LIST_H
#define SBXFS_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#ifndef container_of
#define container_of(ptr, type, member) \
	((type *)(void *)((char *)(ptr) - offsetof(type, member)))
#endif

struct list {
	struct list *next, *prev;
};

#define LIST_HEAD(name) struct list name = { &(name), &(name) }

static inline void list_init(struct list *l)
{
	l->next = l;
	l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

/* Put e before the head: at the end of the list. */
static inline void list_add_tail(struct list *head, struct list *e)
{
	e->prev = head->prev;
	e->next = head;
	head->prev->next = e;
	head->prev = e;
}

static inline void list_add(struct list *head, struct list *e)
{
	list_add_tail(head->next, e);
}

/* Take e off its list; harmless when it is on none (but initialised). */
static inline void list_del(struct list *e)
{
	e->prev->next = e->next;
	e->next->prev = e->prev;
	list_init(e);
}

/* Move all entries of from to the end of to; from is empty afterwards. */
static inline void list_splice_tail(struct list *to, struct list *from)
{
	if (list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

#define list_entry(ptr, type, member) container_of(ptr, type, member)

#define list_for_each(pos, head, type, member)					\
	for (type *pos = list_entry((head)->next, type, member);		\
	     &pos->member != (head);						\
	     pos = list_entry(pos->member.next, type, member))

/* As list_for_each; the body may take pos (and only pos) off the list. */
#define list_for_each_safe(pos, head, type, member)				\
	for (type *pos = list_entry((head)->next, type, member),		\
		  *pos##_next = list_entry(pos->member.next, type, member);	\
	     &pos->member != (head);						\
	     pos = pos##_next,							\
		  pos##_next = list_entry(pos->member.next, type, member))

#endif
