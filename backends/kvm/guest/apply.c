/*
 * Name, keys, network, clock, entropy and the size of the root file system:
 * each a function that leaves alone what is right already, so that a second
 * identity, or the same one at the next boot, writes nothing to the disk.
 */
#include "apply.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/random.h>
#include <net/if.h>
#include <net/route.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "parse.h"

#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t)
#define INTERFACE "eth0"
#define AUTHORIZED_KEYS "/etc/ssh/sbxfs_authorized_keys"
#define HOST_KEY "/etc/ssh/ssh_host_ed25519_key"
#define CLOCK_SLACK_US 50000
#define DISK_WAIT_MS 2000

/* --- files -------------------------------------------------------------- */

/* The file's bytes, NUL terminated; NULL when it cannot be read. */
static char *read_file(const char *path)
{
	char *text = NULL;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return NULL;
	if (!fstat(fd, &st) && st.st_size < (1 << 20) && (text = malloc((size_t)st.st_size + 1))) {
		n = read(fd, text, (size_t)st.st_size);
		text[n > 0 ? n : 0] = '\0';
	}
	close(fd);
	return text;
}

static int write_all(int fd, const char *text)
{
	size_t left = strlen(text);

	while (left) {
		ssize_t n = write(fd, text, left);

		if (n < 0)
			return -errno;
		text += n;
		left -= (size_t)n;
	}
	return 0;
}

/* Replace a file as a whole, unless it holds that text already. */
static int write_file(const char *path, mode_t mode, const char *text)
{
	char *old = read_file(path), temporary[256];
	int fd, r;

	r = old && !strcmp(old, text);
	free(old);
	if (r)
		return 0;
	snprintf(temporary, sizeof(temporary), "%s.sbxfs", path);
	unlink(temporary);
	fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	if (fd < 0)
		return -errno;
	r = write_all(fd, text);
	close(fd);
	if (!r && rename(temporary, path))
		r = -errno;
	if (r)
		unlink(temporary);
	return r;
}

static int write_line(const char *path, mode_t mode, const char *line)
{
	char text[2048];

	snprintf(text, sizeof(text), "%s\n", line);
	return write_file(path, mode, text);
}

/* --- one step each ------------------------------------------------------- */

static int apply_entropy(const struct identity *id)
{
	struct {
		int bits, bytes;
		uint8_t data[IDENTITY_ENTROPY_MAX];
	} pool = { .bits = (int)id->entropy_len * 8, .bytes = (int)id->entropy_len };
	int fd, r = 0;

	fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	memcpy(pool.data, id->entropy, id->entropy_len);
	/*
	 * The second call makes the generator take up at once what the first gave;
	 * ENODATA: it had not begun yet, and begins with what it got.
	 */
	if (ioctl(fd, RNDADDENTROPY, &pool) || (ioctl(fd, RNDRESEEDCRNG) && errno != ENODATA))
		r = -errno;
	explicit_bzero(&pool, sizeof(pool));
	close(fd);
	return r;
}

/* A boot reads the clock of the machine, to the second; who stood still is behind by all of it. */
int identity_apply_time(const struct identity *id)
{
	const struct timeval right = {
		.tv_sec = id->time, .tv_usec = (suseconds_t)id->milliseconds * 1000,
	};
	struct timeval now, off;

	if (!id->time)
		return 0;
	gettimeofday(&now, NULL);
	timersub(&right, &now, &off);
	if (off.tv_sec == 0 && off.tv_usec < CLOCK_SLACK_US)
		return 0;
	if (off.tv_sec == -1 && off.tv_usec > 1000000 - CLOCK_SLACK_US)
		return 0;
	return settimeofday(&right, NULL) ? -errno : 0;
}

/* In /etc/hosts the line of 127.0.1.1 is ours; all others are the user's. */
static int apply_hosts(const char *hostname)
{
	char *old = read_file("/etc/hosts"), *at = old, *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	int r = out ? 0 : -ENOMEM;

	while (out && at && *at) {
		size_t line = strcspn(at, "\n");

		if (strncmp(at, "127.0.1.1", 9))
			fprintf(out, "%.*s\n", (int)line, at);
		else
			fprintf(out, "127.0.1.1\t%s\n", hostname);
		at += line + (at[line] == '\n');
	}
	if (out)
		fclose(out);
	if (!r)
		r = write_file("/etc/hosts", 0644, text);
	free(text);
	free(old);
	return r;
}

static int apply_hostname(const struct identity *id)
{
	char now[65] = "";
	int r;

	gethostname(now, sizeof(now) - 1);
	if (strcmp(now, id->hostname) && sethostname(id->hostname, strlen(id->hostname)))
		return -errno;
	r = write_line("/etc/hostname", 0644, id->hostname);
	return r ? r : apply_hosts(id->hostname);
}

static int apply_machine_id(const struct identity *id)
{
	return write_line("/etc/machine-id", 0444, id->machine_id);
}

static int apply_keys(const struct identity *id)
{
	int r = write_line(AUTHORIZED_KEYS, 0600, id->authorized_key);

	if (!r)
		r = write_file(HOST_KEY, 0600, id->host_key);
	if (!r)
		r = write_line(HOST_KEY ".pub", 0644, id->host_key_public);
	return r;
}

static void set_ip(struct sockaddr *to, in_addr_t ip)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = ip };

	memcpy(to, &in, sizeof(in));
}

static int interface_up(int fd, const char *name)
{
	struct ifreq ifr = { 0 };

	strncpy(ifr.ifr_name, name, sizeof(ifr.ifr_name) - 1);
	if (ioctl(fd, SIOCGIFFLAGS, &ifr))
		return -errno;
	ifr.ifr_flags |= IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, &ifr) ? -errno : 0;
}

