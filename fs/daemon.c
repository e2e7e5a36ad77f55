/* Going into the background, and the mount point before the mount. */
#include "daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"

extern char **environ;

/* --- the background ----------------------------------------------------------- */

static void parent_wait(int fd, pid_t child, const char *mountpoint)
{
	struct stat st;
	char byte;
	ssize_t n;
	int status;

	do {
		n = read(fd, &byte, 1);
	} while (n < 0 && errno == EINTR);
	/* The kernel has had its answer; so shall everybody who asks from now on. */
	if (n == 1 && stat(mountpoint, &st) == 0)
		_exit(0);
	if (n == 1) {
		fprintf(stderr, "sbxfs: mounted on %s, but it does not answer: %s\n", mountpoint,
			strerror(errno));
		_exit(1);
	}
	if (waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status))
		_exit(WEXITSTATUS(status));
	fprintf(stderr, "sbxfs: it ended before the mount was up\n");
	_exit(1);
}

int daemon_fork(const char *mountpoint)
{
	int fds[2];
	pid_t child;

	if (pipe2(fds, O_CLOEXEC) < 0 || (child = fork()) < 0) {
		fprintf(stderr, "sbxfs: cannot go into the background: %s\n", strerror(errno));
		exit(1);
	}
	if (child > 0) {
		close(fds[1]);
		parent_wait(fds[0], child, mountpoint);
	}
	close(fds[0]);
	setsid();
	return fds[1];
}

void daemon_release_parent(int *parent, enum log_level level)
{
	int null;

	if (*parent < 0)
		return;
	log_init(level, true);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		for (int fd = 0; fd < 3; fd++)
			dup2(null, fd);
		close(null);
	}
	if (chdir("/") < 0 || write(*parent, "", 1) != 1)
		log_warn("the process that started this one has gone");
	close(*parent);
	*parent = -1;
}

/* --- the mount point -------------------------------------------------------------- */

/* The type of what is mounted there (the topmost), into type; false when nothing is. */
static bool mounted_type(const char *mountpoint, char *type, size_t size)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	struct mntent *m;
	bool found = false;

	while (mounts && (m = getmntent(mounts)))
		if (!strcmp(m->mnt_dir, mountpoint)) {
			snprintf(type, size, "%s", m->mnt_type);
			found = true;
		}
	if (mounts)
		endmntent(mounts);
	return found;
}

static int take_away(const char *mountpoint, struct err *err)
{
	char *argv[] = { "fusermount3", "-u", "-z", (char *)(uintptr_t)mountpoint, NULL };
	pid_t pid;
	int status = -1, r;

	log_warn("%s holds a mount whose sbxfs has died: replaced", mountpoint);
	if (geteuid() == 0 && umount2(mountpoint, MNT_DETACH) == 0)
		return 0;
	r = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
	if (r == 0 && waitpid(pid, &status, 0) == pid && status == 0)
		return 0;
	return err_set(err, -EBUSY, "%s holds a dead mount that fusermount3 -u -z cannot take away",
		       mountpoint);
}

int mountpoint_prepare(const char *mountpoint, struct err *err)
{
	char type[64];
	struct statfs fs;
	struct stat st;

	while (mounted_type(mountpoint, type, sizeof(type))) {
		int r;

		/*
		 * A daemon that has died answers "not connected"; any other answer is somebody's.
		 */
		if (strcmp(type, "fuse.sbxfs") || statfs(mountpoint, &fs) == 0 || errno != ENOTCONN)
			return err_set(err, -EBUSY, "%s is in use: a %s is mounted there",
				       mountpoint,
				       type);
		r = take_away(mountpoint, err);
		if (r < 0)
			return r;
	}
	if (stat(mountpoint, &st) < 0)
		return err_set(err, -errno, "mount point %s: %s%s", mountpoint, strerror(errno),
			       errno == ENOENT ? "; make it with mkdir" : "");
	if (!S_ISDIR(st.st_mode))
		return err_set(err, -ENOTDIR, "mount point %s is not a folder", mountpoint);
	return 0;
}
