/*
 * Asking for what is going to be asked for: scan.c decides what, this does it.
 *
 * A folder is listed, and what comes goes into its record (cache.c). A link is read. A
 * small file is opened and its contents are asked for; it is then parked, an open file like any
 * other but without a user, until somebody opens it (ahead_take): that user has the file as it was
 * when the server opened it, less than FRESH_MS ago, and its contents as far as they have
 * come. What is parked is closed when it gets older, when the file is changed through here, and
 * when a command has ended or said something since it was asked for.
 *
 * All of it is bounded, in number and in bytes, and waits behind whatever users
 * ask for: nothing is asked for while READs of theirs fill the line.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "file_internal.h"
#include "buf.h"

#define LISTS_MAX 64		/* folders on the way */
#define OPENS_MAX 48		/* files and links on the way */
#define PARKED_MAX 192		/* files that are open and not taken */
#define PARKED_BYTES (4u * 1024 * 1024)
#define SMALL_MAX (64u * 1024)
/* A folder with more names is not listed unless somebody opens it. */
#define NAMES_AHEAD_MAX 8192
/* That many fetched for nothing, and more than were taken: the guesses are wrong. */
#define WASTE_MAX 96

struct fetch {
	struct list link;		/* ahead->fetches */
	struct ahead *ahead;
	struct disk_call *call;		/* on the way */
	struct listing *listing;
	struct waiter waiter;
	struct entry *entry;		/* counted */
	uint64_t jobs, changes;		/* when it was asked for: of the disk; the time */
	int64_t since;
};

struct ahead {
	struct disk *disk;
	void (*came)(struct disk *);
	struct list fetches;
	unsigned lists, opens;
	struct wait_list waiting;	/* users, for a folder on the way */
	struct loop_later over;		/* one has come, or will not */
	struct list parked;		/* files, the oldest first */
	unsigned count;
	size_t bytes;
	unsigned used, wasted;
	struct loop_timer expire;
};

struct ahead *ahead_create(struct disk *disk, void (*came)(struct disk *))
{
	struct ahead *a = xcalloc(1, sizeof(*a));

	a->disk = disk;
	a->came = came;
	list_init(&a->fetches);
	list_init(&a->parked);
	wait_init(&a->waiting);
	return a;
}

void ahead_destroy(struct ahead *a)
{
	if (!a)
		return;
	ahead_stop(a);
	loop_later_cancel(&a->over);
	wait_wake(&a->waiting);
	free(a);
}

static bool is_dir(const struct entry *e)
{
	return !e->parent || S_ISDIR(e->st.st_mode);
}

static void over(struct loop_later *l)
{
	wait_wake(&container_of(l, struct ahead, over)->waiting);
}

static void fetch_end(struct fetch *f)
{
	struct ahead *a = f->ahead;

	if (is_dir(f->entry)) {
		a->lists--;
		loop_later(a->disk->loop, &a->over, over);
	} else {
		a->opens--;
	}
	if (f->call)
		disk_cancel(f->call);
	wait_cancel(&f->waiter);
	listing_close(f->listing);
	list_del(&f->link);
	entry_unref(f->entry);
	free(f);
}

/* --- parked files ------------------------------------------------------------------- */

static void unpark(struct ahead *a, struct file *f)
{
	f->entry->parked = NULL;
	list_del(&f->parked);
	a->count--;
	a->bytes -= (size_t)f->size_ahead;
}

static void drop(struct ahead *a, struct file *f)
{
	unpark(a, f);
	a->wasted++;
	file_close(f);
}

void ahead_stop(struct ahead *a)
{
	while (!list_empty(&a->fetches))
		fetch_end(list_entry(a->fetches.next, struct fetch, link));
	while (!list_empty(&a->parked))
		drop(a, list_entry(a->parked.next, struct file, parked));
	loop_timer_cancel(&a->expire);
	a->used = a->wasted = 0;
}

static void expire(struct loop_timer *t)
{
	struct ahead *a = container_of(t, struct ahead, expire);
	int64_t now = clock_ms();

	list_for_each_safe(f, &a->parked, struct file, parked)
		if (now - f->parked_when >= FRESH_MS)
			drop(a, f);
	/* What was guessed wrong is forgiven in time. */
	a->used /= 2;
	a->wasted /= 2;
	if (a->count || a->used || a->wasted)
		loop_timer_set(a->disk->loop, t, FRESH_MS, expire);
}

static void park(struct ahead *a, struct fetch *fetch, struct sftp_handle *h)
{
	struct entry *e = fetch->entry;
	const struct sftp_attrs attrs = {
		.flags = SFTP_ATTR_SIZE | SFTP_ATTR_TIMES, .size = (uint64_t)e->st.st_size,
		.mtime = (uint32_t)e->st.st_mtime,
	};
	struct file *f = file_create(a->disk, e, h, O_RDONLY, &attrs);

	list_del(&f->by_entry);		/* nobody has it open */
	f->parked_when = clock_ms();
	f->parked_jobs = fetch->jobs;
	f->size_ahead = e->st.st_size;
	e->parked = f;
	list_add_tail(&a->parked, &f->parked);
	a->count++;
	a->bytes += (size_t)f->size_ahead;
	if (!loop_timer_is_set(&a->expire))
		loop_timer_set(a->disk->loop, &a->expire, FRESH_MS, expire);
	/* One more than there is, so that the answer tells the end as well. */
	file_read_ahead(f, (size_t)f->size_ahead + 1);
}

