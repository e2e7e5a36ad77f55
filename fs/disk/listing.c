/*
 * A folder as it was when it was opened: all names with the attributes that
 * READDIR brings along, fetched in one go, and given out as they come.
 *
 * OpenSSH gives 100 names an answer, so a long folder is many answers: several READDIRs are
 * on the way at once, more and more of them as long as names keep coming. Those that find the
 * end cost nothing but themselves. A short folder is two requests after the OPENDIR.
 *
 * A user's listing is not fetched further than LEAD names ahead of its reader: attributes are
 * believed for a second, and should be when he comes to ask for them.
 *
 * What comes goes into the entries at once, and the folder's record (cache.c) keeps them. A
 * listing may also be made of what the record knows; it then needs no server.
 *
 * OpenSSH looks at each name by the path that the folder had when it was opened, and leaves out
 * what it does not find there. So a listing during which it, or a folder above it, was renamed
 * is begun anew; names that it had told stay told.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk_internal.h"
#include "buf.h"
#include "metrics.h"

#define ASK_FIRST 2
#define ASK_MAX 16
#define LEAD 4096
/* No folder is longer: a server that never ends one must not fill our memory. */
#define NAMES_MAX (32u * 1024 * 1024)
#define ITEMS_MAX (512u * 1024)
/* Beyond this, names come without attributes: those that have them cost memory until forgotten. */
#define ENTRIES_MAX (100u * 1024)
/*
 * All listings of all sandboxes together: beyond it only short ones grow, so that one guest
 * with folders without an end fills no memory and keeps nobody from listing.
 */
#define TOGETHER_MAX (80u * 1024 * 1024)
#define SHORT_MAX (1024u * 1024)
/* What an entry costs, with its name and what malloc adds. */
#define ENTRY_COST (sizeof(struct entry) + 64)
/* An answer with fewer names than this is probably the last. */
#define FULL_ANSWER 64

struct item {
	uint32_t name;		/* where in names */
	uint32_t type;
	struct entry *entry;	/* counted; NULL: its attributes were not told */
};

/* A name that was told before the listing was begun anew. */
struct told {
	UT_hash_handle hh;
	char name[];
};

struct ask {
	struct listing *listing;
	struct sftp_call *sftp;
	struct stamp stamp;
};

struct listing {
	struct disk *disk;		/* NULL once it is gone */
	struct list link;		/* disk->listings */
	struct entry *dir;
	struct sftp_handle *handle;	/* while it is being fetched */
	struct wait_list news;
	struct sftp_call *opening;	/* anew */
	struct told *told;
	struct ask asks[ASK_MAX];
	unsigned asked, depth;		/* on the way, and how many may be */
	bool end;			/* READDIR has told the end, or an error */
	bool moved;			/* it has another path than when it was opened */
	int error;
	unsigned round;			/* 0: it may not tell what is not there */
	struct stamp stamp;		/* when it began */
	int64_t when;
	struct buf names;
	struct item *items;
	size_t count, room, limit;
	size_t wanted;			/* no more are asked for when so many are there */
	size_t held;			/* bytes, of what all of them hold together */
};

static size_t together;

static sftp_cb readdir_answered;

/* Ask for no more by this handle. */
static void let_go(struct listing *l)
{
	struct sftp *sftp = l->disk ? l->disk->sftp : NULL;

	if (l->opening)
		sftp_cancel(l->opening);
	l->opening = NULL;
	for (unsigned i = 0; i < ASK_MAX; i++)
		if (l->asks[i].sftp) {
			sftp_cancel(l->asks[i].sftp);
			l->asks[i].sftp = NULL;
		}
	l->asked = 0;
	if (l->handle && sftp)
		sftp_close(sftp, l->handle);
	else
		free(l->handle);
	l->handle = NULL;
}

static void end_fetch(struct listing *l)
{
	struct told *t, *next;

	let_go(l);
	l->end = true;
	folder_unmark(l->dir, l);
	HASH_ITER(hh, l->told, t, next) {
		HASH_DEL(l->told, t);
		free(t);
	}
}

static void hold(struct listing *l, size_t bytes)
{
	l->held += bytes;
	together += bytes;
}

static void drop_items(struct listing *l)
{
	for (size_t i = 0; i < l->count; i++)
		entry_unref(l->items[i].entry);
	together -= l->held;
	l->held = l->count = l->room = 0;
	buf_finish(&l->names);
	free(l->items);
	l->items = NULL;
}

static void fail(struct listing *l, int error)
{
	if (!l->error)
		l->error = error;
	end_fetch(l);
	drop_items(l);
	wait_wake(&l->news);
}

