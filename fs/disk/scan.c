/*
 * Notices a walk through the disk and has fetched what it will come to next.
 *
 * Theory of operation. Programs that go through a tree (find, grep -r, git status, ls -lR, tar,
 * npm) ask for one thing at a time, each as long as the round trip. But what they will ask
 * for is plain to see:
 *
 *  - Two names looked up in a folder, one behind the other, that are not known: it is listed.
 *  - A folder looked into, a moment after its parent folder or another one beside it was: a
 *    walk. The folders that follow it are listed ahead of it: those in it, those beside it,
 *    those beside its parent, in the order in which the walk is going to see them.
 *  - Two small files of one folder read one behind the other, or one of a folder that a walk with
 *    reading has come to: the contents of those that follow are fetched too. Not of files
 *    that were read a moment ago, unless the folder is gone through again: who comes back to
 *    one wants to know what it is now.
 *
 * The walk has a place: the folder or file that was asked for last. All that is ahead is found
 * by going on from there, through the entries, in the order in which the server listed them
 * (that is the order in which programs were given them); what is there or on its way
 * is stepped over, what is not is fetched, until nothing more may be on the way (ahead.c). This is
 * done again at each step of the walk and whenever something came. So what is ahead follows the
 * walker, never runs further than STEPS_MAX names, and ends with it.
 *
 * Some walk in the order of names instead: in a folder that is small enough all of it is
 * fetched, whatever the order.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk_internal.h"
#include "buf.h"

/* Two things that happen further apart are no walk. */
#define WALK_MS 1500
/* A folder that is listed again so soon would be one that the walk is through with. */
#define AGAIN_MS 10000
#define STEPS_MAX 4096
/* A hit moves the place of the walk only so often. */
#define HIT_MS 100

struct scan {
	struct disk *disk;
	struct ahead *ahead;
	struct entry *at;		/* counted: where the walk is; NULL: there is none */
	int64_t active, reading;	/* when somebody walked, read */
	bool running;
};

static void run(struct scan *);

static void came(struct disk *disk)
{
	run(disk->scan);
}

struct scan *scan_create(struct disk *disk)
{
	struct scan *s = xcalloc(1, sizeof(*s));

	s->disk = disk;
	s->ahead = ahead_create(disk, came);
	return s;
}

void scan_stop(struct scan *s)
{
	struct entry *at = s->at;

	s->at = NULL;
	entry_unref(at);
	ahead_stop(s->ahead);
}

void scan_destroy(struct scan *s)
{
	if (!s)
		return;
	scan_stop(s);
	ahead_destroy(s->ahead);
	free(s);
}

struct ahead *scan_ahead(struct scan *s)
{
	return s->ahead;
}

static bool lately(const struct entry *e, int64_t when)
{
	return when && loop_now(e->disk->loop) - when < WALK_MS;
}

static bool is_folder(const struct entry *e)
{
	return !e->parent || (e->known && S_ISDIR(e->st.st_mode));
}

/* Is the walk in there, or deeper? */
static bool is_above(const struct entry *dir, const struct entry *e)
{
	for (; e; e = e->parent)
		if (e == dir)
			return true;
	return false;
}

/* --- what comes next ------------------------------------------------------------------- */

/* Behind e: what is in it, then what is beside it, then what is beside the folder that it is in. */
static struct entry *next_of(struct entry *e)
{
	if (is_folder(e) && e->children && folder_is_complete(e))
		return e->children;
	for (; e && e->parent; e = e->parent) {
		const struct folder *f = e->parent->folder;

		if (e->hh.next)
			return e->hh.next;
		/* Nobody walks up there. */
		if (!f || !(lately(e, f->visited) || lately(e, f->child_visited)))
			break;
	}
	return NULL;
}

static bool wants_folder(const struct scan *s, const struct entry *e)
{
	return is_folder(e) && !folder_is_complete(e) && !ahead_has(e);
}

/* Is it read again, by somebody who does not go through the folder once more? */
static bool was_just_read(const struct entry *e)
{
	const struct folder *f = e->parent ? e->parent->folder : NULL;

	return e->read_at && clock_ms() - e->read_at < AGAIN_MS && !(f && lately(e, f->opened));
}

