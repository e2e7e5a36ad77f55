/*
 * The files of a VM: two key pairs and a disk layered over a template's, another
 * VM's or the image's. Made at once by three programs that are run from the loop.
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
#include "layer.h"
#include "machine.h"
#include "proc.h"

enum { STEP_DISK, STEP_CLIENT_KEY, STEP_HOST_KEY };

static void fail(struct machine *, struct err *why);

static void finish(struct machine *);

/* Run one of the programs; all must have ended well before anything follows. */
static void step(struct machine *m, size_t n, const char *const argv[], proc_cb *ended)
{
	struct err err;

	if (proc_run(m->kvm->loop, argv, STEP_MS, ended, m, &m->steps[n], &err) < 0)
		fail(m, &err);
}

static void step_ended(struct machine *m, size_t n, const char *name, int status,
		       const char *said)
{
	struct err err;

	m->steps[n] = NULL;
	if (proc_explain(&err, name, status, said) < 0)
		fail(m, &err);
	else if (!m->steps[STEP_DISK] && !m->steps[STEP_CLIENT_KEY] && !m->steps[STEP_HOST_KEY])
		finish(m);
}

void make_cancel(struct machine *m)
{
	for (size_t i = 0; i < sizeof(m->steps) / sizeof(*m->steps); i++) {
		proc_cancel(m->steps[i]);
		m->steps[i] = NULL;
	}
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
	};
	char *layer = layer_folder(m->kvm, m->rec.layer);
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
	if (r == 0)
		r = sync_file(layer, LAYER_DISK, 0);
	if (r == 0)
		r = sync_folder(layer);
	free(layer);
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

/* --- the steps --------------------------------------------------------------- */

static void disk_made(void *user, int status, const char *out, const char *said)
{
	step_ended(user, STEP_DISK, "qemu-img", status, said);
}

static void client_key_made(void *user, int status, const char *out, const char *said)
{
	step_ended(user, STEP_CLIENT_KEY, "ssh-keygen", status, said);
}

static void host_key_made(void *user, int status, const char *out, const char *said)
{
	step_ended(user, STEP_HOST_KEY, "ssh-keygen", status, said);
}

static void make_key(struct machine *m, size_t n, const char *file, proc_cb *ended)
{
	char *path = xasprintf("%s/%s", m->workshop, file);
	const char *argv[] = { "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "sbxfs",
			       "-f", path, NULL };

	step(m, n, argv, ended);
	free(path);
}

/* An overlay at path; size 0: as large as the disk beneath. */
static int create_disk(struct machine *m, const char *path, const char *beneath, uint64_t size,
		       proc_cb *ended, struct err *err)
{
	char *bytes = size ? xasprintf("%llu", (unsigned long long)size) : NULL;
	const char *argv[] = { "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2",
			       "-b", beneath, path, bytes, NULL };
	int r = proc_run(m->kvm->loop, argv, STEP_MS, ended, m, &m->steps[STEP_DISK], err);

	free(bytes);
	return r;
}

/* What its disk lies over; free it. NULL: the image is not there any more. */
static char *find_beneath(struct machine *m, struct err *err)
{
	struct image *image;
	char *path = NULL;

	if (m->origin[0])
		return layer_file(m->kvm, m->origin, LAYER_DISK);
	if (m->rec.base[0])
		return xasprintf("%s/" LAYER_DISK, m->rec.base);
	image = xcalloc(1, sizeof(*image));
	if (image_load(image, m->rec.image_dir, err) == 0)
		path = xstrdup(image->disk);
	free(image);
	return path;
}

/*
 * That of a template or of another VM that runs keeps its size until it runs
 * again: then the guest is told of more (news.c).
 */
static void make_first_disk(struct machine *m)
{
	bool again = m->rec.layer[0];
	char *beneath, *path;
	struct err err;

	if (layer_make(m->kvm, m->origin, m->rec.layer, &err) < 0 || machine_save(m) < 0) {
		err_set(&err, -EIO, "cannot write to %s", m->kvm->state_dir);
		fail(m, &err);
		return;
	}
	if (again)
		layers_collect(m->kvm);	/* what a crash has left half made */
	beneath = find_beneath(m, &err);
	path = layer_file(m->kvm, m->rec.layer, LAYER_DISK);
	if (!beneath || create_disk(m, path, beneath, m->rec.incoming[0] ? 0 : m->rec.spec.disk,
				    disk_made, &err) < 0)
		fail(m, &err);
	free(path);
	free(beneath);
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
	make_cancel(m);
	remove_files(m->dir, false);
	err_prefix(why, "cannot make the sandbox");
	machine_failed(m, why);
}

int remove_folder(const char *path)
{
	int r = remove_files(path, true);

	if (r == 0 && rmdir(path) < 0)
		r = -errno;
	return r;
}

int make_remove(struct kvm *kvm, const char *name, struct err *err)
{
	char *dir = xasprintf("%s/%s", kvm->state_dir, name);
	int r;

	run_remove_sockets(kvm->run_dir, name);
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
	make_first_disk(m);
	if (m->steps[STEP_DISK])
		make_key(m, STEP_CLIENT_KEY, FILE_CLIENT_KEY, client_key_made);
	if (m->steps[STEP_DISK])
		make_key(m, STEP_HOST_KEY, FILE_HOST_KEY, host_key_made);
}

/* --- a disk by itself, for freeze.c and snapshot.c ---------------------------------- */

static void lone_disk_made(void *user, int status, const char *out, const char *said)
{
	struct machine *m = user;
	char *folder = layer_folder(m->kvm, m->making);
	struct err err = ERR_NONE;
	int r;

	m->steps[STEP_DISK] = NULL;
	if (proc_explain(&err, "qemu-img", status, said) == 0) {
		r = sync_file(folder, LAYER_DISK, 0);
		if (r == 0)
			r = sync_folder(folder);
		if (r < 0)
			err_sys(&err, r, "cannot write to %s", folder);
	}
	free(folder);
	m->disk_made(m, &err);
}

int make_disk(struct machine *m, const char *parent, void (*next)(struct machine *,
								  const struct err *),
	      struct err *err)
{
	char *beneath, *path;
	int r = layer_make(m->kvm, parent, m->making, err);

	if (r < 0)
		return r;
	m->disk_made = next;
	beneath = layer_file(m->kvm, parent, LAYER_DISK);
	path = layer_file(m->kvm, m->making, LAYER_DISK);
	r = create_disk(m, path, beneath, 0, lone_disk_made, err);
	free(path);
	free(beneath);
	return r;
}