struct file *ahead_take(struct entry *e)
{
	struct file *f = e->parked;
	struct ahead *a;

	if (!f)
		return NULL;
	a = scan_ahead(e->disk->scan);
	if (f->parked_jobs != e->disk->jobs || clock_ms() - f->parked_when >= FRESH_MS ||
	    f->size != e->st.st_size || f->mtime != e->st.st_mtime || !f->handle ||
	    !list_empty(&e->files)) {
		drop(a, f);
		return NULL;
	}
	unpark(a, f);
	a->used++;
	list_add_tail(&e->files, &f->by_entry);
	return f;
}

void ahead_drop(struct entry *e)
{
	if (e->parked && e->disk)
		drop(scan_ahead(e->disk->scan), e->parked);
}

bool ahead_is_wasted(const struct ahead *a)
{
	return a->wasted > WASTE_MAX && a->wasted > a->used;
}

/* --- fetching ------------------------------------------------------------------------ */

static bool still_so(const struct fetch *f)
{
	const struct entry *e = f->entry;

	return e->attached && e->jobs == e->disk->jobs && f->jobs == e->disk->jobs &&
	       e->changed <= f->changes;
}

static bool is_small(const struct entry *e)
{
	return S_ISREG(e->st.st_mode) && e->st.st_size > 0 && e->st.st_size <= SMALL_MAX &&
	       list_empty(&e->files);
}

static void file_came(void *user, int error, const struct disk_answer *answer)
{
	struct fetch *f = user;
	struct ahead *a = f->ahead;
	struct disk *disk = a->disk;
	struct sftp_handle *h = disk_call_handle(f->call);

	f->call = NULL;
	/* Who opened it meanwhile has it; coming back, he wants to know what it is then. */
	if (h && error == 0 && still_so(f) && is_small(f->entry) && !f->entry->parked &&
	    f->entry->read_at < f->since)
		park(a, f, h);
	else if (h && disk->sftp)
		sftp_close(disk->sftp, h);
	else
		free(h);
	fetch_end(f);
	a->came(disk);
}

static void link_came(void *user, int error, const struct disk_answer *answer)
{
	struct fetch *f = user;
	struct ahead *a = f->ahead;

	f->call = NULL;
	fetch_end(f);
	a->came(a->disk);
}

static void names_came(struct waiter *w)
{
	struct fetch *f = container_of(w, struct fetch, waiter);
	struct ahead *a = f->ahead;

	if (listing_ready(f->listing) == -EAGAIN) {
		wait_add(listing_news(f->listing), w);
		return;
	}
	fetch_end(f);
	a->came(a->disk);
}

static void folder_came(void *user, int error, const struct disk_answer *answer)
{
	struct fetch *f = user;
	struct ahead *a = f->ahead;

	f->call = NULL;
	f->listing = answer->listing;
	if (error == 0) {
		names_came(&f->waiter);
		return;
	}
	fetch_end(f);
	a->came(a->disk);
}

unsigned ahead_room_lists(const struct ahead *a)
{
	return a->disk->state == DISK_READY && a->lists < LISTS_MAX ? LISTS_MAX - a->lists : 0;
}

unsigned ahead_room_files(const struct ahead *a)
{
	unsigned all = a->count + a->opens;

	if (a->disk->state != DISK_READY || a->opens >= OPENS_MAX || all >= PARKED_MAX ||
	    a->bytes >= PARKED_BYTES || sftp_room(a->disk->sftp) < SFTP_IN_FLIGHT / 2)
		return 0;
	return OPENS_MAX - a->opens < PARKED_MAX - all ? OPENS_MAX - a->opens : PARKED_MAX - all;
}

bool ahead_has(const struct entry *e)
{
	return e->parked || (e->disk && loop_now(e->disk->loop) - e->scanned < FRESH_MS);
}

struct wait_list *disk_opendir_coming(struct entry *dir)
{
	struct ahead *a = dir->disk ? scan_ahead(dir->disk->scan) : NULL;

	if (!a || clock_ms() - dir->scanned >= FRESH_MS)
		return NULL;
	list_for_each(f, &a->fetches, struct fetch, link)
		if (f->entry == dir)
			return &a->waiting;
	return NULL;
}

static int start(struct fetch *f)
{
	struct disk *disk = f->ahead->disk;
	struct entry *e = f->entry;

	if (is_dir(e))
		return disk_list_ahead(disk, e, NAMES_AHEAD_MAX, folder_came, f, &f->call);
	if (S_ISLNK(e->st.st_mode))
		return disk_readlink(disk, e, link_came, f, &f->call);
	return disk_open_ahead(disk, e, file_came, f, &f->call);
}

static bool is_worth_it(const struct entry *e)
{
	if (!e->attached || (e->parent && !e->known))
		return false;
	return is_dir(e) || S_ISLNK(e->st.st_mode) || is_small(e);
}

bool ahead_fetch(struct ahead *a, struct entry *e)
{
	struct fetch *f;

	if (!is_worth_it(e))
		return false;
	f = xcalloc(1, sizeof(*f));
	f->ahead = a;
	f->entry = entry_ref(e);
	f->jobs = a->disk->jobs;
	f->changes = a->disk->changes;
	f->since = clock_ms();
	waiter_init(&f->waiter, names_came);
	list_add_tail(&a->fetches, &f->link);
	if (is_dir(e))
		a->lists++;
	else
		a->opens++;
	e->scanned = clock_ms();
	if (start(f) == 0)
		return true;
	f->call = NULL;
	fetch_end(f);
	return false;
}
