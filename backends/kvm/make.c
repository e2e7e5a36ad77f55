/*
 * The files of a VM: two key pairs and a disk layered over the image's. Made
 * one after the other by programs that are run from the loop; removed at once.
 * What a crash left half done is thrown away and made again: in a new folder,
 * for a program that the crashed daemon had started may still be writing.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "image.h"
#include "json.h"
#include "machine.h"
#include "proc.h"

static void fail(struct machine *, struct err *why);

/* Run one program; next goes on when it has succeeded. */
static void step(struct machine *m, const char *const argv[], proc_cb *next)
{
	struct err err;

	if (proc_run(m->kvm->loop, argv, STEP_MS, next, m, &m->step, &err) < 0)
		fail(m, &err);
}

static bool step_ok(struct machine *m, const char *name, int status, const char *said)
{
	struct err err;

	m->step = NULL;
	if (proc_explain(&err, name, status, said) == 0)
		return true;
	fail(m, &err);
	return false;
}

/* --- made, and on the disk ------------------------------------------------ */

static int sync_file(const char *dir, const char *file, int flags)
{
	char *path = xasprintf("%s/%s", dir, file);
	int fd = open(path, O_RDWR | O_CLOEXEC | flags, 0600), r = 0;

	if (fd < 0 || fsync(fd) < 0)
		r = -errno;
	if (fd >= 0)
		close(fd);
	free(path);
	return r;
}

/* Sync what was made in the workshop and move it to where it belongs. */
static int hand_over(struct machine *m)
{
	static const char *const files[] = {
		FILE_CLIENT_KEY, FILE_CLIENT_KEY ".pub", FILE_HOST_KEY, FILE_HOST_KEY ".pub",
		FILE_DISK,
	};
	int r = sync_file(m->dir, FILE_CONSOLE, O_CREAT);

	for (size_t i = 0; r == 0 && i < sizeof(files) / sizeof(*files); i++) {
		char *from = xasprintf("%s/%s", m->workshop, files[i]);
		char *to = machine_path(m, files[i]);

		r = sync_file(m->workshop, files[i], 0);
		if (r == 0 && rename(from, to) < 0)
			r = -errno;
		free(to);
		free(from);
	}
	rmdir(m->workshop);
	return r == 0 ? sync_folder(m->dir) : r;
}

static void finish(struct machine *m)
{
	struct err err;
	int r = hand_over(m);

	if (r < 0) {
		err_sys(&err, r, "cannot write to %s", m->dir);
		fail(m, &err);
		return;
	}
	machine_made(m);
}

/* --- the steps, last to first --------------------------------------------- */

static void disk_made(void *user, int status, const char *out, const char *said)
{
	struct machine *m = user;

	if (step_ok(m, "qemu-img", status, said))
		finish(m);
}

static void make_disk(struct machine *m)
{
	char *disk = xasprintf("%s/%s", m->workshop, FILE_DISK);
	char *size = xasprintf("%llu", (unsigned long long)m->rec.spec.disk);
	struct image *image = xcalloc(1, sizeof(*image));
	struct err err;

	if (image_load(image, m->rec.image_dir, &err) < 0) {
		fail(m, &err);
	} else {
		const char *argv[] = { "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2",
				       "-b", image->disk, disk, size, NULL };

		step(m, argv, disk_made);
	}
	free(image);
	free(size);
	free(disk);
}

static void host_key_made(void *user, int status, const char *out, const char *said)
{
	struct machine *m = user;

	if (step_ok(m, "ssh-keygen", status, said))
		make_disk(m);
}

static void make_key(struct machine *m, const char *file, proc_cb *next)
{
	char *path = xasprintf("%s/%s", m->workshop, file);
	const char *argv[] = { "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "sbxfs",
			       "-f", path, NULL };

	step(m, argv, next);
	free(path);
}

static void client_key_made(void *user, int status, const char *out, const char *said)
{
	struct machine *m = user;

	if (step_ok(m, "ssh-keygen", status, said))
		make_key(m, FILE_HOST_KEY, host_key_made);
}

/* --- removing --------------------------------------------------------------- */

static int remove_at(int folder, const char *name);

static int remove_in(DIR *d, const char *except)
{
	struct dirent *entry;
	int r = 0, r1;

	while ((entry = readdir(d))) {
		const char *name = entry->d_name;

		if (!strcmp(name, ".") || !strcmp(name, "..") || (except && !strcmp(name, except)))
			continue;
		r1 = remove_at(dirfd(d), name);
		if (r1 < 0)
			r = r1;
	}
	return r;
}

/* A file, or a workshop with what is in it; one that is not there is well removed. */
static int remove_at(int folder, const char *name)
{
	int fd, tries = 0, r = 0;
	DIR *d;

	if (unlinkat(folder, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR)
		return -errno;
	/* Again when a program of a crashed daemon has just written another file there. */
	while (unlinkat(folder, name, AT_REMOVEDIR) < 0) {
		if (errno != ENOTEMPTY || tries++ == 10)
			return -errno;
		fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		d = fd < 0 ? NULL : fdopendir(fd);
		if (!d)
			return -errno;
		r = remove_in(d, NULL);
		closedir(d);
		if (r < 0)
			return r;
	}
	return 0;
}

static int remove_files(const char *dir, bool record)
{
	DIR *d = opendir(dir);
	int r;

	if (!d)
		return -errno;
	r = remove_in(d, record ? NULL : "vm.json");
	closedir(d);
	return r;
}

/* What was half made goes: it may be a full disk that stopped us. */
static void fail(struct machine *m, struct err *why)
{
	remove_files(m->dir, false);
	err_prefix(why, "cannot make the sandbox");
	machine_failed(m, why);
}

static void remove_sockets(struct kvm *kvm, const char *name)
{
	static const char *const ends[] = { "qmp", "id" };

	for (size_t i = 0; i < 2; i++) {
		char *path = xasprintf("%s/%s.%s", kvm->run_dir, name, ends[i]);

		unlink(path);
		free(path);
	}
}

int make_remove(struct kvm *kvm, const char *name, struct err *err)
{
	char *dir = xasprintf("%s/%s", kvm->state_dir, name);
	int r;

	remove_sockets(kvm, name);
	r = remove_files(dir, false);
	if (r == 0)
		r = sync_folder(dir);
	if (r == 0)
		r = remove_files(dir, true);
	if (r == 0 && rmdir(dir) < 0)
		r = -errno;
	if (r == 0 || r == -ENOENT)
		r = sync_folder(kvm->state_dir);
	if (r < 0)
		err_sys(err, r, "cannot remove %s", dir);
	free(dir);
	return r;
}

void make_files(struct machine *m)
{
	struct err err;
	int r = remove_files(m->dir, false);

	free(m->workshop);
	m->workshop = xasprintf("%s/make-XXXXXX", m->dir);
	if (r == 0 && !mkdtemp(m->workshop))
		r = -errno;
	if (r < 0) {
		err_sys(&err, r, "cannot write to %s", m->dir);
		fail(m, &err);
		return;
	}
	make_key(m, FILE_CLIENT_KEY, client_key_made);
}
