/*
 * What is remembered of folders: their names, for a moment.
 *
 * Theory of operation. An entry lives as long as somebody holds it (entry.c). A folder's record
 * here is one such holder: it keeps the entries that a listing has told of, so that their
 * attributes are there when somebody asks for them one by one, and it knows whether those
 * are all the names there are. Then a name that has no entry does not exist, and nobody has
 * to ask the guest (git and compilers look for more files that are not there than for others).
 *
 * What is remembered is believed for FRESH_MS at most, counted from when it was asked for, and not
 * at all once a command of the sandbox has ended or said something since (disk->jobs). Changes
 * made through here keep a complete folder complete: what is made gets an entry, which is kept,
 * and what is removed loses it. Where the outcome of a change is not known, the folder is not
 * complete any more.
 *
 * Records are dropped after DROP_MS without use, and the least recently used first when all
 * sandboxes together hold more than the budget ([mount] cache). Entries that the kernel
 * holds as well outlive that: they are the kernel's.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "disk_internal.h"
#include "buf.h"

/* Records nobody has used for that long; their names are gone after two FRESH_MS. */
#define DROP_MS 10000
/* A folder's time this long ago will be another one when its names change. */
#define SETTLED_S 2
/* An entry with its name, and what malloc adds. */
#define ENTRY_COST (sizeof(struct entry) + 64)

struct disk_cache {
	struct loop *loop;
	unsigned refs;
	size_t budget, used;
	struct list folders;		/* the least recently used first */
	struct loop_timer expire;
};

struct disk_cache *disk_cache_create(struct loop *loop, size_t budget)
{
	struct disk_cache *c = xcalloc(1, sizeof(*c));

	c->loop = loop;
	c->refs = 1;
	c->budget = budget;
	list_init(&c->folders);
	return c;
}

struct disk_cache *disk_cache_ref(struct disk_cache *c)
{
	c->refs++;
	return c;
}

void disk_cache_unref(struct disk_cache *c)
{
	if (!c || --c->refs > 0)
		return;
	while (!list_empty(&c->folders))
		folder_destroy(list_entry(c->folders.next, struct folder, lru));
	loop_timer_cancel(&c->expire);
	free(c);
}

size_t disk_cache_used(const struct disk_cache *c)
{
	return c->used;
}

/* --- records ----------------------------------------------------------------------- */

static void uncharge(struct folder *f, size_t cost)
{
	f->cost -= cost;
	f->cache->used -= cost;
}

static void charge(struct folder *f, size_t cost)
{
	f->cost += cost;
	f->cache->used += cost;
}

static void let_go(struct folder *f, struct entry *e)
{
	e->kept = false;
	uncharge(f, ENTRY_COST);
	entry_unref(e);
}

static void drop_names(struct folder *f)
{
	struct entry *e, *next;

	f->complete = false;
	if (f->cost <= sizeof(*f))
		return;
	HASH_ITER(hh, f->dir->children, e, next)
		if (e->kept)
			let_go(f, e);
}

void folder_destroy(struct folder *f)
{
	struct entry *dir = f->dir;

	drop_names(f);
	uncharge(f, sizeof(*f));
	dir->folder = NULL;
	list_del(&f->lru);
	free(f);
	entry_unref(dir);
}

static void expire(struct loop_timer *t)
{
	struct disk_cache *c = container_of(t, struct disk_cache, expire);
	int64_t now = clock_ms();

	list_for_each_safe(f, &c->folders, struct folder, lru) {
		if (now - f->used >= DROP_MS)
			folder_destroy(f);
		else if (!f->marking && now - f->when >= 2 * FRESH_MS)
			drop_names(f);
	}
	if (!list_empty(&c->folders))
		loop_timer_set(c->loop, t, FRESH_MS, expire);
}

struct folder *folder_get(struct entry *dir)
{
	struct disk_cache *c = dir->disk->cache;
	struct folder *f = dir->folder;

	if (!f) {
		f = dir->folder = xcalloc(1, sizeof(*f));
		f->cache = c;
		f->dir = entry_ref(dir);
		list_init(&f->lru);
		charge(f, sizeof(*f));
		if (!loop_timer_is_set(&c->expire))
			loop_timer_set(c->loop, &c->expire, FRESH_MS, expire);
	}
	f->used = clock_ms();
	list_del(&f->lru);
	list_add_tail(&c->folders, &f->lru);
	return f;
}

/* --- names -------------------------------------------------------------------------- */

static void keep(struct folder *f, struct entry *e)
{
	if (e->kept)
		return;
	e->kept = true;
	entry_ref(e);
	charge(f, ENTRY_COST);
}

/* A folder that does not fit is not remembered: the last record to go is its own. */
static void evict(struct disk_cache *c)
{
	while (c->used > c->budget && !list_empty(&c->folders))
		folder_destroy(list_entry(c->folders.next, struct folder, lru));
}

void folder_keep(struct entry *e)
{
	struct folder *f = e->parent ? e->parent->folder : NULL;

	if (f) {
		keep(f, e);
		evict(f->cache);
	}
}

void folder_lose(struct entry *e, struct entry *dir)
{
	if (e->kept)
		let_go(dir->folder, e);
}

void folder_uncertain(struct entry *dir)
{
	if (!dir || !dir->folder)
		return;
	dir->folder->complete = false;
	dir->folder->marking = NULL;
}

bool folder_is_complete(const struct entry *dir)
{
	const struct folder *f = dir->folder;

	return f && f->complete && dir->disk && f->jobs == dir->disk->jobs &&
	       clock_ms() - f->when < FRESH_MS;
}

double disk_names_hold(const struct entry *dir)
{
	return folder_is_complete(dir) ?
	       (double)(FRESH_MS - (clock_ms() - dir->folder->when)) / 1000 : 0;
}

uint64_t disk_edition(const struct entry *dir)
{
	return dir->edition;
}

/* Of what changes from now on another second will tell, which is all that SFTP tells. */
bool disk_names_settled(const struct entry *dir)
{
	return folder_is_complete(dir) && dir->known && dir->st.st_mtime + SETTLED_S < time(NULL);
}

void folder_is_new(struct entry *dir, struct stamp stamp)
{
	struct folder *f = folder_get(dir);

	f->complete = true;
	f->when = clock_ms();
	f->jobs = stamp.jobs;
	dir->edition++;
}

/* --- listings ------------------------------------------------------------------------ */

unsigned folder_mark(struct entry *dir, struct listing *l)
{
	struct folder *f = folder_get(dir);

	if (f->marking)
		return 0;
	f->marking = l;
	return ++dir->disk->rounds;
}

void folder_unmark(struct entry *dir, struct listing *l)
{
	if (dir->folder && dir->folder->marking == l)
		dir->folder->marking = NULL;
}

void folder_listed(struct entry *dir, struct listing *l, unsigned round, struct stamp stamp,
		   int64_t when)
{
	struct folder *f = dir->folder;
	struct entry *e, *next;

	if (!f || f->marking != l)
		return;
	f->marking = NULL;
	/* It may have told a name from before we took it away. */
	if (dir->below_changed > stamp.changes || stamp_moved(dir->disk, stamp))
		return;
	/* What was made here since it began may be behind where it was reading: it is there. */
	HASH_ITER(hh, dir->children, e, next)
		if (e->round != round && e->made <= stamp.changes)
			entry_detach(e);
	for (e = dir->children; e; e = e->hh.next)
		keep(f, e);
	f->complete = true;
	f->when = when;
	f->jobs = stamp.jobs;
	dir->edition++;
	evict(f->cache);
}