static void ask_more(struct listing *l)
{
	for (unsigned i = 0; i < ASK_MAX && l->asked < l->depth && !l->end && l->count < l->wanted;
	     i++) {
		struct ask *a = &l->asks[i];
		int r;

		if (a->sftp)
			continue;
		a->listing = l;
		a->stamp = entry_stamp(l->disk);
		r = sftp_readdir(l->disk->sftp, l->handle, readdir_answered, a, &a->sftp);
		if (r < 0) {
			a->sftp = NULL;
			l->error = r;
			l->end = true;
			break;
		}
		l->asked++;
	}
}

static struct listing *listing_new(struct disk *disk, struct entry *dir)
{
	struct listing *l = xcalloc(1, sizeof(*l));

	l->disk = disk;
	l->dir = entry_ref(dir);
	l->stamp = entry_stamp(disk);
	l->when = clock_ms();
	l->limit = ITEMS_MAX;
	l->wanted = LEAD;
	wait_init(&l->news);
	list_add_tail(&disk->listings, &l->link);
	return l;
}

struct listing *listing_create(struct disk *disk, struct entry *dir, struct sftp_handle *h,
			       struct stamp stamp, size_t limit)
{
	struct listing *l = listing_new(disk, dir);

	l->handle = h;
	l->moved = stamp_moved(disk, stamp);
	l->depth = ASK_FIRST;
	if (limit)
		l->limit = limit;
	l->round = folder_mark(dir, l);
	dir->scanned = l->when;
	ask_more(l);
	return l;
}

static struct item *add_item(struct listing *l, const void *name, size_t len, mode_t type)
{
	struct item *it;

	if (l->count == l->room) {
		l->room = l->room ? 2 * l->room : 64;
		l->items = xrealloc(l->items, l->room * sizeof(*l->items));
	}
	it = &l->items[l->count++];
	*it = (struct item){ .name = (uint32_t)buf_size(&l->names), .type = type };
	buf_put(&l->names, name, len);
	buf_put_u8(&l->names, 0);
	return it;
}

/* Did the server tell enough of it? */
static bool is_told(const struct sftp_attrs *a)
{
	const uint32_t needed = SFTP_ATTR_PERMISSIONS | SFTP_ATTR_SIZE | SFTP_ATTR_TIMES;

	return (a->flags & needed) == needed && (a->perm & S_IFMT);
}

static bool was_told(const struct listing *l, const struct sftp_name *n)
{
	struct told *t;

	HASH_FIND(hh, l->told, n->name, n->len, t);
	return t;
}

static int add(struct listing *l, const struct sftp_name *n, const struct ask *a)
{
	struct entry *e;
	struct stat st;
	struct item *it;

	if (!sftp_name_ok(n->name, n->len) || was_told(l, n))
		return 0;
	if (l->count >= l->limit || buf_size(&l->names) + n->len >= NAMES_MAX)
		return -EFBIG;	/* (at EOVERFLOW, ls goes on for ever) */
	if (l->held > SHORT_MAX && together > TOGETHER_MAX)
		return -ENOMEM;
	it = add_item(l, n->name, n->len, sftp_name_type(n));
	hold(l, sizeof(*it) + n->len + 1);
	if (l->count > ENTRIES_MAX || !is_told(&n->attrs)) {
		l->round = 0;
		return 0;
	}
	/* What is open may be another file than what has the name: that takes a lookup. */
	e = entry_find(l->dir, (const char *)buf_peek(&l->names) + it->name);
	if (!e || !file_of(e)) {
		it->entry = entry_seen(l->disk, l->dir,
				       (const char *)buf_peek(&l->names) + it->name,
				       &n->attrs, a->stamp, &st);
		e = it->entry;
		hold(l, ENTRY_COST);
		folder_keep(e);
	}
	if (l->round)
		e->round = l->round;
	return 0;
}

/* How many names came; 0: the end. < 0: why not. */
static int add_all(struct listing *l, struct sftp_reply *reply, const struct ask *a)
{
	struct sftp_name n;
	int r, came = 0;

	while ((r = sftp_next_name(reply, &n)) == 1) {
		came++;
		r = add(l, &n, a);
		if (r < 0)
			return r;
	}
	return r < 0 ? -EIO : came;
}

static void begin_anew(struct listing *);

static void opened_anew(void *user, int error, const struct sftp_answer *answer)
{
	struct listing *l = user;

	l->opening = NULL;
	if (error == -ENOENT && l->moved) {
		begin_anew(l);
		return;
	}
	if (error < 0) {
		fail(l, error);
		return;
	}
	l->handle = answer->handle;
	l->depth = ASK_FIRST;
	ask_more(l);
}

