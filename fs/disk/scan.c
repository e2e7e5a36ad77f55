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
 *    that were read a moment ago, unless the folder, or one that it is in, is gone through
 *    again: who comes back to one wants to know what it is now.
 *
 * The walk has a place: the folder or file that was asked for last. All that is ahead is found
 * by going on from there, through the entries, in the order in which the server listed them
 * (that is the order in which programs were given them); what is there or on its way
 * is stepped over, what is not is fetched, until nothing more may be on the way (ahead.c). This is
 * done again at the steps of the walk and when something came: at each of them while the walker
 * is close behind, else when he has come an eighth nearer. So what is ahead follows the walker,
 * never runs further than STEPS_MAX names, nor much further than the walker will come while it is
 * believed, and ends with it.
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
/* Folders ahead of a walker that has just begun. */
#define FOLDERS_FIRST 24
#define FOLDERS_READ 6
/* A hit moves the place of the walk only so often. */
#define HIT_MS 100
/* A walk that has come to so many folders without reading does not read. */
#define UNREAD_MAX 8
/* So long it is taken for clear. */
#define CLEAR_MS 100

struct scan {
	struct disk *disk;
	struct ahead *ahead;
	struct entry *at;		/* counted: where the walk is; NULL: there is none */
	int64_t since, pass;		/* the walk that goes on began, and its latest pass */
	int64_t active, reading;	/* when somebody walked, read */
	int64_t paced;			/* … folders that the walk came to since then, */
	unsigned pace, last_pace;	/* and in the second before that */
	unsigned unread;		/* folders that it came to since somebody read */
	unsigned spare;			/* so many things may come until it is gone over again */
	bool running;
};

static void run(struct scan *);

