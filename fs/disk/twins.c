/*
 * Names of one file. The protocol tells no inode numbers, so a file's names are known only where
 * they were linked through here, and believed for as long as they have the same attributes.
 * Then a change by one of them is a change of all, and they are shown with one inode number.
 *
 * Such names are a ring. They are held for it, since the kernel may forget a name and ask for it
 * again at any time: the names linked last, so many on a disk.
 */
#include "disk_internal.h"

#define HELD_MAX 4096

void twins_let_go(struct entry *e)
{
	if (!e->held)
		return;
	e->held = false;
	list_del(&e->held_link);
	if (e->disk)
		e->disk->held_count--;
	entry_unref(e);
}

static void hold(struct entry *e)
{
	struct disk *disk = e->disk;

	if (!e->attached || e->held)
		return;
	e->held = true;
	list_add_tail(&disk->held, &e->held_link);
	entry_ref(e);
	if (++disk->held_count > HELD_MAX)
		twins_let_go(list_entry(disk->held.next, struct entry, held_link));
}

void twins_join(struct entry *e, struct entry *source)
{
	list_del(&e->twins);
	list_add(&source->twins, &e->twins);
	e->number = source->number;
	hold(source);
	hold(e);
}

static void part(struct entry *e)
{
	while (!list_empty(&e->twins)) {
		struct entry *twin = list_entry(e->twins.next, struct entry, twins);

		list_del(&twin->twins);
		twin->number = 0;
		twin->told_until = 0;
		twins_let_go(twin);
	}
	e->number = 0;
	twins_let_go(e);
}

static bool looks_same(const struct stat *a, const struct stat *b)
{
	return a->st_size == b->st_size && a->st_mtime == b->st_mtime && a->st_mode == b->st_mode &&
	       a->st_uid == b->st_uid && a->st_gid == b->st_gid;
}

void twins_check(struct entry *e)
{
	struct stat st;

	list_for_each(twin, &e->twins, struct entry, twins)
		if (entry_fresh(twin, &st) && !looks_same(&st, &e->st)) {
			part(e);
			return;
		}
}