static bool wants_file(const struct scan *s, const struct entry *e)
{
	if (!e->known || ahead_has(e) || was_just_read(e))
		return false;
	return S_ISLNK(e->st.st_mode) ||
	       (S_ISREG(e->st.st_mode) && lately(e, s->reading) && !ahead_is_wasted(s->ahead));
}

/* One entry on the way ahead. False: there is no more room. */
static bool consider(struct scan *s, struct entry *e)
{
	if (wants_folder(s, e)) {
		if (!ahead_room_lists(s->ahead))
			return false;
		ahead_fetch(s->ahead, e);
	} else if (wants_file(s, e)) {
		if (!ahead_room_files(s->ahead))
			return false;
		ahead_fetch(s->ahead, e);
	}
	return true;
}

/*
 * Those beside the place that come before it: a walk in the order of names comes to them as well.
 */
static void consider_others(struct scan *s, struct entry *at)
{
	struct entry *dir = at->parent;
	unsigned steps = 0;

	if (!dir || !folder_is_complete(dir))
		return;
	for (struct entry *e = dir->children; e && e != at && steps++ < STEPS_MAX / 16;
	     e = e->hh.next)
		if ((!e->scanned || clock_ms() - e->scanned > AGAIN_MS) && !consider(s, e))
			return;
}

static void run(struct scan *s)
{
	unsigned steps = 0;

	if (s->running || !s->at || !s->at->attached || !lately(s->at, s->active) ||
	    s->disk->state != DISK_READY)
		return;
	s->running = true;
	/* Fetching changes no table of names: that takes an answer. */
	for (struct entry *e = next_of(s->at); e && steps++ < STEPS_MAX; e = next_of(e))
		if (!consider(s, e))
			break;
	consider_others(s, s->at);
	if (s->at->parent)
		consider_others(s, s->at->parent);
	s->running = false;
}

static void move_to(struct scan *s, struct entry *e)
{
	struct entry *before = s->at;

	s->at = entry_ref(e);
	s->active = clock_ms();
	entry_unref(before);
	run(s);
}

/* --- what users do --------------------------------------------------------------------- */

void scan_visit(struct entry *dir)
{
	struct folder *f, *up;
	struct scan *s;
	bool again, walk;

	if (!dir->disk || !dir->attached)
		return;
	s = dir->disk->scan;
	f = folder_get(dir);
	up = dir->parent ? folder_get(dir->parent) : NULL;
	again = lately(dir, f->visited);
	walk = up && (lately(dir, up->visited) || (lately(dir, up->child_visited) && !again) ||
		      (s->at && is_above(dir->parent, s->at) && lately(dir, s->active)));
	f->visited = clock_ms();
	if (up)
		up->child_visited = f->visited;
	if (walk && !(s->at && s->at != dir && is_above(dir, s->at)))
		move_to(s, dir);
}

void scan_hit(struct entry *dir)
{
	struct folder *f = dir->folder;

	if (f && clock_ms() - f->visited >= HIT_MS)
		scan_visit(dir);
}

void scan_miss(struct entry *dir, const char *name)
{
	struct folder *f;

	if (!dir->disk || !dir->attached)
		return;
	f = folder_get(dir);
	if (!strncmp(f->missed_name, name, sizeof(f->missed_name) - 1))
		return;		/* the same again: somebody waits for it */
	snprintf(f->missed_name, sizeof(f->missed_name), "%s", name);
	f->misses = lately(dir, f->missed) ? f->misses + 1 : 1;
	f->missed = clock_ms();
	if (f->misses < 2 || folder_is_complete(dir) || ahead_has(dir) || !is_folder(dir) ||
	    !ahead_room_lists(dir->disk->scan->ahead))
		return;
	ahead_fetch(dir->disk->scan->ahead, dir);
	scan_visit(dir);
}

void scan_read(struct entry *e, bool was_ahead)
{
	struct scan *s = e->disk->scan;
	struct folder *f;
	bool again;

	if (!e->attached)
		return;
	f = folder_get(e->parent);
	/* Who comes back to a file wants to know what it is now: that is no walk. */
	again = was_just_read(e);
	f->reads = again ? 0 : lately(e, f->read_at) ? f->reads + 1 : 1;
	f->read_at = e->read_at = clock_ms();
	if (again)
		return;
	if (!was_ahead && f->reads < 2 && !(lately(e, f->visited) && lately(e, s->reading)))
		return;
	s->reading = f->read_at;
	move_to(s, e);
}
