/*
 * A VM's disk: names, attributes, open files, listings, and what a lost link
 * does to them, with the system's sftp-server as the guest (disk_guest.h).
 */
#include "test.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <utime.h>

#include "disk.h"
#include "disk_guest.h"
#include "err.h"
#include "file.h"

static struct disk *disk;
static struct disk_cache *cache;
static char dir[64];
static struct entry *top;		/* of dir */

/* --- calls that are waited for ---------------------------------------------------------- */

struct result {
	bool done;
	unsigned answers;
	int error;
	struct disk_answer a;
	char text[4096];
	uint8_t *data;
	size_t len;
};
/* The latest, and the one before it: the next call may be about what that brought. */
static struct result results[2];
static int latest;
#define last results[latest]

static void on_answer(void *user, int error, const struct disk_answer *a)
{
	struct result *r = user;

	r->done = true;
	r->answers++;
	r->error = error;
	r->a = *a;
	if (a->text)
		strcpy(r->text, a->text);
	if (a->entry)
		r->a.entry = entry_ref(a->entry);
	loop_stop(loop);
}

static void on_data(void *user, int error, const void *data, size_t len)
{
	struct result *r = user;

	r->done = true;
	r->answers++;
	r->error = error;
	r->data = malloc(len ? len : 1);
	if (data)
		memcpy(r->data, data, len);
	r->len = len;
	loop_stop(loop);
}

static void forget(struct result *r)
{
	free(r->data);
	if (!r->error)
		entry_unref(r->a.entry);
	memset(r, 0, sizeof(*r));
}

/* The call with the next result was started: wait for it. */
static int wait_next(int started)
{
	struct result *before = &results[latest], *next = &results[!latest];

	if (started < 0)
		next->error = started;
	else
		RUN_UNTIL(loop, next->done);
	forget(before);
	latest = !latest;
	return next->error;
}

/* DO(disk_x, args…): make the call, wait, give its error; the answer is in last. */
#define DO_CALL(type, f, ...)							\
	({ struct type *call_;							\
	   wait_next(f(__VA_ARGS__, &results[!latest], &call_)); })
#define DO(f, ...) DO_CALL(disk_call, f, disk, __VA_ARGS__, on_answer)
#define DO_FILE(f, ...) DO_CALL(file_call, f, __VA_ARGS__, on_data)

static void wake_test(struct waiter *w)
{
	loop_stop(loop);
}

static void wait_news(struct wait_list *news)
{
	struct waiter w;

	waiter_init(&w, wake_test);
	wait_add(news, &w);
	loop_run(loop);
	wait_cancel(&w);
}

static void must_be_ready(void)
{
	int r;

	while ((r = disk_ready(disk)) == -EAGAIN)
		wait_news(disk_news(disk));
	assert_int_equal(r, 0);
}

/* The same things seen from within the guest. */
static const char *guest(const char *name)
{
	static char text[4][512];
	static int next;
	char *p = text[next++ % 4];

	snprintf(p, 512, "%s/%s", dir, name);
	return p;
}

static struct ssh *const the_ssh = (struct ssh *)&channel;	/* never looked at */

