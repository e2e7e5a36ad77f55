/*
 * The world that a fake guest lives in: a mount namespace whose root is the
 * sandbox's own disk, with the host's programs read-only in /usr. So root/ of a
 * fake sandbox is never the host's own disk, whatever a test (or `rm -rf`) does
 * below it. Without root the namespace belongs to a user namespace in which we
 * keep our own number.
 *
 * It is entered once a connection, in the forked child: only system calls
 * there, and nothing that allocates.
 */
#include "fake.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"

static const char *const folders[] = {
	"dev", "etc", "etc/alternatives", "etc/ssh", "home", "home/user", "proc", "root", "run",
	"run/sshd", "sys", "tmp", "usr", "var", "var/log", "var/tmp",
};
/* Links into /usr on merged systems, folders of their own on others. */
static const char *const program_folders[] = {
	"bin", "sbin", "lib", "lib32", "lib64", "libx32",
};
static const char *const devices[] = {
	"null", "zero", "full", "random", "urandom", "tty",
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

const char *cell_login(void)
{
	return geteuid() == 0 ? "root" : "user";
}

const char *cell_home(void)
{
	return geteuid() == 0 ? "root" : "home/user";
}

/* --- the disk, made once --------------------------------------------------- */

static int make_program_folder(int disk, const char *name)
{
	char *host = xasprintf("/%s", name), text[256];
	ssize_t n = readlink(host, text, sizeof(text) - 1);
	int r = 0;

	if (n > 0) {
		text[n] = 0;
		r = symlinkat(text, disk, name);
	} else if (access(host, F_OK) == 0) {
		r = mkdirat(disk, name, 0755);
	}
	r = r < 0 && errno != EEXIST ? -errno : 0;
	free(host);
	return r;
}

static int make_text(int disk, const char *name, const char *text)
{
	int fd = openat(disk, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	size_t len = strlen(text);
	int r = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, len) != (ssize_t)len)
		r = errno ? -errno : -EIO;
	close(fd);
	return r;
}

static int make_users(int disk)
{
	int uid = (int)geteuid(), gid = (int)getegid();
	char *text = xasprintf("root:x:0:0:root:/root:/bin/bash\n"
			       "sshd:x:102:65534::/run/sshd:/usr/sbin/nologin\n"
			       "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n");
	int r;

	if (uid != 0) {
		char *more = xasprintf("%suser:x:%d:%d:user:/home/user:/bin/bash\n", text, uid,
				       gid);

		free(text);
		text = more;
	}
	r = make_text(disk, "etc/passwd", text);
	free(text);
	text = xasprintf("root:x:0:\nnogroup:x:65534:\n");
	if (r == 0)
		r = make_text(disk, "etc/group", text);
	free(text);
	return r;
}

int cell_make(const char *path, const char *host_name, struct err *err)
{
	int disk, r = mkdir(path, 0755) < 0 && errno != EEXIST ? -errno : 0;
	char *text;

	disk = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (disk < 0)
		r = -errno;
	for (size_t i = 0; r == 0 && i < COUNT(folders); i++)
		if (mkdirat(disk, folders[i], 0755) < 0 && errno != EEXIST)
			r = -errno;
	for (size_t i = 0; r == 0 && i < COUNT(program_folders); i++)
		r = make_program_folder(disk, program_folders[i]);
	if (r == 0)
		r = make_users(disk);
	text = xasprintf("127.0.0.1 localhost %s\n", host_name);
	if (r == 0)
		r = make_text(disk, "etc/hosts", text);
	if (r == 0)
		r = make_text(disk, "etc/motd", "A fake guest.\n");
	if (r == 0)	/* sshd of root speaks of it on a terminal when it is missing */
		r = make_text(disk, "var/log/lastlog", "");
	if (r == 0 && (fchmodat(disk, "tmp", 01777, 0) < 0 || fchmodat(disk, "root", 0700, 0) < 0))
		r = -errno;
	free(text);
	if (disk >= 0)
		close(disk);
	return r < 0 ? err_sys(err, r, "cannot make the disk %s", path) : 0;
}

/* --- the namespace, entered by a child ---------------------------------------- */

/* printf may allocate; this does not. */
static void put_map(const char *path, unsigned id)
{
	char digits[16], line[64];
	size_t n = sizeof(digits);
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	digits[--n] = 0;
	do
		digits[--n] = (char)('0' + id % 10);
	while (id /= 10);
	strcpy(line, digits + n);
	strcat(line, " ");
	strcat(line, digits + n);
	strcat(line, " 1\n");
	if (fd < 0 || write(fd, line, strlen(line)) < 0)
		_exit(125);
	close(fd);
}