static void begin_anew(struct listing *l)
{
	char path[PATH_MAX];
	int r = l->limit == ITEMS_MAX ? entry_path(l->dir, NULL, path) : -ESTALE;

	let_go(l);
	l->end = l->moved = false;
	folder_unmark(l->dir, l);
	l->round = 0;
	l->stamp = entry_stamp(l->disk);
	for (size_t i = HASH_COUNT(l->told); i < l->count; i++) {
		const char *name = (const char *)buf_peek(&l->names) + l->items[i].name;
		size_t len = strlen(name);
		struct told *t = xcalloc(1, sizeof(*t) + len);

		memcpy(t->name, name, len);
		HASH_ADD_KEYPTR(hh, l->told, t->name, len, t);
	}
	if (r == 0)
		r = sftp_opendir(l->disk->sftp, path, opened_anew, l, &l->opening);
	if (r < 0)
		fail(l, r);
}

static void readdir_answered(void *user, int error, const struct sftp_answer *answer)
{
	struct ask *a = user;
	struct listing *l = a->listing;

	a->sftp = NULL;
	l->asked--;
	if (error == 0)
		error = add_all(l, answer->reply, a);
	if (error < 0) {
		fail(l, error);
		return;
	}
	if (l->moved) {
		begin_anew(l);
		return;
	}
	/* Those on the way behind the one that found the end may still bring names. */
	if (error == 0)
		l->end = true;
	if (error < FULL_ANSWER)
		l->depth = 1;
	else
		l->depth = l->depth * 2 > ASK_MAX ? ASK_MAX : l->depth * 2;
	if (!l->end)
		ask_more(l);
	if (l->end && l->asked == 0) {
		if (l->round && !l->error)
			folder_listed(l->dir, l, l->round, l->stamp, l->when);
		end_fetch(l);
	}
	wait_wake(&l->news);
}

/* Of what is remembered, if that is all there is. */
struct listing *disk_opendir_now(struct entry *dir)
{
	struct listing *l;

	scan_list(dir);
	if (!folder_is_complete(dir))
		return NULL;
	for (struct entry *e = dir->children; e; e = e->hh.next)
		if (!e->known)
			return NULL;
	metric_add(METRIC_CACHE_HITS, 1);
	l = listing_new(dir->disk, dir);
	l->end = true;
	for (struct entry *e = dir->children; e; e = e->hh.next)
		add_item(l, e->name, strlen(e->name), e->st.st_mode & S_IFMT)->entry = entry_ref(e);
	return l;
}

/* Have so many come, or all? */
static int reach(struct listing *l, size_t count)
{
	if (l->wanted < count)
		l->wanted = count;
	if (l->handle)
		ask_more(l);
	if (l->error)
		return l->error;
	return l->end && l->asked == 0 ? 0 : -EAGAIN;
}

int listing_ready(struct listing *l)
{
	return reach(l, SIZE_MAX);
}

int listing_reaches(struct listing *l, size_t i)
{
	int r = reach(l, i + LEAD);

	return i < l->count ? 0 : r;
}

struct wait_list *listing_news(struct listing *l)
{
	return &l->news;
}

size_t listing_count(const struct listing *l)
{
	return l->count;
}

const char *listing_name(const struct listing *l, size_t i, mode_t *type)
{
	*type = l->items[i].type;
	return (const char *)buf_peek(&l->names) + l->items[i].name;
}

struct entry *listing_entry(struct listing *l, size_t i, struct stat *st)
{
	struct entry *e = l->items[i].entry;

	/* Changed since, or it is another file by now: what the listing says of it is history. */
	if (!l->disk || !e || !e->attached || e->parent != l->dir || file_of(e) ||
	    strcmp(e->name, (const char *)buf_peek(&l->names) + l->items[i].name) ||
	    !entry_fresh(e, st))
		return NULL;
	return entry_ref(e);
}

void listing_close(struct listing *l)
{
	if (!l)
		return;
	end_fetch(l);
	list_del(&l->link);
	drop_items(l);
	entry_unref(l->dir);
	free(l);
}

void listings_moved(struct disk *disk, const struct entry *top)
{
	list_for_each(l, &disk->listings, struct listing, link)
		for (const struct entry *e = l->dir; e && !l->moved; e = e->parent)
			l->moved = !top || e == top;
}

void listings_lost(struct disk *disk)
{
	list_for_each_safe(l, &disk->listings, struct listing, link) {
		free(l->handle);
		l->handle = NULL;
		/* No request of it was on the way, which would have been answered so. */
		if (!l->end)
			fail(l, -EHOSTDOWN);
	}
}

static void orphan(struct listing *l)
{
	list_del(&l->link);
	free(l->handle);
	l->handle = NULL;
	l->disk = NULL;
	if (!l->end)
		fail(l, -ESTALE);
}

void listings_orphan(struct disk *disk)
{
	list_for_each_safe(l, &disk->listings, struct listing, link)
		orphan(l);
}