static int setup(void **state)
{
	static const char *const parts[] = { "tmp", NULL, NULL };
	const char *names[3] = { parts[0], dir + 5, NULL };
	struct entry *e, *child;

	if (!sftp_server_path())
		return 0;
	loop = loop_create();
	strcpy(dir, "/tmp/sbxfs-disk-XXXXXX");
	assert_non_null(mkdtemp(dir));
	channels = 0;
	sudos = 0;
	cache = disk_cache_create(loop, 1 << 20);
	disk = disk_create(loop, cache);
	disk_attach(disk, the_ssh, false);
	must_be_ready();
	e = entry_ref(disk_root(disk));
	for (int i = 0; names[i]; i++) {
		child = entry_get(e, names[i]);
		entry_unref(e);
		e = child;
	}
	top = e;
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	if (!disk)
		return 0;
	forget(&last);
	entry_unref(top);
	disk_destroy(disk);
	disk = NULL;
	disk_cache_unref(cache);
	channels_end();
	loop_destroy(loop);
	umount2(guest("m"), MNT_DETACH);	/* where a test has mounted */
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

static void guest_writes(const char *name, const char *text)
{
	FILE *f = fopen(guest(name), "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void guest_has(const char *name, const char *text)
{
	char buf[4096];
	FILE *f = fopen(guest(name), "r");
	size_t n;

	assert_non_null(f);
	n = fread(buf, 1, sizeof(buf), f);
	fclose(f);
	assert_int_equal(n, strlen(text));
	assert_memory_equal(buf, text, n);
}

static void guest_time(const char *name, time_t t)
{
	assert_int_equal(utime(guest(name), &(struct utimbuf){ t, t }), 0);
}

static struct file *must_open(const char *name, int flags)
{
	struct entry *e = entry_get(top, name);
	int r = DO(disk_open, e, flags);

	entry_unref(e);
	assert_int_equal(r, 0);
	return last.a.file;
}

static struct file *must_create(const char *name)
{
	assert_int_equal(DO(disk_create_file, top, name, O_RDWR, 0600), 0);
	return last.a.file;
}

static int write_text(struct file *f, off_t off, const char *text)
{
	return DO_FILE(file_write, f, off, text, strlen(text));
}

static void reads(struct file *f, off_t off, size_t size, const char *text)
{
	assert_int_equal(DO_FILE(file_read, f, off, size), 0);
	assert_int_equal(last.len, strlen(text));
	assert_memory_equal(last.data, text, last.len);
}

#define TEST(name)						\
	static void name##_body(void);				\
	static void name(void **state)				\
	{							\
		NEEDS_SFTP_SERVER();				\
		name##_body();					\
	}							\
	static void name##_body(void)

/* --- names -------------------------------------------------------------------------------- */

TEST(lookup_finds_what_is_there)
{
	struct stat st;

	guest_writes("f", "hello");
	guest_time("f", 1000000000);
	assert_int_equal(DO(disk_lookup, top, "f"), 0);
	assert_int_equal(last.a.st.st_size, 5);
	assert_int_equal(last.a.st.st_mtime, 1000000000);
	assert_true(S_ISREG(last.a.st.st_mode));
	assert_int_equal(last.a.st.st_uid, getuid());
	assert_ptr_equal(last.a.entry, entry_find(top, "f"));
	assert_true(entry_fresh(last.a.entry, &st));
	assert_int_equal(DO(disk_lookup, top, "none"), -ENOENT);
	assert_null(entry_find(top, "none"));
}

TEST(a_name_that_is_gone_or_of_another_type_is_another_entry)
{
	struct entry *e;

	guest_writes("f", "hello");
	assert_int_equal(DO(disk_lookup, top, "f"), 0);
	e = entry_ref(last.a.entry);
	unlink(guest("f"));
	assert_int_equal(DO(disk_lookup, top, "f"), -ENOENT);
	assert_false(entry_attached(e));
	entry_unref(e);
	mkdir(guest("f"), 0700);
	assert_int_equal(DO(disk_lookup, top, "f"), 0);
	e = entry_ref(last.a.entry);
	rmdir(guest("f"));
	guest_writes("f", "");
	assert_int_equal(DO(disk_lookup, top, "f"), 0);
	assert_ptr_not_equal(last.a.entry, e);
	assert_false(entry_attached(e));
	entry_unref(e);
}

TEST(names_are_made_and_removed)
{
	assert_int_equal(DO(disk_mkdir, top, "d", 0750), 0);
	assert_int_equal(last.a.st.st_mode, S_IFDIR | 0750);
	assert_int_equal(DO(disk_mkdir, last.a.entry, "e", 0700), 0);
	assert_int_equal(DO(disk_symlink, top, "l", "d/e"), 0);
	assert_true(S_ISLNK(last.a.st.st_mode));
	assert_int_equal(DO(disk_mknod, top, "n", 0640), 0);
	assert_int_equal(last.a.st.st_mode, S_IFREG | 0640);
	assert_int_equal(DO(disk_link, last.a.entry, top, "m"), 0);
	assert_int_equal(access(guest("m"), F_OK), 0);
	assert_int_equal(DO(disk_unlink, top, "m"), 0);
	assert_int_equal(DO(disk_unlink, top, "n"), 0);
	assert_int_equal(DO(disk_unlink, top, "l"), 0);
	assert_int_equal(DO(disk_rmdir, top, "d"), -ENOTEMPTY);
	assert_int_equal(rmdir(guest("d/e")), 0);
	assert_int_equal(DO(disk_rmdir, top, "d"), 0);
	assert_int_equal(access(guest("d"), F_OK), -1);
}

TEST(failures_say_what_they_are)
{
	struct entry *f;
	char longname[300];

	memset(longname, 'x', 299);
	longname[299] = 0;
	guest_writes("f", "");
	mkdir(guest("d"), 0700);
	guest_writes("d/f", "");
	assert_int_equal(DO(disk_lookup, top, "f"), 0);
	f = entry_ref(last.a.entry);
	assert_int_equal(DO(disk_mkdir, top, "f", 0700), -EEXIST);
	assert_int_equal(DO(disk_mkdir, top, "d", 0700), -EEXIST);
	assert_int_equal(DO(disk_symlink, top, "f", "x"), -EEXIST);
	assert_int_equal(DO(disk_mknod, top, "f", 0600), -EEXIST);
	assert_int_equal(DO(disk_link, f, top, "d"), -EEXIST);
	assert_int_equal(DO(disk_create_file, top, "f", O_RDWR | O_EXCL, 0600), -EEXIST);
	assert_int_equal(DO(disk_unlink, top, "none"), -ENOENT);
	assert_int_equal(DO(disk_unlink, top, "d"), -EISDIR);
	assert_int_equal(DO(disk_rmdir, top, "none"), -ENOENT);
	assert_int_equal(DO(disk_rmdir, top, "d"), -ENOTEMPTY);
	assert_int_equal(DO(disk_mkdir, top, longname, 0700), -ENAMETOOLONG);
	assert_int_equal(DO(disk_lookup, top, longname), -ENAMETOOLONG);
	assert_int_equal(DO(disk_create_file, top, longname, O_RDWR, 0700), -ENAMETOOLONG);
	assert_int_equal(DO(disk_rename, top, "f", top, longname, false), -ENAMETOOLONG);
	assert_int_equal(DO(disk_rename, top, "none", top, "x", false), -ENOENT);
	assert_int_equal(DO(disk_rename, top, "f", top, "d", false), -EISDIR);
	assert_int_equal(DO(disk_rename, top, "d", top, "f", false), -ENOTDIR);
	assert_int_equal(DO(disk_rename, top, "f", top, "d", true), -EEXIST);
	mkdir(guest("e"), 0700);
	assert_int_equal(DO(disk_rename, top, "e", top, "d", false), -ENOTEMPTY);
	assert_int_equal(DO(disk_readlink, f), -EINVAL);
	entry_unref(f);
}

static bool other_file_system(const char *a, const char *b)
{
	struct stat x, y;

	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev != y.st_dev;
}

TEST(another_file_system_is_exdev)
{
	struct entry *dev = entry_get(disk_root(disk), "dev"), *shm = entry_get(dev, "shm");
	char target[128];
	int r;

	guest_writes("f", "x");
	snprintf(target, sizeof(target), "%s-x", strrchr(dir, '/') + 1);
	if (other_file_system(dir, "/dev/shm") && access("/dev/shm", W_OK) == 0) {
		r = DO(disk_rename, top, "f", shm, target, false);
		assert_int_equal(r, -EXDEV);
		assert_int_equal(DO(disk_lookup, top, "f"), 0);
		assert_int_equal(DO(disk_link, last.a.entry, shm, target), -EXDEV);
	} else {
		print_message("# /dev/shm is no file system of its own\n");
	}
	entry_unref(shm);
	entry_unref(dev);
}

TEST(a_full_disk_is_enospc_and_a_read_only_one_is_erofs)
{
	struct entry *m, *e;
	struct file *f, *g;
	char data[65536];
	int r = 0;

	mkdir(guest("m"), 0700);
	if (mount("none", guest("m"), "tmpfs", 0, "size=1m,nr_inodes=4") < 0) {
		print_message("# cannot mount here: %s\n", strerror(errno));
		skip();
	}
	memset(data, 'x', sizeof(data));
	m = entry_get(top, "m");
	assert_int_equal(DO(disk_create_file, m, "f", O_RDWR, 0600), 0);
	f = last.a.file;
	for (off_t off = 0; r == 0 && off < 4 << 20; off += sizeof(data))
		r = DO_FILE(file_write, f, off, data, sizeof(data));
	assert_int_equal(r, -ENOSPC);
	/* told once more at the close, then no more */
	assert_int_equal(DO_FILE(file_flush, f), -ENOSPC);
	assert_int_equal(DO_FILE(file_flush, f), 0);
	assert_int_equal(DO(disk_create_file, m, "g", O_RDWR, 0600), 0);
	g = last.a.file;
	/* a copy does not fit either: write, and see why */
	assert_int_equal(DO_FILE(file_copy, f, 0, g, 4096, sizeof(data)), -EOPNOTSUPP);
	file_close(g);
	assert_int_equal(DO(disk_create_file, m, "h", O_RDWR, 0600), 0);
	file_close(last.a.file);
	assert_int_equal(DO(disk_mkdir, m, "i", 0700), -ENOSPC);
	file_close(f);
	assert_int_equal(DO(disk_lookup, m, "f"), 0);	/* the CLOSE is through */
	e = entry_ref(last.a.entry);
	assert_int_equal(mount("none", guest("m"), NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
	assert_int_equal(DO(disk_mkdir, m, "i", 0700), -EROFS);
	assert_int_equal(DO(disk_unlink, m, "f"), -EROFS);
	assert_int_equal(DO(disk_open, e, O_WRONLY), -EROFS);
	assert_int_equal(DO(disk_rename, m, "f", m, "j", false), -EROFS);
	assert_int_equal(DO(disk_rmdir, top, "m"), -EBUSY);
	entry_unref(e);
	entry_unref(m);
}

TEST(rename_replaces_and_keeps_the_entry)
{
	struct entry *a, *b;

	guest_writes("a", "new");
	guest_writes("b", "old");
	assert_int_equal(DO(disk_lookup, top, "b"), 0);
	b = entry_ref(last.a.entry);
	assert_int_equal(DO(disk_lookup, top, "a"), 0);
	a = entry_ref(last.a.entry);
	assert_int_equal(DO(disk_rename, top, "a", top, "b", true), -EEXIST);
	assert_int_equal(DO(disk_rename, top, "a", top, "b", false), 0);
	guest_has("b", "new");
	assert_ptr_equal(entry_find(top, "b"), a);
	assert_null(entry_find(top, "a"));
	assert_false(entry_attached(b));
	assert_int_equal(DO(disk_rename, top, "b", top, "c", true), 0);
	guest_has("c", "new");
	entry_unref(a);
	entry_unref(b);
}

TEST(what_is_below_a_renamed_folder_moves_along)
{
	struct entry *f;

	mkdir(guest("d"), 0700);
	guest_writes("d/f", "x");
	assert_int_equal(DO(disk_lookup, top, "d"), 0);
	assert_int_equal(DO(disk_lookup, last.a.entry, "f"), 0);
	f = entry_ref(last.a.entry);
	assert_int_equal(DO(disk_rename, top, "d", top, "e", false), 0);
	disk_job_ended(disk);
	assert_int_equal(DO(disk_getattr, f, NULL), 0);
	assert_int_equal(last.a.st.st_size, 1);
	entry_unref(f);
}

TEST(permissions_are_as_asked_for_whatever_the_servers_umask)
{
	disk_detach(disk);
	server_umask = "077";
	disk_attach(disk, the_ssh, false);
	must_be_ready();
	server_umask = NULL;
	assert_int_equal(DO(disk_mkdir, top, "d", 0775), 0);
	assert_int_equal(last.a.st.st_mode, S_IFDIR | 0775);
	assert_int_equal(DO(disk_mknod, top, "n", 0666), 0);
	assert_int_equal(last.a.st.st_mode, S_IFREG | 0666);
	assert_int_equal(DO(disk_create_file, top, "f", O_RDWR, 0755), 0);
	assert_int_equal(last.a.st.st_mode, S_IFREG | 0755);
	file_close(last.a.file);
	/* What was there before keeps its own. */
	chmod(guest("n"), 0600);
	assert_int_equal(DO(disk_create_file, top, "n", O_RDWR, 0666), 0);
	assert_int_equal(last.a.st.st_mode, S_IFREG | 0600);
	file_close(last.a.file);
}

TEST(with_sudo_the_server_is_a_command)
{
	disk_detach(disk);
	disk_attach(disk, the_ssh, true);
	must_be_ready();
	assert_int_equal(sudos, 1);
	assert_int_equal(DO(disk_mkdir, top, "d", 0700), 0);
}

TEST(links_stay_inside)
{
	struct entry *e;
	char up[128];

	mkdir(guest("d"), 0700);
	mkdir(guest("d/e"), 0700);
	assert_int_equal(symlink("/etc/hosts", guest("d/abs")), 0);
	assert_int_equal(symlink("../../../../../../x", guest("d/up")), 0);
	assert_int_equal(symlink("d/e", guest("jump")), 0);
	assert_int_equal(symlink("jump/../here", guest("through")), 0);
	assert_int_equal(DO(disk_lookup, top, "d"), 0);
	e = entry_ref(last.a.entry);
	assert_int_equal(DO(disk_lookup, e, "abs"), 0);
	assert_int_equal(DO(disk_readlink, entry_find(e, "abs")), 0);
	assert_string_equal(last.text, "../../../etc/hosts");
	assert_int_equal(DO(disk_lookup, e, "up"), 0);
	assert_int_equal(DO(disk_readlink, entry_find(e, "up")), 0);
	assert_string_equal(last.text, "../../../x");
	/* a ".." behind a link: the guest says where that is */
	assert_int_equal(DO(disk_lookup, top, "through"), 0);
	assert_int_equal(DO(disk_readlink, entry_find(top, "through")), 0);
	snprintf(up, sizeof(up), "../..%s/d/here", dir);
	assert_string_equal(last.text, up);
	entry_unref(e);
}

/* --- attributes ------------------------------------------------------------------------------ */

static int set(struct entry *e, struct file *f, unsigned what, struct stat st)
{
	return DO(disk_setattr, e, f, &st, what);
}

TEST(attributes_are_set_one_by_one)
{
	struct stat st;
	struct entry *e;

	guest_writes("f", "hello");
	guest_time("f", 1000000000);
	assert_int_equal(DO(disk_lookup, top, "f"), 0);
	e = entry_ref(last.a.entry);
	assert_int_equal(set(e, NULL, DISK_SET_MTIME, (struct stat){ .st_mtime = 1100000000 }), 0);
	assert_int_equal(last.a.st.st_mtime, 1100000000);
	assert_int_equal(last.a.st.st_atime, 1000000000);
	disk_job_ended(disk);	/* nothing is known now: it has to look first */
	assert_int_equal(set(e, NULL, DISK_SET_ATIME, (struct stat){ .st_atime = 1200000000 }), 0);
	stat(guest("f"), &st);
	assert_int_equal(st.st_atime, 1200000000);
	assert_int_equal(st.st_mtime, 1100000000);
	assert_int_equal(set(e, NULL, DISK_SET_MODE, (struct stat){ .st_mode = 0604 }), 0);
	assert_int_equal(last.a.st.st_mode, S_IFREG | 0604);
	assert_int_equal(set(e, NULL, DISK_SET_SIZE, (struct stat){ .st_size = 2 }), 0);
	assert_int_equal(last.a.st.st_size, 2);
	guest_has("f", "he");
	assert_int_equal(set(e, NULL, DISK_SET_UID, (struct stat){ .st_uid = getuid() }), 0);
	assert_true(entry_fresh(e, &st));
	assert_int_equal(st.st_size, 2);
	entry_unref(e);
}

TEST(a_link_itself_is_changed_not_what_it_leads_to)
{
	struct stat st;
	struct entry *l;

	guest_writes("f", "");
	guest_time("f", 1000000000);
	assert_int_equal(symlink("f", guest("l")), 0);
	assert_int_equal(DO(disk_lookup, top, "l"), 0);
	l = entry_ref(last.a.entry);
	assert_int_equal(set(l, NULL, DISK_SET_ATIME | DISK_SET_MTIME,
			     (struct stat){ .st_atime = 5, .st_mtime = 6 }), 0);
	lstat(guest("l"), &st);
	assert_int_equal(st.st_mtime, 6);
	stat(guest("f"), &st);
	assert_int_equal(st.st_mtime, 1000000000);
	assert_int_equal(set(l, NULL, DISK_SET_MODE, (struct stat){ .st_mode = 0 }), -EOPNOTSUPP);
	entry_unref(l);
}

TEST(what_is_known_is_old_after_a_change_and_after_a_command)
{
	struct stat st;
	struct file *f = must_create("f");
	struct entry *e = entry_find(top, "f");

	assert_true(entry_fresh(e, &st));
	assert_true(entry_tell(e, &st) > 0.5);
	disk_job_ended(disk);
	assert_false(entry_fresh(e, &st));
	assert_int_equal(DO(disk_getattr, e, NULL), 0);
	assert_true(entry_fresh(e, &st));
	assert_int_equal(write_text(f, 0, "xyz"), 0);
	assert_false(entry_fresh(e, &st));
	/* the close tells what the write led to, without anybody waiting */
	assert_int_equal(DO_FILE(file_flush, f), 0);
	assert_int_equal(DO(disk_lookup, top, "none"), -ENOENT);
	assert_true(entry_fresh(e, &st));
	assert_int_equal(st.st_size, 3);
	file_close(f);
}

TEST(figures_of_the_file_system)
{
	struct statvfs real;

	assert_int_equal(DO(disk_statfs, top), 0);
	assert_int_equal(statvfs(dir, &real), 0);
	assert_int_equal(last.a.vfs.f_blocks, real.f_blocks);
	assert_int_equal(last.a.vfs.f_frsize, real.f_frsize);
}

/* --- open files -------------------------------------------------------------------------------- */

TEST(a_file_is_made_written_and_read)
{
	struct file *f = must_create("f");

	assert_int_equal(write_text(f, 0, "hello world"), 0);
	reads(f, 0, 4096, "hello world");
	reads(f, 6, 3, "wor");
	reads(f, 11, 10, "");
	reads(f, 4096, 10, "");
	assert_int_equal(DO_FILE(file_fsync, f), 0);
	guest_has("f", "hello world");
	file_close(f);
}

TEST(an_append_is_the_servers)
{
	struct file *f;

	guest_writes("f", "one\n");
	f = must_open("f", O_WRONLY | O_APPEND);
	guest_writes("f", "one\ntwo\n");
	/* at an offset that is wrong by now */
	assert_int_equal(write_text(f, 4, "three\n"), 0);
	assert_int_equal(DO_FILE(file_flush, f), 0);
	guest_has("f", "one\ntwo\nthree\n");
	file_close(f);
}

TEST(truncation_at_the_open)
{
	struct file *f;

	guest_writes("f", "something long");
	assert_int_equal(DO(disk_lookup, top, "f"), 0);
	f = must_open("f", O_WRONLY | O_TRUNC);
	assert_int_equal(last.a.st.st_size, 0);
	assert_int_equal(write_text(f, 0, "x"), 0);
	assert_int_equal(DO_FILE(file_flush, f), 0);
	guest_has("f", "x");
	file_close(f);
}

TEST(an_open_file_outlives_its_name)
{
	struct file *f = must_create("f"), *g;
	struct entry *e = entry_ref(entry_find(top, "f"));

	assert_int_equal(write_text(f, 0, "hello"), 0);
	assert_int_equal(DO(disk_rename, top, "f", top, "g", false), 0);
	reads(f, 0, 100, "hello");
	assert_int_equal(DO(disk_unlink, top, "g"), 0);
	reads(f, 0, 100, "hello");
	assert_int_equal(write_text(f, 5, "!"), 0);
	/* attributes by the handle: there is no name */
	assert_int_equal(DO(disk_getattr, e, NULL), 0);
	assert_int_equal(last.a.st.st_size, 6);
	assert_int_equal(set(e, NULL, DISK_SET_SIZE, (struct stat){ .st_size = 1 }), 0);
	assert_int_equal(last.a.st.st_size, 1);
	/* a new file of the old name is another one */
	g = must_create("f");
	assert_int_equal(DO(disk_getattr, entry_find(top, "f"), NULL), 0);
	assert_int_equal(last.a.st.st_size, 0);
	file_close(g);
	file_close(f);
	assert_int_equal(DO(disk_getattr, e, NULL), -ESTALE);
	entry_unref(e);
}

TEST(a_file_removed_by_the_guest_is_still_the_file_for_who_has_it_open)
{
	struct file *f = must_create("f");
	struct entry *e = entry_ref(entry_find(top, "f"));

	assert_int_equal(write_text(f, 0, "hello"), 0);
	unlink(guest("f"));
	assert_int_equal(DO(disk_getattr, e, NULL), 0);
	assert_int_equal(last.a.st.st_size, 5);
	reads(f, 0, 100, "hello");
	file_close(f);
	entry_unref(e);
}

TEST(files_of_proc_are_read_whole)
{
	struct entry *proc = entry_get(disk_root(disk), "proc"), *e = entry_get(proc, "cpuinfo");
	struct file *f;
	off_t off = 0;

	assert_int_equal(DO(disk_open, e, O_RDONLY), 0);
	f = last.a.file;
	assert_int_equal(last.a.st.st_size, 0);
	do {
		assert_int_equal(DO_FILE(file_read, f, off, 300), 0);
		off += (off_t)last.len;
		/* short only at the end */
	} while (last.len == 300);
	assert_true(off > 300);
	assert_int_equal(DO_FILE(file_read, f, 0, 1 << 20), 0);
	assert_int_equal(last.len, off);
	file_close(f);
	entry_unref(e);
	entry_unref(proc);
}

#define BIG (300u * 1024 * 1024)

static void fill(uint8_t *out, off_t off, size_t len)
{
	for (size_t i = 0; i < len; i += 8) {
		uint64_t v = (uint64_t)(off + (off_t)i) * 0x9e3779b97f4a7c15u;

		memcpy(out + i, &v, 8);
	}
}

TEST(a_write_is_answered_on_its_way_and_judged_at_the_flush)
{
	struct file *f;
	struct result r = { 0 };
	struct file_call *call;
	struct stat st;

	assert_int_equal(DO(disk_create_file, top, "f", O_RDWR | O_EXCL, 0600), 0);
	f = last.a.file;
	kill(channel->peer.server, SIGSTOP);
	assert_int_equal(write_text(f, 0, "hello"), 0);
	assert_int_equal(write_text(f, 5, " world"), 0);
	/* what tar does before it closes */
	assert_true(disk_setattr_now(entry_find(top, "f"), &(struct stat){ .st_mode = 0640,
				     .st_mtime = 1000 }, DISK_SET_MODE | DISK_SET_MTIME, &st));
	assert_int_equal(st.st_size, 11);
	assert_int_equal(st.st_mtime, 1000);
	assert_int_equal(file_flush(f, on_data, &r, &call), 0);
	/* and it would not change anything */
	assert_true(disk_setattr_now(entry_find(top, "f"), &st, DISK_SET_UID | DISK_SET_GID, &st));
	assert_false(r.done);
	kill(channel->peer.server, SIGCONT);
	RUN_UNTIL(loop, r.done);
	assert_int_equal(r.error, 0);
	free(r.data);
	guest_has("f", "hello world");
	assert_int_equal(DO(disk_getattr, entry_find(top, "f"), NULL), 0);
	assert_int_equal(last.a.st.st_mtime, 1000);
	assert_int_equal(last.a.st.st_mode, S_IFREG | 0640);
	file_close(f);
}

TEST(a_write_that_failed_is_told_by_the_next_and_by_the_flush)
{
	static const char large[5000];
	struct file *f;

	guest_writes("f", "hello");
	f = must_open("f", O_RDONLY);		/* the server refuses to write by this handle */
	assert_int_equal(DO_FILE(file_write, f, 0, large, sizeof(large)), 0);
	assert_int_not_equal(DO_FILE(file_flush, f), 0);
	assert_int_equal(DO_FILE(file_flush, f), 0);
	assert_int_equal(DO_FILE(file_write, f, 0, large, sizeof(large)), 0);
	/* its verdict comes before that of the lookup, which is behind it */
	assert_int_equal(DO(disk_lookup, top, "none"), -ENOENT);
	assert_int_equal(DO(disk_lookup, top, "none"), -ENOENT);
	assert_int_not_equal(write_text(f, 0, "x"), 0);
	assert_int_not_equal(DO_FILE(file_flush, f), 0);
	file_close(f);
	guest_has("f", "hello");
}

TEST(a_first_small_write_is_judged_at_once)
{
	static const char large[5000];
	struct result r = { 0 };
	struct file_call *call;
	struct file *f, *g = must_create("g");

	guest_writes("f", "hello");
	f = must_open("f", O_RDONLY);
	assert_int_not_equal(write_text(f, 0, "x"), 0);
	/* it has been told */
	assert_int_equal(DO_FILE(file_flush, f), 0);
	file_close(f);

	f = must_open("f", O_WRONLY);
	kill(channel->peer.server, SIGSTOP);
	assert_int_equal(file_write(f, 0, "one", 3, on_data, &r, &call), 0);
	assert_int_equal(DO_FILE(file_write, g, 0, large, sizeof(large)), 0);
	assert_false(r.done);
	kill(channel->peer.server, SIGCONT);
	RUN_UNTIL(loop, r.done);
	assert_int_equal(r.error, 0);
	free(r.data);
	/* and not the second one */
	kill(channel->peer.server, SIGSTOP);
	assert_int_equal(write_text(f, 3, "two"), 0);
	kill(channel->peer.server, SIGCONT);
	assert_int_equal(DO_FILE(file_flush, f), 0);
	file_close(f);
	file_close(g);
	guest_has("f", "onetwo");
}

TEST(a_copy_is_made_by_the_server)
{
	struct file *f, *g = must_create("g");

	guest_writes("f", "hello world");
	f = must_open("f", O_RDONLY);
	assert_int_equal(DO_FILE(file_copy, f, 6, g, 2, 100), 0);
	assert_int_equal(last.len, 5);		/* to the end */
	assert_int_equal(DO(disk_getattr, entry_find(top, "g"), NULL), 0);
	assert_int_equal(last.a.st.st_size, 7);
	assert_int_equal(DO_FILE(file_read, g, 0, 100), 0);
	assert_int_equal(last.len, 7);
	assert_memory_equal(last.data, "\0\0world", 7);
	assert_int_equal(DO_FILE(file_copy, f, 11, g, 0, 100), 0);
	assert_int_equal(last.len, 0);
	/* within one file: read and write */
	assert_int_equal(DO_FILE(file_copy, f, 0, f, 6, 5), -EOPNOTSUPP);
	file_close(f);
	file_close(g);
	guest_has("f", "hello world");
}

/* As a program that copies: 1 MiB a write; and reads of 128 KiB, two on the way, one behind the other. */
TEST(a_big_file_goes_there_and_comes_back)
{
	const size_t piece = 1 << 20, chunk = 128 * 1024;
	uint8_t *data = malloc(piece), *expected = malloc(chunk);
	struct file *f = must_create("big");
	struct result two[2];
	struct file_call *call;
	off_t asked = 0;

	for (off_t off = 0; off < BIG; off += (off_t)piece) {
		fill(data, off, piece);
		assert_int_equal(DO_FILE(file_write, f, off, data, piece), 0);
	}
	file_close(f);
	f = must_open("big", O_RDONLY);
	assert_int_equal(last.a.st.st_size, BIG);
	memset(two, 0, sizeof(two));
	for (off_t off = 0; off < BIG; off += (off_t)chunk) {
		struct result *r = &two[off / (off_t)chunk % 2];

		for (; asked < BIG && asked < off + 2 * (off_t)chunk; asked += (off_t)chunk) {
			struct result *a = &two[asked / (off_t)chunk % 2];

			memset(a, 0, sizeof(*a));
			assert_int_equal(file_read(f, asked, chunk, on_data, a, &call), 0);
		}
		RUN_UNTIL(loop, r->done);
		assert_int_equal(r->answers, 1);
		assert_int_equal(r->error, 0);
		assert_int_equal(r->len, chunk);
		fill(expected, off, chunk);
		assert_memory_equal(r->data, expected, chunk);
		free(r->data);
	}
	file_close(f);
	free(data);
	free(expected);
}

/* --- over two channels (stripe.c) --- */

#define RUN_PART 100000
#define RUN_MS 60000		/* a run that does not get to where it should in that time never does */

static uint8_t run_byte(size_t at)
{
	return (uint8_t)(at ^ at >> 8 ^ at >> 16);
}

static void write_run(struct file *f, size_t *at, size_t len)
{
	uint8_t *part = malloc(len);

	for (size_t i = 0; i < len; i++)
		part[i] = run_byte(*at + i);
	assert_int_equal(DO_FILE(file_write, f, (off_t)*at, part, len), 0);
	*at += len;
	free(part);
}

static void guest_has_run(const char *name, size_t len)
{
	FILE *in = fopen(guest(name), "r");
	int c;

	assert_non_null(in);
	for (size_t i = 0; i < len; i++) {
		c = fgetc(in);
		if (c != run_byte(i))
			fail_msg("%s: %d at %zu of %zu", name, c, i, len);
	}
	assert_int_equal(fgetc(in), EOF);
	fclose(in);
}

/* Write on until much has gone over the second channel, which is then the latest one. */
static void write_over_two(struct file *f, size_t *at)
{
	size_t before = channels == 2 ? channel->written : 0;
	int64_t end = clock_ms() + RUN_MS;

	while (clock_ms() < end && (channels < 2 || channel->written < before + 5 * RUN_PART))
		write_run(f, at, RUN_PART);
	assert_int_equal(channels, 2);
	assert_true(channel->written >= before + 5 * RUN_PART);
}

TEST(a_long_run_goes_over_two_channels)
{
	struct file *f;
	size_t at = 0;

	disk_spread_from(disk, 0, RUN_PART);
	f = must_create("f");
	write_over_two(f, &at);
	assert_int_equal(DO_FILE(file_flush, f), 0);
	guest_has_run("f", at);
	/* and again, behind the flush */
	write_over_two(f, &at);
	assert_int_equal(DO_FILE(file_fsync, f), 0);
	guest_has_run("f", at);
	file_close(f);
}

/* What is asked while the second server does not go on, and what is answered when it does. */
static void let_it_go_on(struct loop_timer *t)
{
	kill(channel->peer.server, SIGCONT);
}

static void write_slowly(struct file *f, size_t *at)
{
	size_t before;

	assert_int_equal(DO_FILE(file_fsync, f), 0);
	before = channel->written;
	kill(channel->peer.server, SIGSTOP);
	write_run(f, at, 3 * RUN_PART);		/* the first channel has nothing to do, then the second */
	assert_true(channel->written > before);
}

#define SLOWLY(what)								\
	do {									\
		struct loop_timer slow_ = { 0 };				\
										\
		write_slowly(f, &at);						\
		loop_timer_set(loop, &slow_, 20, let_it_go_on);			\
		what;								\
	} while (0)

TEST(nothing_overtakes_what_goes_over_the_second_channel)
{
	const struct stat half = { .st_size = RUN_PART / 2 };
	struct file *f, *g;
	struct entry *e;
	size_t at = 0;
	char text[9] = { 0 };

	disk_spread_from(disk, 0, RUN_PART);
	f = must_create("f");
	e = entry_ref(last.a.entry);
	g = must_open("f", O_RDONLY);
	write_over_two(f, &at);
	SLOWLY(assert_int_equal(DO(disk_getattr, e, NULL), 0));
	assert_int_equal(last.a.st.st_size, at);
	write_over_two(f, &at);
	SLOWLY(assert_int_equal(DO(disk_lookup, top, "f"), 0));
	assert_int_equal(last.a.st.st_size, at);
	write_over_two(f, &at);
	SLOWLY(assert_int_equal(DO_FILE(file_read, g, (off_t)(at - RUN_PART), RUN_PART), 0));
	assert_int_equal(last.len, RUN_PART);
	for (size_t i = 0; i < RUN_PART; i++)
		assert_int_equal(last.data[i], run_byte(at - RUN_PART + i));
	write_over_two(f, &at);
	SLOWLY(assert_int_equal(DO_FILE(file_fsync, f), 0));
	guest_has_run("f", at);
	write_over_two(f, &at);
	/* written once more: the later one stands */
	SLOWLY(assert_int_equal(DO_FILE(file_write, f, (off_t)(at - RUN_PART), "new text", 8), 0));
	assert_int_equal(DO_FILE(file_read, g, (off_t)(at - RUN_PART), 8), 0);
	memcpy(text, last.data, 8);
	assert_string_equal(text, "new text");
	at -= RUN_PART;
	write_run(f, &at, RUN_PART);
	write_over_two(f, &at);
	SLOWLY(assert_int_equal(DO(disk_setattr, e, f, &half, DISK_SET_SIZE), 0));
	assert_int_equal(DO(disk_getattr, e, f), 0);
	assert_int_equal(last.a.st.st_size, RUN_PART / 2);
	at = RUN_PART / 2;
	write_over_two(f, &at);
	SLOWLY(assert_int_equal(DO_FILE(file_flush, f), 0));
	guest_has_run("f", at);
	file_close(f);
	file_close(g);
	entry_unref(e);
}

TEST(a_name_that_leads_elsewhere_gets_nothing_of_a_run)
{
	struct file *f;
	size_t at = 0;

	disk_spread_from(disk, 0, RUN_PART);
	f = must_create("f");
	assert_int_equal(rename(guest("f"), guest("moved")), 0);
	guest_writes("f", "another file");
	for (int i = 0; i < 100; i++)
		write_run(f, &at, RUN_PART);
	assert_int_equal(DO_FILE(file_flush, f), 0);
	assert_int_equal(channels, 2);		/* it was tried */
	guest_has_run("moved", at);
	guest_has("f", "another file");
	file_close(f);
}

TEST(an_append_stays_on_one_channel)
{
	struct file *f;
	size_t at = 0;

	disk_spread_from(disk, 0, RUN_PART);
	guest_writes("f", "");
	f = must_open("f", O_WRONLY | O_APPEND);
	for (int i = 0; i < 50; i++)
		write_run(f, &at, RUN_PART);
	assert_int_equal(DO_FILE(file_flush, f), 0);
	assert_int_equal(channels, 1);
	guest_has_run("f", at);
	file_close(f);
}

TEST(a_channel_that_others_need_is_given_up)
{
	struct file *f;
	int64_t end = clock_ms() + RUN_MS;
	size_t at = 0;

	assert_false(disk_yields_channel(disk));
	disk_spread_from(disk, 0, RUN_PART);
	f = must_create("f");
	write_over_two(f, &at);
	assert_true(disk_yields_channel(disk));
	while (clock_ms() < end && channel->peer.fd.loop)
		write_run(f, &at, RUN_PART);
	assert_null(channel->peer.fd.loop);
	for (int i = 0; i < 20; i++)
		write_run(f, &at, RUN_PART);
	assert_int_equal(channels, 2);
	assert_int_equal(DO_FILE(file_flush, f), 0);
	guest_has_run("f", at);
	file_close(f);
}

TEST(a_second_server_that_is_lost_is_told_by_the_close)
{
	struct file *f;
	size_t at = 0;

	disk_spread_from(disk, 0, RUN_PART);
	f = must_create("f");
	write_over_two(f, &at);
	write_slowly(f, &at);
	kill(channel->peer.server, SIGKILL);
	assert_int_equal(DO_FILE(file_flush, f), -EIO);
	/* the first one has lost nothing */
	assert_int_equal(write_text(f, 0, "goes on"), 0);
	assert_int_equal(DO_FILE(file_flush, f), 0);
	reads(f, 0, 7, "goes on");
	file_close(f);
}

TEST(reads_anywhere_give_what_is_there)
{
	static uint8_t data[1 << 20];
	struct file *f = must_create("f");
	unsigned seed = 1;

	fill(data, 0, sizeof(data));
	assert_int_equal(DO_FILE(file_write, f, 0, data, sizeof(data)), 0);
	for (int i = 0; i < 3000; i++) {
		off_t off = rand_r(&seed) % (off_t)(sizeof(data) + 1000);
		size_t size = (size_t)rand_r(&seed) % 300000 + 1, left;

		/* now and then one behind the other, and changes in between */
		if (i % 7 < 4)
			off = (off_t)((size_t)i * 4096 % sizeof(data));
		if (i % 50 == 0) {
			data[off % (off_t)sizeof(data)] ^= 1;
			assert_int_equal(DO_FILE(file_write, f, off % (off_t)sizeof(data),
						 &data[off % (off_t)sizeof(data)], 1), 0);
		}
		left = off >= (off_t)sizeof(data) ? 0 : sizeof(data) - (size_t)off;
		assert_int_equal(DO_FILE(file_read, f, off, size), 0);
		assert_int_equal(last.len, size < left ? size : left);
		assert_memory_equal(last.data, data + (left ? off : 0), last.len);
	}
	file_close(f);
}

TEST(what_was_read_ahead_is_not_given_after_a_change)
{
	static uint8_t data[1 << 20];
	struct file *f, *g;

	guest_writes("f", "");
	assert_int_equal(truncate(guest("f"), sizeof(data)), 0);
	f = must_open("f", O_RDONLY);
	g = must_open("f", O_WRONLY);
	/* one behind the other: the rest is on its way */
	assert_int_equal(DO_FILE(file_read, f, 0, 65536), 0);
	assert_int_equal(DO_FILE(file_read, f, 65536, 65536), 0);
	assert_int_equal(DO_FILE(file_write, g, 131072, "new", 3), 0);
	assert_int_equal(DO_FILE(file_read, f, 131072, 65536), 0);
	assert_memory_equal(last.data, "new", 3);
	assert_int_equal(DO_FILE(file_read, f, 196608, 65536), 0);
	/* and by a command of the guest */
	memset(data, 'x', sizeof(data));
	FILE *out = fopen(guest("f"), "r+");
	assert_int_equal(fwrite(data, 1, sizeof(data), out), sizeof(data));
	fclose(out);
	disk_job_ended(disk);
	assert_int_equal(DO_FILE(file_read, f, 262144, 65536), 0);
	assert_memory_equal(last.data, data, 65536);
	file_close(f);
	file_close(g);
}

TEST(a_cancelled_read_or_write_is_never_answered)
{
	static uint8_t data[1 << 20];
	struct file *f = must_create("f");
	struct result r = { 0 };
	struct file_call *call;

	for (int i = 0; i < 20; i++) {
		assert_int_equal(file_write(f, 0, data, sizeof(data), on_data, &r, &call), 0);
		file_cancel(call);
		assert_int_equal(file_read(f, 0, sizeof(data), on_data, &r, &call), 0);
		file_cancel(call);
	}
	assert_int_equal(DO_FILE(file_fsync, f), 0);
	assert_int_equal(r.answers, 0);
	file_close(f);
}

/* --- what the kernel believes --------------------------------------------------------------------- */

TEST(an_open_finds_that_the_kernel_believes_something_else)
{
	struct stat st;
	struct entry *e;

	guest_writes("f", "hello");
	assert_int_equal(DO(disk_lookup, top, "f"), 0);
	e = entry_ref(last.a.entry);
	assert_true(entry_tell(e, &last.a.st) > 0);
	guest_writes("f", "something else");
	assert_int_equal(DO(disk_open, e, O_RDONLY), -ESTALE);
	/* the kernel asks again, and is told from memory what is true */
	assert_true(entry_fresh(e, &st));
	assert_int_equal(st.st_size, 14);
	/* but not for longer than it asks: it may be about to change again */
	assert_true(entry_tell(e, &st) == 0);
	assert_int_equal(DO(disk_open, e, O_RDONLY), 0);
	assert_false(file_bypass_cache(last.a.file));
	file_close(last.a.file);
	/* It does not go on for ever where the file keeps changing. */
	assert_true(entry_fresh(e, &st));
	entry_tell(e, &st);
	guest_writes("f", "three");
	assert_int_equal(DO(disk_open, e, O_RDONLY), 0);
	assert_true(file_bypass_cache(last.a.file));
	file_close(last.a.file);
	entry_unref(e);
}

/* Start to rename n over f, and to open what has been f until now: the answer to the open. */
static int open_while_replaced(struct entry *e, int flags)
{
	struct result renamed = { 0 };
	struct disk_call *call;
	int r;

	assert_int_equal(disk_rename(disk, top, "n", top, "f", false, on_answer, &renamed, &call),
			 0);
	r = DO(disk_open, e, flags);
	RUN_UNTIL(loop, renamed.done);
	assert_int_equal(renamed.error, 0);
	entry_unref(renamed.a.entry);
	assert_false(entry_attached(e));
	return r;
}

/* Lets n be the next one, and both be looked up, as the kernel does; f is returned. */
static struct entry *look_at_both(const char *text, struct entry **n)
{
	guest_writes("n", text);
	assert_int_equal(DO(disk_lookup, top, "n"), 0);
	*n = entry_ref(last.a.entry);
	assert_int_equal(DO(disk_lookup, top, "f"), 0);
	return entry_ref(last.a.entry);
}

TEST(a_file_that_is_replaced_while_it_is_opened_is_looked_up_again)
{
	struct stat st;
	struct file *w;
	struct entry *e, *n, *second;

	guest_writes("f", "the first");
	e = look_at_both("the second one", &n);
	assert_int_equal(open_while_replaced(e, O_RDONLY), -ESTALE);
	entry_unref(e);
	second = n;		/* what f is now: the kernel holds it */
	/* There is no third look: who comes too late again has what is there now. */
	e = look_at_both("the third one of them", &n);
	assert_ptr_equal(e, second);
	assert_true(entry_tell(e, &last.a.st) == 0);
	assert_int_equal(open_while_replaced(e, O_RDONLY), 0);
	w = last.a.file;
	assert_true(file_bypass_cache(w));
	reads(w, 0, 100, "the third one of them");
	file_close(w);
	/* That it is replaced again before it is opened is no reason to fail either. */
	assert_int_equal(DO(disk_open, e, O_RDWR), 0);
	w = last.a.file;
	reads(w, 0, 100, "the third one of them");
	/* What is written so is seen by the name. */
	assert_int_equal(DO(disk_lookup, top, "f"), 0);
	assert_int_equal(write_text(w, 0, "THE THIRD ONE OF THEM, longer"), 0);
	assert_false(entry_fresh(entry_find(top, "f"), &st));
	assert_int_equal(DO(disk_lookup, top, "f"), 0);
	assert_int_equal(last.a.st.st_size, 29);
	guest_has("f", "THE THIRD ONE OF THEM, longer");
	file_close(w);
	entry_unref(second);
	entry_unref(e);
	entry_unref(n);
}

TEST(what_is_changed_while_it_is_replaced_is_not_told_from_memory)
{
	struct result renamed = { 0 };
	struct disk_call *call;
	struct stat st;
	struct entry *e, *n;

	guest_writes("f", "the first");
	e = look_at_both("the second one", &n);
	assert_int_equal(disk_rename(disk, top, "n", top, "f", false, on_answer, &renamed, &call),
			 0);
	assert_int_equal(set(e, NULL, DISK_SET_SIZE, (struct stat){ .st_size = 3 }), 0);
	RUN_UNTIL(loop, renamed.done);
	entry_unref(renamed.a.entry);
	guest_has("f", "the");
	if (entry_fresh(entry_find(top, "f"), &st))
		assert_int_equal(st.st_size, 3);
	entry_unref(e);
	entry_unref(n);
	/* the same of an open that truncates, and is to be made anew */
	e = look_at_both("the third one", &n);
	assert_int_equal(open_while_replaced(e, O_WRONLY | O_TRUNC), -ESTALE);
	guest_has("f", "");
	assert_false(entry_fresh(entry_find(top, "f"), &st));
	entry_unref(e);
	entry_unref(n);
}

TEST(who_changes_what_is_replaced_is_sent_back_once)
{
	struct entry *e, *n, *second;
	struct stat st;

	guest_writes("f", "the first");
	e = look_at_both("the second one", &n);
	assert_int_equal(DO(disk_rename, top, "n", top, "f", false), 0);
	assert_int_equal(set(e, NULL, DISK_SET_MODE, (struct stat){ .st_mode = 0600 }), -ESTALE);
	entry_unref(e);
	second = n;
	e = look_at_both("the third one", &n);
	assert_ptr_equal(e, second);
	assert_int_equal(DO(disk_rename, top, "n", top, "f", false), 0);
	assert_int_equal(set(e, NULL, DISK_SET_MODE, (struct stat){ .st_mode = 0640 }), 0);
	assert_int_equal(stat(guest("f"), &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0640);
	assert_int_equal(DO(disk_lookup, top, "f"), 0);
	assert_int_equal(last.a.st.st_mode, S_IFREG | 0640);
	entry_unref(e);
	entry_unref(second);
	entry_unref(n);
}

TEST(an_open_that_finds_nothing_is_not_sent_back_to_what_is_remembered)
{
	struct result moved = { 0 };
	struct disk_call *call;
	struct stat st;
	struct entry *e;

	guest_writes("f", "text");
	assert_int_equal(mkdir(guest("d"), 0700), 0);
	assert_int_equal(DO(disk_lookup, top, "d"), 0);
	assert_int_equal(DO(disk_lookup, top, "f"), 0);
	e = entry_ref(last.a.entry);
	assert_int_equal(unlink(guest("f")), 0);
	/* A folder elsewhere is renamed meanwhile: then nothing is believed of any name. */
	assert_int_equal(disk_rename(disk, top, "d", top, "e", false, on_answer, &moved, &call), 0);
	assert_int_equal(DO(disk_open, e, O_RDONLY), -ESTALE);
	RUN_UNTIL(loop, moved.done);
	entry_unref(moved.a.entry);
	assert_false(entry_attached(e) && entry_fresh(e, &st));
	assert_int_equal(DO(disk_lookup, top, "f"), -ENOENT);
	entry_unref(e);
}

TEST(a_file_replaced_in_the_guest_while_it_is_open_is_two_files)
{
	struct file *f, *g;
	struct entry *e;

	guest_writes("f", "the old one");
	f = must_open("f", O_RDONLY);
	e = entry_ref(entry_find(top, "f"));
	guest_writes("n", "new");
	assert_int_equal(rename(guest("n"), guest("f")), 0);
	assert_int_equal(DO(disk_getattr, e, f), 0);
	assert_int_equal(last.a.st.st_size, 11);
	assert_int_equal(DO(disk_lookup, top, "f"), 0);
	assert_ptr_not_equal(last.a.entry, e);
	assert_int_equal(last.a.st.st_size, 3);
	assert_false(entry_attached(e));
	g = must_open("f", O_RDONLY);
	reads(f, 0, 100, "the old one");
	reads(g, 0, 100, "new");
	assert_int_equal(DO(disk_getattr, e, NULL), 0);
	assert_int_equal(last.a.st.st_size, 11);
	file_close(f);
	file_close(g);
	entry_unref(e);
}

TEST(a_file_that_only_grows_while_it_is_open_is_one)
{
	struct file *f;
	struct entry *e;

	guest_writes("f", "one");
	f = must_open("f", O_RDONLY);
	e = entry_ref(entry_find(top, "f"));
	for (int i = 0; i < 20; i++) {
		FILE *out = fopen(guest("f"), "a");

		fputs("more", out);
		fclose(out);
		assert_int_equal(DO(disk_lookup, top, "f"), 0);
		assert_ptr_equal(last.a.entry, e);
	}
	file_close(f);
	entry_unref(e);
}

TEST(names_linked_through_here_have_one_number)
{
	struct entry *a, *b;
	struct file *f;
	struct stat st;

	f = must_create("a");
	a = entry_ref(entry_find(top, "a"));
	assert_int_equal(entry_number(a, 7), 7);
	assert_int_equal(DO(disk_link, a, top, "b"), 0);
	b = entry_ref(last.a.entry);
	assert_int_equal(entry_number(b, 8), 7);
	/* what is known of one is known of the other */
	assert_true(entry_fresh(b, &st));
	assert_int_equal(write_text(f, 0, "hello"), 0);
	assert_false(entry_fresh(b, &st));
	assert_int_equal(DO(disk_getattr, a, NULL), 0);
	assert_int_equal(DO(disk_getattr, b, NULL), 0);
	assert_int_equal(entry_number(b, 8), 7);
	/* another file in the place of one of them is another file */
	unlink(guest("b"));
	guest_writes("b", "other");
	assert_int_equal(DO(disk_getattr, a, NULL), 0);
	guest_time("b", 1);
	assert_int_equal(DO(disk_getattr, b, NULL), 0);
	assert_int_equal(entry_number(b, 8), 8);
	assert_int_equal(entry_number(a, 7), 7);
	file_close(f);
	entry_unref(a);
	entry_unref(b);
}

static bool kept(struct entry *e)
{
	bool keep;

	assert_int_equal(DO(disk_open, e, O_RDONLY), 0);
	keep = file_keep_cache(last.a.file);
	file_close(last.a.file);
	return keep;
}

static void loop_stops(struct loop_timer *t)
{
	loop_stop(loop);
}

/* The rule is about time passing: two seconds of it. */
static void pass(int64_t ms)
{
	struct loop_timer t = { 0 };

	loop_timer_set(loop, &t, ms, loop_stops);
	loop_run(loop);
}

TEST(pages_are_kept_only_when_nothing_can_have_changed_unseen)
{
	struct entry *e;

	guest_writes("f", "hello");
	guest_time("f", 1000000000);
	assert_int_equal(DO(disk_lookup, top, "f"), 0);
	e = entry_ref(last.a.entry);
	assert_false(kept(e));		/* nothing was read before */
	assert_false(kept(e));		/* seen too recently */
	pass(2100);
	assert_false(kept(e));		/* its pages may be from before the two seconds */
	pass(1);
	assert_true(kept(e));
	assert_true(kept(e));
	guest_time("f", 1000000001);
	assert_false(kept(e));
	entry_unref(e);
}

/* --- listings ------------------------------------------------------------------------------------------ */

static void wait_until_listed(struct listing *l)
{
	int r;

	while ((r = listing_ready(l)) == -EAGAIN)
		wait_news(listing_news(l));
	assert_int_equal(r, 0);
}

static struct listing *must_list(struct entry *e)
{
	struct listing *l;

	assert_int_equal(DO(disk_opendir, e), 0);
	l = last.a.listing;
	wait_until_listed(l);
	return l;
}

TEST(a_listing_has_all_names_and_their_attributes)
{
	struct listing *l;
	struct stat st;
	struct entry *e;
	mode_t type;
	bool seen[3] = { false };

	guest_writes("f", "hello");
	mkdir(guest("d"), 0700);
	assert_int_equal(symlink("nowhere", guest("l\xff\n")), 0);
	l = must_list(top);
	assert_int_equal(listing_count(l), 3);
	for (size_t i = 0; i < 3; i++) {
		const char *name = listing_name(l, i, &type);

		e = listing_entry(l, i, &st);
		assert_non_null(e);
		assert_ptr_equal(e, entry_find(top, name));
		seen[S_ISREG(type) ? 0 : S_ISDIR(type) ? 1 : 2] = true;
		if (S_ISREG(type))
			assert_int_equal(st.st_size, 5);
		else if (S_ISLNK(type))
			assert_string_equal(name, "l\xff\n");
		entry_unref(e);
	}
	assert_true(seen[0] && seen[1] && seen[2]);
	listing_close(l);
	assert_int_equal(DO(disk_opendir, disk_root(disk)), 0);
	listing_close(last.a.listing);		/* before it has come */
	assert_int_equal(DO(disk_lookup, top, "f"), 0);
	assert_int_equal(DO(disk_opendir, last.a.entry), -ENOENT);
}

TEST(a_listing_does_not_run_away_from_its_reader)
{
	struct listing *l;

	for (int i = 0; i < 9000; i++) {
		char name[32];

		snprintf(name, sizeof(name), "file-%d", i);
		close(open(guest(name), O_CREAT | O_WRONLY, 0600));
	}
	assert_int_equal(DO(disk_opendir, top), 0);
	l = last.a.listing;
	while (listing_count(l) < 4096)
		wait_news(listing_news(l));
	/* what is on the way comes before these are answered */
	for (int i = 0; i < 20; i++)
		assert_int_equal(DO(disk_lookup, disk_root(disk), "none"), -ENOENT);
	assert_true(listing_count(l) < 4096 + 17 * 128);
	for (size_t i = 0; i < 9000; i++)
		while (listing_reaches(l, i) == -EAGAIN)
			wait_news(listing_news(l));
	assert_int_equal(listing_count(l), 9000);
	listing_close(l);
	/* one that waits for its reader ends with the link */
	assert_int_equal(DO(disk_opendir, top), 0);
	l = last.a.listing;
	while (listing_count(l) < 4096)
		wait_news(listing_news(l));
	for (int i = 0; i < 20; i++)
		assert_int_equal(DO(disk_lookup, disk_root(disk), "none"), -ENOENT);
	disk_detach(disk);
	assert_int_equal(listing_reaches(l, 8000), -EHOSTDOWN);
	listing_close(l);
}

TEST(a_long_listing_is_complete)
{
	struct listing *l;
	mode_t type;
	static bool seen[5000];

	memset(seen, 0, sizeof(seen));
	for (int i = 0; i < 5000; i++) {
		char name[32];

		snprintf(name, sizeof(name), "file-%d", i);
		close(open(guest(name), O_CREAT | O_WRONLY, 0600));
	}
	l = must_list(top);
	assert_int_equal(listing_count(l), 5000);
	for (size_t i = 0; i < 5000; i++) {
		int n = atoi(listing_name(l, i, &type) + 5);

		assert_false(seen[n]);
		seen[n] = true;
	}
	listing_close(l);
}

TEST(a_listing_brings_no_name_back)
{
	struct listing *l;
	struct stat st;

	guest_writes("f", "");
	guest_writes("g", "");
	l = must_list(top);
	assert_int_equal(DO(disk_rename, top, "f", top, "h", false), 0);
	assert_int_equal(DO(disk_unlink, top, "g"), 0);
	for (size_t i = 0; i < 2; i++)
		assert_null(listing_entry(l, i, &st));
	listing_close(l);
}

TEST(a_listing_tells_nothing_that_was_changed_since)
{
	struct listing *l;
	struct stat st;
	struct entry *e;
	struct file *f;

	guest_writes("f", "hello");
	l = must_list(top);
	f = must_open("f", O_WRONLY);
	assert_int_equal(write_text(f, 0, "hello world"), 0);
	assert_null(listing_entry(l, 0, &st));
	file_close(f);
	assert_null(listing_entry(l, 0, &st));
	listing_close(l);
	l = must_list(top);
	e = listing_entry(l, 0, &st);
	assert_non_null(e);
	assert_int_equal(st.st_size, 11);
	entry_unref(e);
	disk_job_ended(disk);
	assert_null(listing_entry(l, 0, &st));
	listing_close(l);
}

/* --- what is remembered, and what is fetched ahead ------------------------------------------- */

/* Let answers come in until it is so: each lookup is a round trip behind all that is under way. */
#define COMES_TRUE(condition)							\
	do {									\
		for (int turn_ = 0; turn_ < 1000 && !(condition); turn_++)	\
			assert_int_equal(DO(disk_lookup, disk_root(disk), "none"), -ENOENT);	\
		assert_true(condition);						\
	} while (0)

static int looks(const char *name)
{
	struct entry *e;
	struct stat st;

	return disk_lookup_now(top, name, &e, &st);
}

static bool lists_now(struct entry *e)
{
	struct listing *l = disk_opendir_now(e);

	listing_close(l);
	return l;
}

TEST(a_listed_folder_is_known_until_a_job_ends)
{
	guest_writes("a", "one");
	guest_writes("b", "two");
	assert_int_equal(looks("a"), 0);
	listing_close(must_list(top));
	assert_int_equal(looks("a"), 1);
	assert_int_equal(looks("none"), -ENOENT);
	assert_true(lists_now(top));
	/* what is changed through here is known at once */
	file_close(must_create("c"));
	assert_int_equal(looks("c"), 1);
	assert_int_equal(DO(disk_unlink, top, "a"), 0);
	assert_int_equal(looks("a"), -ENOENT);
	assert_int_equal(DO(disk_rename, top, "b", top, "a", false), 0);
	assert_int_equal(looks("a"), 1);
	assert_int_equal(looks("b"), -ENOENT);
	assert_int_equal(DO(disk_mkdir, top, "d", 0700), 0);
	assert_int_equal(looks("d"), 1);
	assert_true(lists_now(entry_find(top, "d")));
	/* a command's end, and what one says, make all of it be asked for */
	disk_job_ended(disk);
	assert_int_equal(looks("a"), 0);
	assert_int_equal(looks("none"), 0);
	assert_false(lists_now(top));
	listing_close(must_list(top));
	assert_int_equal(looks("none"), -ENOENT);
	disk_job_spoke(disk);
	assert_int_equal(looks("none"), 0);
}

TEST(what_is_made_and_removed_while_a_folder_is_listed)
{
	struct listing *l;
	char name[16];

	for (int i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		guest_writes(name, "text");
	}
	assert_int_equal(DO(disk_opendir, top), 0);
	l = last.a.listing;
	file_close(must_create("made"));
	assert_int_equal(DO(disk_mkdir, top, "folder", 0700), 0);
	wait_until_listed(l);
	listing_close(l);
	assert_int_equal(looks("made"), 1);
	assert_int_equal(looks("folder"), 1);
	assert_int_equal(looks("f499"), 1);
	assert_int_equal(looks("none"), -ENOENT);

	disk_job_ended(disk);
	assert_int_equal(DO(disk_opendir, top), 0);
	l = last.a.listing;
	assert_int_equal(DO(disk_unlink, top, "f499"), 0);
	assert_int_equal(DO(disk_rename, top, "made", top, "renamed", false), 0);
	wait_until_listed(l);
	listing_close(l);
	assert_int_not_equal(looks("f499"), 1);
	assert_int_not_equal(looks("made"), 1);
	assert_int_not_equal(looks("renamed"), -ENOENT);
}

TEST(what_is_remembered_is_within_the_budget)
{
	char name[16];

	for (int i = 0; i < 6000; i++) {	/* more than a MiB of entries */
		snprintf(name, sizeof(name), "f%d", i);
		guest_writes(name, "");
	}
	listing_close(must_list(top));
	assert_true(disk_cache_used(cache) <= 1 << 20);
	assert_int_equal(looks("none"), 0);
	assert_int_equal(DO(disk_lookup, top, "f1"), 0);
}

TEST(a_walk_finds_folders_listed_ahead_and_lookups_have_theirs_listed)
{
	const char *const names[] = { "a", "b", "c", "c/deep", NULL };
	struct entry *c, *deep;

	for (int i = 0; names[i]; i++)
		assert_int_equal(mkdir(guest(names[i]), 0700), 0);
	guest_writes("c/deep/f", "x");
	assert_int_equal(DO(disk_getattr, top, NULL), 0);
	/* one name asked for again and again is somebody who waits for it */
	for (int i = 0; i < 5; i++) {
		assert_int_equal(looks("x"), 0);
		assert_int_equal(DO(disk_lookup, top, "x"), -ENOENT);
	}
	assert_false(lists_now(top));
	assert_int_equal(looks("y"), 0);
	COMES_TRUE(looks("z") == -ENOENT);
	/* a walk: a, then b; c is there by then, and what is in it */
	assert_false(lists_now(entry_find(top, "a")));
	c = entry_find(top, "c");
	COMES_TRUE(lists_now(c));
	deep = entry_find(c, "deep");
	assert_non_null(deep);
	COMES_TRUE(lists_now(deep));
	assert_non_null(entry_find(deep, "f"));
}

TEST(a_walk_goes_through_a_store_only_where_it_is_listed)
{
	const char *const names[] = { "a", "b", "c", "c/deep", ".git", ".git/objects",
				      ".git/objects/0a", NULL };
	struct entry *c, *store, *objects;

	for (int i = 0; names[i]; i++)
		assert_int_equal(mkdir(guest(names[i]), 0700), 0);
	listing_close(must_list(top));
	store = entry_find(top, ".git");
	c = entry_find(top, "c");
	/* git looks at what it keeps, then goes through the files */
	assert_int_equal(DO(disk_lookup, store, "HEAD"), -ENOENT);
	assert_int_equal(DO(disk_lookup, store, "index"), -ENOENT);
	lists_now(entry_find(top, "a"));
	lists_now(entry_find(top, "b"));
	COMES_TRUE(entry_find(c, "deep") && lists_now(entry_find(c, "deep")));
	objects = entry_find(store, "objects");
	assert_true(!objects || !entry_find(objects, "0a"));
	/* find goes into it */
	if (!lists_now(store))
		listing_close(must_list(store));
	objects = entry_find(store, "objects");
	COMES_TRUE(entry_find(objects, "0a") && lists_now(entry_find(objects, "0a")));
}

/* Have the names of all folders in the tree come by now? */
static bool tree_came(struct entry *first, bool came[4][2][2])
{
	bool all = true;
	char name[2] = "";

	/* The walker stands there, and does not go on. */
	lists_now(first);
	for (int i = 0; i < 4 * 2 * 2; i++) {
		struct entry *e = top;
		const char path[] = { (char)('a' + i / 4), (char)('s' + i / 2 % 2),
				      (char)('x' + i % 2), 'f' };

		for (size_t k = 0; k < sizeof(path) && e; k++) {
			name[0] = path[k];
			e = entry_find(e, name);
		}
		came[i / 4][i / 2 % 2][i % 2] |= e != NULL;
		all = all && came[i / 4][i / 2 % 2][i % 2];
	}
	return all;
}

TEST(what_is_ahead_of_a_walk_does_not_end_with_the_first_folder)
{
	static bool came[4][2][2];
	struct entry *first;
	struct listing *l;
	char path[] = "a/s/x/f";
	mode_t type;

	for (int i = 0; i < 4 * 2 * 2; i++) {
		path[0] = (char)('a' + i / 4);
		path[2] = (char)('s' + i / 2 % 2);
		path[4] = (char)('x' + i % 2);
		for (char *slash = path; (slash = strchr(slash, '/')); *slash++ = '/') {
			*slash = 0;
			mkdir(guest(path), 0700);
		}
		guest_writes(path, "");
	}
	memset(came, 0, sizeof(came));
	lists_now(top);
	l = must_list(top);
	first = entry_find(top, listing_name(l, 0, &type));
	lists_now(first);
	listing_close(must_list(first));
	COMES_TRUE(tree_came(first, came));
	listing_close(l);
}

static bool opens_now(const char *name, struct file **f)
{
	struct disk_answer a = { 0 };
	bool now = disk_open_now(entry_find(top, name), O_RDONLY, &a);

	*f = a.file;
	return now;
}

TEST(a_server_that_ends_in_the_middle_of_a_walk)
{
	const char *const names[] = { "a", "b", "c", "other" };
	struct file *f;

	for (size_t i = 0; i < 4; i++)
		guest_writes(names[i], "text");
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(DO(disk_lookup, top, names[i]), 0);
		assert_false(opens_now(names[i], &f));
	}
	kill(channel->peer.server, SIGKILL);
	wait_news(disk_news(disk));
	must_be_ready();
	/* two names that are not there: the folder is fetched, while nobody walks */
	assert_int_equal(DO(disk_getattr, top, NULL), 0);
	assert_int_equal(looks("none"), 0);
	assert_int_equal(looks("nothing"), 0);
	COMES_TRUE(looks("other") == 1);
}

TEST(who_reads_one_file_after_the_other_finds_the_next_ones_read)
{
	char name[] = "f0", text[] = "text 0";
	struct file *f = NULL, *w;

	for (; name[1] <= '9'; name[1]++) {
		text[5] = name[1];
		guest_writes(name, text);
	}
	listing_close(must_list(top));
	assert_false(opens_now("f0", &f));
	assert_false(opens_now("f1", &f));
	/* an OPEN, a READ behind it: some lookups behind these, both have been answered */
	for (int i = 0; i < 20; i++)
		assert_int_equal(DO(disk_lookup, disk_root(disk), "none"), -ENOENT);
	assert_true(opens_now("f5", &f));
	reads(f, 0, 4096, "text 5");
	file_close(f);
	/* not what was read a moment ago, was changed through here, or by a command */
	assert_false(opens_now("f5", &f));
	w = must_open("f6", O_WRONLY);
	assert_int_equal(write_text(w, 0, "TEXT"), 0);
	assert_int_equal(DO_FILE(file_flush, w), 0);
	file_close(w);
	assert_false(opens_now("f6", &f));
	assert_true(opens_now("f7", &f));
	file_close(f);
	disk_job_ended(disk);
	assert_false(opens_now("f8", &f));
}

/* --- a lost link ------------------------------------------------------------------------------------------ */

TEST(a_lost_link_answers_all_calls)
{
	struct result r[6] = { 0 };
	struct disk_call *call;
	struct file_call *fcall;
	struct file *f = must_create("f");

	kill(channel->peer.server, SIGSTOP);
	assert_int_equal(disk_lookup(disk, top, "x", on_answer, &r[0], &call), 0);
	assert_int_equal(disk_mkdir(disk, top, "d", 0700, on_answer, &r[1], &call), 0);
	assert_int_equal(disk_rename(disk, top, "f", top, "g", false, on_answer, &r[2], &call), 0);
	assert_int_equal(file_write(f, 0, "x", 1, on_data, &r[3], &fcall), 0);
	assert_int_equal(file_read(f, 0, 4096, on_data, &r[4], &fcall), 0);
	assert_int_equal(file_fsync(f, on_data, &r[5], &fcall), 0);
	disk_detach(disk);
	for (int i = 0; i < 6; i++) {
		assert_int_equal(r[i].answers, 1);
		/* the fsync tells the error of the write that it waited for */
		assert_int_equal(r[i].error, -EHOSTDOWN);
		free(r[i].data);
	}
	assert_int_equal(disk_ready(disk), -EHOSTDOWN);
	assert_int_equal(DO(disk_lookup, top, "x"), -EHOSTDOWN);
	file_close(f);
}

static int make_usable(struct file *f)
{
	int r;

	must_be_ready();
	while ((r = file_ready(f)) == -EAGAIN)
		wait_news(file_news(f));
	return r;
}

TEST(an_open_file_goes_on_where_it_is_the_same)
{
	struct file *f, *g, *h;

	guest_writes("f", "hello");
	guest_writes("g", "hello");
	guest_writes("h", "hello");
	f = must_open("f", O_RDWR);
	g = must_open("g", O_RDONLY);
	h = must_open("h", O_RDONLY);
	assert_int_equal(write_text(f, 5, "!"), 0);
	assert_int_equal(DO_FILE(file_flush, f), 0);
	assert_int_equal(DO(disk_lookup, top, "none"), -ENOENT);
	disk_detach(disk);
	assert_int_equal(DO_FILE(file_read, f, 0, 10), -EHOSTDOWN);
	guest_writes("g", "another one");
	unlink(guest("h"));
	disk_attach(disk, the_ssh, false);
	assert_int_equal(make_usable(f), 0);
	reads(f, 0, 10, "hello!");
	assert_int_equal(make_usable(g), -ESTALE);
	assert_int_equal(DO_FILE(file_read, g, 0, 10), -ESTALE);
	assert_int_equal(make_usable(h), -ESTALE);
	file_close(f);
	file_close(g);
	file_close(h);
}

TEST(a_server_that_ends_is_started_again)
{
	struct file *f = must_create("f");

	assert_int_equal(write_text(f, 0, "hello"), 0);
	assert_int_equal(DO_FILE(file_flush, f), 0);
	assert_int_equal(DO(disk_lookup, top, "none"), -ENOENT);
	assert_int_equal(channels, 1);
	kill(channel->peer.server, SIGKILL);
	wait_news(disk_news(disk));
	must_be_ready();
	assert_int_equal(channels, 2);
	assert_int_equal(DO(disk_lookup, top, "f"), 0);
	assert_int_equal(make_usable(f), 0);
	reads(f, 0, 10, "hello");
	file_close(f);
}

TEST(a_broken_protocol_is_reported_and_not_for_ever)
{
	struct result r = { 0 };
	struct disk_call *call;

	kill(channel->peer.server, SIGSTOP);
	assert_int_equal(disk_lookup(disk, top, "x", on_answer, &r, &call), 0);
	channel->ops->data(channel->user, 0, (const uint8_t *)"HTTP/1.1 200 OK", 15);
	assert_int_equal(r.answers, 1);
	assert_int_equal(r.error, -EPROTO);
	assert_int_equal(disk_ready(disk), -EPROTO);
	assert_int_equal(disk_error(disk)->code, -EPROTO);
	assert_true(strlen(disk_error(disk)->text) > 20);
	/* a second later it is worth another try */
	wait_news(disk_news(disk));
	must_be_ready();
	assert_int_equal(DO(disk_lookup, top, "x"), -ENOENT);
}

TEST(files_and_listings_outlive_the_disk)
{
	struct file *f = must_create("f");
	struct listing *l = must_list(top);
	struct entry *e = entry_ref(entry_find(top, "f"));
	struct file_call *call;
	struct stat st;

	forget(&last);
	entry_unref(top);
	disk_destroy(disk);
	disk = NULL;
	assert_int_equal(file_read(f, 0, 10, on_data, NULL, &call), -ESTALE);
	assert_int_equal(file_ready(f), -ESTALE);
	assert_false(entry_fresh(e, &st));
	assert_int_equal(listing_count(l), 1);
	assert_null(listing_entry(l, 0, &st));
	file_close(f);
	listing_close(l);
	entry_unref(e);
	/* teardown finds a disk */
	disk = disk_create(loop, cache);
	top = entry_ref(disk_root(disk));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(lookup_finds_what_is_there),
		T(a_name_that_is_gone_or_of_another_type_is_another_entry),
		T(names_are_made_and_removed),
		T(failures_say_what_they_are),
		T(another_file_system_is_exdev),
		T(a_full_disk_is_enospc_and_a_read_only_one_is_erofs),
		T(rename_replaces_and_keeps_the_entry),
		T(what_is_below_a_renamed_folder_moves_along),
		T(permissions_are_as_asked_for_whatever_the_servers_umask),
		T(with_sudo_the_server_is_a_command),
		T(links_stay_inside),
		T(attributes_are_set_one_by_one),
		T(a_link_itself_is_changed_not_what_it_leads_to),
		T(what_is_known_is_old_after_a_change_and_after_a_command),
		T(figures_of_the_file_system),
		T(a_file_is_made_written_and_read),
		T(an_append_is_the_servers),
		T(truncation_at_the_open),
		T(an_open_file_outlives_its_name),
		T(a_file_removed_by_the_guest_is_still_the_file_for_who_has_it_open),
		T(files_of_proc_are_read_whole),
		T(a_write_is_answered_on_its_way_and_judged_at_the_flush),
		T(a_write_that_failed_is_told_by_the_next_and_by_the_flush),
		T(a_first_small_write_is_judged_at_once),
		T(a_copy_is_made_by_the_server),
		T(a_big_file_goes_there_and_comes_back),
		T(a_long_run_goes_over_two_channels),
		T(nothing_overtakes_what_goes_over_the_second_channel),
		T(a_name_that_leads_elsewhere_gets_nothing_of_a_run),
		T(an_append_stays_on_one_channel),
		T(a_channel_that_others_need_is_given_up),
		T(a_second_server_that_is_lost_is_told_by_the_close),
		T(reads_anywhere_give_what_is_there),
		T(what_was_read_ahead_is_not_given_after_a_change),
		T(a_cancelled_read_or_write_is_never_answered),
		T(an_open_finds_that_the_kernel_believes_something_else),
		T(a_file_that_is_replaced_while_it_is_opened_is_looked_up_again),
		T(what_is_changed_while_it_is_replaced_is_not_told_from_memory),
		T(who_changes_what_is_replaced_is_sent_back_once),
		T(an_open_that_finds_nothing_is_not_sent_back_to_what_is_remembered),
		T(a_file_replaced_in_the_guest_while_it_is_open_is_two_files),
		T(a_file_that_only_grows_while_it_is_open_is_one),
		T(names_linked_through_here_have_one_number),
		T(pages_are_kept_only_when_nothing_can_have_changed_unseen),
		T(a_listing_has_all_names_and_their_attributes),
		T(a_listing_does_not_run_away_from_its_reader),
		T(a_long_listing_is_complete),
		T(a_listing_brings_no_name_back),
		T(a_listing_tells_nothing_that_was_changed_since),
		T(a_listed_folder_is_known_until_a_job_ends),
		T(what_is_made_and_removed_while_a_folder_is_listed),
		T(what_is_remembered_is_within_the_budget),
		T(a_walk_finds_folders_listed_ahead_and_lookups_have_theirs_listed),
		T(a_walk_goes_through_a_store_only_where_it_is_listed),
		T(a_server_that_ends_in_the_middle_of_a_walk),
		T(what_is_ahead_of_a_walk_does_not_end_with_the_first_folder),
		T(who_reads_one_file_after_the_other_finds_the_next_ones_read),
		T(a_lost_link_answers_all_calls),
		T(an_open_file_goes_on_where_it_is_the_same),
		T(a_server_that_ends_is_started_again),
		T(a_broken_protocol_is_reported_and_not_for_ever),
		T(files_and_listings_outlive_the_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
