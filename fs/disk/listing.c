/*
 * A folder as it was when it was opened: all names with the attributes that
 * READDIR brings along, fetched in one go.
 *
 * OpenSSH gives 100 names an answer, so a long folder is many answers: several READDIRs are
 * on the way at once, more and more of them as long as names keep coming. Those that find the
 * end cost nothing but themselves. A short folder is two requests after the OPENDIR.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk_internal.h"
#include "buf.h"

#define ASK_FIRST 2
#define ASK_MAX 16
/* No folder is longer: a server that never ends one must not fill our memory. */
#define NAMES_MAX (32u * 1024 * 1024)
#define ITEMS_MAX (512u * 1024)
/* Beyond this, names come without attributes: those that have them cost memory until forgotten. */
#define ENTRIES_MAX (100u * 1024)
/* An answer with fewer names than this is probably the last. */
#define FULL_ANSWER 64

struct item {
	uint32_t name;		/* where in names */
	uint32_t type;
	struct sftp_attrs attrs;
	int64_t when;
	struct stamp stamp;
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
	struct ask asks[ASK_MAX];
	unsigned asked, depth;		/* on the way, and how many may be */
	bool end;			/* READDIR has told the end, or an error */
	int error;
	struct buf names;
	struct item *items;
	size_t count, room;
};

static sftp_cb readdir_answered;

static void end_fetch(struct listing *l)
{
	struct sftp *sftp = l->disk ? l->disk->sftp : NULL;

	for (unsigned i = 0; i < ASK_MAX; i++)
		if (l->asks[i].sftp) {
			sftp_cancel(l->asks[i].sftp);
			l->asks[i].sftp = NULL;
		}
	l->asked = 0;
	l->end = true;
	if (l->handle && sftp)
		sftp_close(sftp, l->handle);
	else
		free(l->handle);
	l->handle = NULL;
}

static void fail(struct listing *l, int error)
{
	if (!l->error)
		l->error = error;
	end_fetch(l);
	wait_wake(&l->news);
}

static void ask_more(struct listing *l)
{
	for (unsigned i = 0; i < ASK_MAX && l->asked < l->depth && !l->end; i++) {
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

struct listing *listing_create(struct disk *disk, struct entry *dir, struct sftp_handle *h)
{
	struct listing *l = xcalloc(1, sizeof(*l));

	l->disk = disk;
	l->dir = entry_ref(dir);
	l->handle = h;
	l->depth = ASK_FIRST;
	wait_init(&l->news);
	list_add_tail(&disk->listings, &l->link);
	ask_more(l);
	return l;
}

static int add(struct listing *l, const struct sftp_name *n, const struct ask *a)
{
	struct item *it;

	if (!sftp_name_ok(n->name, n->len))
		return 0;
	if (l->count >= ITEMS_MAX || buf_size(&l->names) + n->len >= NAMES_MAX)
		return -EFBIG;	/* (at EOVERFLOW, ls goes on for ever) */
	if (l->count == l->room) {
		l->room = l->room ? 2 * l->room : 64;
		l->items = xrealloc(l->items, l->room * sizeof(*l->items));
	}
	it = &l->items[l->count++];
	*it = (struct item){
		.name = (uint32_t)buf_size(&l->names), .type = sftp_name_type(n),
		.attrs = n->attrs, .when = clock_ms(), .stamp = a->stamp,
	};
	buf_put(&l->names, n->name, n->len);
	buf_put_u8(&l->names, 0);
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
		end_fetch(l);
		wait_wake(&l->news);
	}
}

int listing_ready(struct listing *l)
{
	if (l->error)
		return l->error;
	return l->end && l->asked == 0 ? 0 : -EAGAIN;
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

/* Did the server tell enough of it, and is that still to be believed? */
static bool is_told(const struct listing *l, const struct item *it)
{
	const uint32_t needed = SFTP_ATTR_PERMISSIONS | SFTP_ATTR_SIZE | SFTP_ATTR_TIMES;

	return (it->attrs.flags & needed) == needed && (it->attrs.perm & S_IFMT) &&
	       clock_ms() - it->when < FRESH_MS && it->stamp.jobs == l->disk->jobs;
}

struct entry *listing_entry(struct listing *l, size_t i, struct stat *st)
{
	const struct item *it = &l->items[i];
	struct entry *e;
	mode_t type;

	if (!l->disk || i >= ENTRIES_MAX || !is_told(l, it))
		return NULL;
	/* What is open may be another file than what has the name: that takes a lookup. */
	e = entry_find(l->dir, listing_name(l, i, &type));
	if (e && file_of(e))
		return NULL;
	e = entry_seen(l->disk, l->dir, listing_name(l, i, &type), &it->attrs, it->stamp, st);
	/* Changed through here since: what the listing says of it is history. */
	if (!entry_fresh(e, st)) {
		entry_unref(e);
		return NULL;
	}
	return e;
}

void listing_close(struct listing *l)
{
	if (!l)
		return;
	end_fetch(l);
	list_del(&l->link);
	entry_unref(l->dir);
	buf_finish(&l->names);
	free(l->items);
	free(l);
}

void listings_lost(struct disk *disk)
{
	list_for_each(l, &disk->listings, struct listing, link) {
		free(l->handle);
		l->handle = NULL;
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
