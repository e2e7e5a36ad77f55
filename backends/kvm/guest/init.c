/*
 * /init of the initrd: loads the drivers that the disk, the network and the
 * identity port need, mounts the root disk and hands over to its /sbin/init.
 *
 * Static, no shell, no udev: under software emulation an ordinary initramfs
 * costs more time than the kernel. The drivers stand in /modules in the order
 * in which they must be loaded, one path a line (see guest/pack).
 *
 * What goes wrong is said on the console and the machine is switched off: the
 * host then reports that the guest never came up, with the last line it said.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ROOT_DEVICE "/dev/vda"
#define ROOT_WAIT_MS 10000

static void die(const char *what)
{
	dprintf(STDERR_FILENO, "sbxfs: cannot start the system: %s: %s\n", what, strerror(errno));
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void open_console(void)
{
	int fd = open("/dev/console", O_RDWR);

	for (int i = 0; fd >= 0 && i < 3; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
}

/* A driver that does not load is not fatal: what needs it will say so. */
static void load_module(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
		dprintf(STDERR_FILENO, "sbxfs: %s: %s\n", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

static void load_modules(void)
{
	char line[256];
	FILE *f = fopen("/modules", "re");

	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0])
			load_module(line);
	}
	if (f)
		fclose(f);
}

/* The disk is found while its driver loads; its node may come a little later. */
static void await_root(void)
{
	struct pollfd p = { .events = POLLIN };
	char events[1024];

	p.fd = inotify_init1(IN_CLOEXEC);
	if (p.fd < 0 || inotify_add_watch(p.fd, "/dev", IN_CREATE) < 0)
		die("watching /dev");
	while (access(ROOT_DEVICE, F_OK)) {
		if (poll(&p, 1, ROOT_WAIT_MS) <= 0 || read(p.fd, events, sizeof(events)) <= 0) {
			errno = ENODEV;
			die(ROOT_DEVICE);
		}
	}
	close(p.fd);
}

static void switch_root(void)
{
	/* Clearing the inode tables of a disk that grew would fill every overlay with zeros. */
	if (mount(ROOT_DEVICE, "/root", "ext4", MS_NOATIME, "noinit_itable"))
		die("mounting " ROOT_DEVICE);
	if (mount("/dev", "/root/dev", NULL, MS_MOVE, NULL))
		die("moving /dev");
	if (chdir("/root") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		die("changing to the root disk");
}

int main(void)
{
	char *argv[] = { "/sbin/init", NULL };

	if (mount("dev", "/dev", "devtmpfs", MS_NOSUID, "mode=0755"))
		die("mounting /dev");
	open_console();
	load_modules();
	await_root();
	switch_root();
	execv(argv[0], argv);
	die(argv[0]);
	return 1;
}