static void came(struct disk *disk)
{
	struct scan *s = disk->scan;

	if (s->spare > 0)
		s->spare--;
	else
		run(s);
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

/* git reads what it keeps before it goes through the files, and those it does not read. */
static bool reads(const struct scan *s, const struct entry *e)
{
	return lately(e, s->reading) && s->unread <= UNREAD_MAX;
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

/* The walk came through dir, and will come back to what is beside it. */
static bool came_through(const struct scan *s, const struct entry *dir)
{
	const struct folder *f = dir->folder;

	return f && (f->visited >= s->since || f->child_visited >= s->since);
}

/*
 * What git and the like keep in a tree is found by name: only who lists it (find, grep -r) goes
 * through it, in the order of the walk.
 */
static bool is_store(const struct scan *s, const struct entry *dir)
{
	static const char *const names[] = { ".git", ".hg", ".jj", ".svn" };

	if (!dir->parent || dir->name[0] != '.')
		return false;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(dir->name, names[i]) == 0)
			return !dir->folder || dir->folder->opened < s->since;
	return false;
}

static bool in_store(const struct scan *s, const struct entry *e)
{
	for (; e; e = e->parent)
		if (is_store(s, e))
			return true;
	return false;
}

/* Behind e: what is in it, then what is beside it, then what is beside the folder that it is in. */
static struct entry *next_of(const struct scan *s, struct entry *e)
{
	if (is_folder(e) && e->children && folder_is_complete(e) && !is_store(s, e))
		return e->children;
	for (; e && e->parent; e = e->parent) {
		if (e->hh.next)
			return e->hh.next;
		if (is_above(e->parent, s->at) && !came_through(s, e->parent))
			break;
	}
	return NULL;
}

static bool wants_folder(const struct scan *s, const struct entry *e)
{
	return is_folder(e) && !folder_is_complete(e) && !ahead_has(e);
}

/* Is it read again, by somebody who has not listed the folder once more since? */
static bool was_just_read(const struct entry *e)
{
	const struct folder *f = e->parent ? e->parent->folder : NULL;

	return e->read_at && clock_ms() - e->read_at < AGAIN_MS &&
	       !(f && f->opened > e->read_at && lately(e, f->opened)) &&
	       e->read_at >= e->disk->scan->pass;
}

static bool wants_file(const struct scan *s, const struct entry *e)
{
	if (!e->known || ahead_has(e) || was_just_read(e))
		return false;
	return S_ISLNK(e->st.st_mode) ||
	       (S_ISREG(e->st.st_mode) && reads(s, e) && !ahead_is_wasted(s->ahead));
}

/*
 * Files are fetched in the order of the walk only: not those behind a folder whose names have not
 * come, for the walker reads what is in it before them, and what lies ready grows old.
 */
struct room {
	unsigned folders;		/* how many more may be ahead */
	bool files;
};

/* One entry on the way ahead. False: there is no more room. */
static bool consider(struct scan *s, struct entry *e, struct room *room)
{
	if (is_folder(e)) {
		if (room->folders == 0)
			return false;
		room->folders--;
		if (wants_folder(s, e)) {
			if (!ahead_room_lists(s->ahead))
				return false;
			ahead_fetch(s->ahead, e);
		}
		room->files = room->files && folder_is_complete(e);
	} else if (room->files && wants_file(s, e)) {
		room->files = ahead_room_files(s->ahead) > 0;
		if (room->files)
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
	struct room room = { FOLDERS_FIRST, true };
	unsigned steps = 0;

	if (!dir || !folder_is_complete(dir) || in_store(s, dir))
		return;
	for (struct entry *e = dir->children; e && e != at && steps++ < STEPS_MAX / 16;
	     e = e->hh.next)
		if ((!e->scanned || clock_ms() - e->scanned > AGAIN_MS) && !consider(s, e, &room))
			return;
}

/*
 * As many as it came to in a second, twice those of this one while it gets going. Who reads is
 * slower: names that come too early are no longer believed when he is there.
 */
static unsigned folders_ahead(const struct scan *s)
{
	unsigned n = 2 * s->pace > s->last_pace ? 2 * s->pace : s->last_pace;
	bool reading = reads(s, s->at);
	unsigned least = reading ? FOLDERS_READ : FOLDERS_FIRST;

	if (in_store(s, s->at))
		return least;
	if (reading)
		n /= 4;
	return n > least ? n : least;
}

/* Would the walker have to wait for it? */
static bool is_missing(const struct scan *s, const struct entry *e, bool reading)
{
	if (is_folder(e))
		return !folder_is_complete(e);
	return reading && !e->parked && (ahead_has(e) || wants_file(s, e));
}

/*
 * So much is ready ahead of the walk: on the first steps of it nothing has to be done. Several
 * may walk at once (git does), each on ground of his own.
 */
static void mark_clear(struct scan *s, bool reading, unsigned ready)
{
	unsigned left = ready / 8;

	s->spare = left;
	for (struct entry *e = next_of(s, s->at); e && left; e = next_of(s, e)) {
		e->clear_at = (uint32_t)clock_ms();
		left -= reading || is_folder(e);
	}
}

static bool is_clear(const struct entry *e)
{
	return e->clear_at && (uint32_t)clock_ms() - e->clear_at < CLEAR_MS;
}

static void run(struct scan *s)
{
	unsigned steps = 0, ready = 0;
	bool missing = false, reading;
	struct room room = { .files = true };

	if (s->running || !s->at || !s->at->attached || !lately(s->at, s->active) ||
	    s->disk->state != DISK_READY)
		return;
	s->running = true;
	reading = reads(s, s->at);
	room.folders = folders_ahead(s);
	/* Fetching changes no table of names: that takes an answer. */
	for (struct entry *e = next_of(s, s->at); e && steps++ < STEPS_MAX; e = next_of(s, e)) {
		missing = missing || is_missing(s, e, reading);
		if (!missing && (reading || is_folder(e)))
			ready++;
		if (!consider(s, e, &room))
			break;
	}
	mark_clear(s, reading, ready);
	consider_others(s, s->at);
	if (s->at->parent)
		consider_others(s, s->at->parent);
	s->running = false;
}

static void keep_pace(struct scan *s)
{
	int64_t now = clock_ms();

	if (now - s->paced >= FRESH_MS) {
		s->last_pace = now - s->paced < 2 * FRESH_MS ? s->pace : 0;
		s->pace = 0;
		s->paced = now;
	}
	s->pace++;
}

static void move_to(struct scan *s, struct entry *e)
{
	struct entry *before = s->at;

	/* It had begun when the first two of its steps were close enough to be noticed. */
	if (!before || !lately(e, s->active))
		s->since = clock_ms() - WALK_MS;
	s->at = entry_ref(e);
	s->active = clock_ms();
	if (is_folder(e))
		keep_pace(s);
	if (is_folder(e) && e != before)
		s->unread++;
	entry_unref(before);
	if (!is_clear(e))
		run(s);
}

/* --- what users do --------------------------------------------------------------------- */

static void visit(struct entry *dir)
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

void scan_list(struct entry *dir)
{
	struct scan *s = dir->disk ? dir->disk->scan : NULL;

	/* Back to where it came through: what was read until now may be read once more. */
	if (s && s->at && s->at != dir && is_above(dir, s->at) && lately(dir, s->active))
		s->pass = clock_ms();
	visit(dir);
	if (dir->folder)
		dir->folder->opened = clock_ms();
}

void scan_hit(struct entry *dir)
{
	struct folder *f = dir->folder;

	if (f && clock_ms() - f->visited >= HIT_MS)
		visit(dir);
}

/* The walk went deeper, for longer than what was listed here is believed. */
static bool comes_back(const struct entry *dir)
{
	const struct scan *s = dir->disk->scan;

	return dir->scanned && s->at && lately(dir, s->active) && is_above(dir, s->at);
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
	if ((f->misses < 2 && !comes_back(dir)) || folder_is_complete(dir) || ahead_has(dir) ||
	    !is_folder(dir) || !ahead_room_lists(dir->disk->scan->ahead))
		return;
	ahead_fetch(dir->disk->scan->ahead, dir);
	visit(dir);
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
	if (!was_ahead && f->reads < 2 && !(lately(e, f->visited) && reads(s, e)))
		return;
	s->reading = f->read_at;
	s->unread = 0;
	move_to(s, e);
}