static int interface_address(int fd, const struct identity *id)
{
	struct ifreq ifr = { 0 };

	strncpy(ifr.ifr_name, INTERFACE, sizeof(ifr.ifr_name) - 1);
	set_ip(&ifr.ifr_addr, inet_addr(id->address));
	if (ioctl(fd, SIOCSIFADDR, &ifr))
		return -errno;
	set_ip(&ifr.ifr_netmask, htonl(~0u << (32 - id->prefix)));
	return ioctl(fd, SIOCSIFNETMASK, &ifr) ? -errno : 0;
}

/* An imported system that calls its interface otherwise sets up its network itself. */
static int apply_network(const struct identity *id)
{
	struct rtentry route = { .rt_flags = RTF_UP | RTF_GATEWAY };
	int fd, r;

	if (access("/sys/class/net/" INTERFACE, F_OK))
		return 0;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	r = interface_up(fd, "lo");
	if (!r)
		r = interface_address(fd, id);
	if (!r)
		r = interface_up(fd, INTERFACE);
	set_ip(&route.rt_dst, 0);
	set_ip(&route.rt_genmask, 0);
	set_ip(&route.rt_gateway, inet_addr(id->gateway));
	if (!r && ioctl(fd, SIOCADDRT, &route) && errno != EEXIST)
		r = -errno;
	close(fd);
	return r;
}

/* A resolver that the user has set up (a link, or other servers) stays. */
static int apply_dns(const struct identity *id)
{
	char line[64];

	if (!id->dns[0] || !access("/etc/resolv.conf", F_OK))
		return 0;
	snprintf(line, sizeof(line), "nameserver %s", id->dns);
	return write_line("/etc/resolv.conf", 0644, line);
}

static int disk_bytes(uint64_t *bytes)
{
	int disk = open("/dev/vda", O_RDONLY | O_CLOEXEC), r;

	if (disk < 0)
		return -errno;
	r = ioctl(disk, BLKGETSIZE64, bytes) ? -errno : 0;
	close(disk);
	return r;
}

/* The disk of a clone grows while it runs: the news of it takes its way through the kernel. */
static int await_disk(uint64_t size, uint64_t *bytes)
{
	int r = disk_bytes(bytes);

	for (int ms = 0; r == 0 && *bytes < size && ms < DISK_WAIT_MS; ms += 5) {
		usleep(5000);
		r = disk_bytes(bytes);
	}
	return r;
}

/* The partition that the root file system is on grows first; by the tool that cloud images have. */
static void grow_partition(unsigned number)
{
	char text[16], *argv[] = { "/usr/bin/growpart", "/dev/vda", text, NULL };
	pid_t pid;

	snprintf(text, sizeof(text), "%u", number);
	if (posix_spawn(&pid, argv[0], NULL, NULL, argv, environ) == 0)
		waitpid(pid, NULL, 0);
}

/* The bytes of the device that the root file system is on; 0: it cannot be told. */
static uint64_t root_bytes(const struct stat *root)
{
	char path[96];
	unsigned long long sectors = 0;
	unsigned number;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/partition", major(root->st_dev),
		 minor(root->st_dev));
	f = fopen(path, "re");
	if (f && fscanf(f, "%u", &number) == 1)
		grow_partition(number);
	if (f)
		fclose(f);
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/size", major(root->st_dev),
		 minor(root->st_dev));
	f = fopen(path, "re");
	if (f && fscanf(f, "%llu", &sectors) != 1)
		sectors = 0;
	if (f)
		fclose(f);
	return sectors * 512;
}

/*
 * The image's file system is small; the disk is as large as was asked for. One that
 * cannot grow while it is mounted stays as it is.
 */
static int apply_disk_size(const struct identity *id)
{
	uint64_t bytes = 0, blocks;
	int r = await_disk(id->disk_size, &bytes), root;
	struct stat st;

	if (r)
		return r;
	root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0 || fstat(root, &st)) {
		r = -errno;
	} else {
		blocks = root_bytes(&st) / (uint64_t)st.st_blksize;
		if (blocks && ioctl(root, EXT4_IOC_RESIZE_FS, &blocks) && errno != ENOTTY)
			r = -errno;
	}
	if (root >= 0)
		close(root);
	return r;
}

/* --- all of it ----------------------------------------------------------- */

/* Keys come after entropy: nothing that is secret is made of a clone's old pool. */
static const struct {
	const char *what;
	int (*apply)(const struct identity *);
} steps[] = {
	{ "reseeding the random numbers", apply_entropy },
	{ "setting the clock", identity_apply_time },
	{ "setting the host name", apply_hostname },
	{ "setting the machine id", apply_machine_id },
	{ "writing the SSH keys", apply_keys },
	{ "bringing up the network", apply_network },
	{ "setting the name server", apply_dns },
	{ "growing the root file system", apply_disk_size },
};

int identity_apply(const struct identity *id, char *why, size_t size)
{
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		int r = steps[i].apply(id);

		if (r < 0) {
			snprintf(why, size, "%s: %s", steps[i].what, strerror(-r));
			return r;
		}
	}
	return 0;
}

void identity_forget(void)
{
	static const char *const files[] = {
		AUTHORIZED_KEYS, HOST_KEY, HOST_KEY ".pub", "/root/.bash_history",
		"/var/log/lastlog", "/var/log/wtmp", "/var/log/btmp",
	};

	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
		unlink(files[i]);
}