static int new_namespaces(bool network)
{
	unsigned uid = geteuid(), gid = getegid();
	int fd;

	if (unshare(CLONE_NEWNS | CLONE_NEWUTS | (network ? 0 : CLONE_NEWNET) |
		    (uid ? CLONE_NEWUSER : 0)) < 0)
		return -errno;
	if (uid) {
		fd = open("/proc/self/setgroups", O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, "deny", 4) < 0)
			return -errno;
		close(fd);
		put_map("/proc/self/uid_map", uid);
		put_map("/proc/self/gid_map", gid);
	}
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ? -errno : 0;
}

static int bind(const char *from, const char *to, unsigned long flags)
{
	return mount(from, to, NULL, MS_BIND | flags, NULL) < 0 ? -errno : 0;
}

static int bind_read_only(const char *from, const char *to, unsigned long how)
{
	static const struct { unsigned long st, ms; } keep[] = {
		{ ST_NOSUID, MS_NOSUID }, { ST_NODEV, MS_NODEV }, { ST_NOEXEC, MS_NOEXEC },
		{ ST_NOATIME, MS_NOATIME }, { ST_RELATIME, MS_RELATIME },
		{ ST_NODIRATIME, MS_NODIRATIME },
	};
	unsigned long flags = MS_REMOUNT | MS_BIND | MS_RDONLY;
	struct statvfs fs;
	int r = bind(from, to, how);

	if (r < 0)
		return r;
	/* In a user namespace what the host's mount forbids must stay forbidden. */
	if (statvfs(to, &fs) < 0)
		return -errno;
	for (size_t i = 0; i < COUNT(keep); i++)
		if (fs.f_flag & keep[i].st)
			flags |= keep[i].ms;
	return mount(NULL, to, NULL, flags, NULL) < 0 ? -errno : 0;
}

static int mount_programs(void)
{
	struct stat st;
	int r = bind_read_only("/usr", "usr", 0);

	if (r == 0 && access("/etc/alternatives", F_OK) == 0)
		r = bind_read_only("/etc/alternatives", "etc/alternatives", 0);
	for (size_t i = 0; r == 0 && i < COUNT(program_folders); i++) {
		char host[32] = "/";

		strcat(host, program_folders[i]);
		if (lstat(host, &st) == 0 && S_ISDIR(st.st_mode))
			r = bind_read_only(host, program_folders[i], 0);
	}
	return r;
}

static int mount_devices(void)
{
	int fd, r = 0;

	if (mount("fake", "dev", "tmpfs", MS_NOSUID, "mode=755") < 0)
		return -errno;
	for (size_t i = 0; r == 0 && i < COUNT(devices); i++) {
		char host[32] = "/dev/", guest[32] = "dev/";

		strcat(host, devices[i]);
		strcat(guest, devices[i]);
		fd = open(guest, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
		if (fd < 0)
			return -errno;
		close(fd);
		r = bind(host, guest, 0);
	}
	if (r == 0 && (symlink("/proc/self/fd", "dev/fd") < 0 ||
		       symlink("/proc/self/fd/0", "dev/stdin") < 0 ||
		       symlink("/proc/self/fd/1", "dev/stdout") < 0 ||
		       symlink("/proc/self/fd/2", "dev/stderr") < 0 || mkdir("dev/pts", 0755) < 0))
		r = -errno;
	/* terminals of its own: the host's may not be for everybody to make */
	if (r == 0 && mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
			    "newinstance,ptmxmode=0666,mode=0620") < 0)
		r = bind("/dev/pts", "dev/pts", 0);
	return r == 0 && symlink("pts/ptmx", "dev/ptmx") < 0 ? -errno : r;
}

/*
 * The current folder becomes the root; what was mounted before goes away, so that
 * a guest that lives on holds no mount of the host, our own FUSE mount least of all.
 */
static int change_root(void)
{
	if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 ||
	    chdir("/") < 0)
		return -errno;
	return 0;
}

int cell_enter(const char *disk, const char *host_name, bool network)
{
	int r = new_namespaces(network);

	if (r == 0 && sethostname(host_name, strlen(host_name)) < 0)
		r = -errno;
	if (r == 0)
		r = bind(disk, disk, 0);
	if (r == 0 && chdir(disk) < 0)
		r = -errno;
	if (r == 0)
		r = mount_programs();
	if (r == 0)
		r = bind("/proc", "proc", MS_REC);
	if (r == 0 && access("/sys/kernel", F_OK) == 0)
		r = bind_read_only("/sys", "sys", MS_REC);
	if (r == 0)
		r = mount_devices();
	return r == 0 ? change_root() : r;
}

int cell_probe(struct err *err)
{
	pid_t pid = fork();
	int status = -1;

	if (pid == 0)
		_exit(new_namespaces(true) < 0 ? 125 : 0);
	if (pid > 0)
		waitpid(pid, &status, 0);	/* a few system calls: no wait to speak of */
	if (status != 0)
		return err_set(err, -ENODEV, "this system allows no mount namespaces to %s",
			       geteuid() ? "unprivileged users" : "root");
	return 0;
}
