/* Unix sockets by folder and name: see sock.h. */
#include "sock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "err.h"

/* A socket's path ends at 107 bytes; by way of the folder's descriptor it never gets there. */
static int address(struct sockaddr_un *sa, int folder, const char *name)
{
	int n;

	*sa = (struct sockaddr_un){ .sun_family = AF_UNIX };
	n = snprintf(sa->sun_path, sizeof(sa->sun_path), "/proc/self/fd/%d/%s", folder, name);
	return n < (int)sizeof(sa->sun_path) ? 0 : -ENAMETOOLONG;
}

static int bind_listen(int fd, const struct sockaddr_un *sa)
{
	if (unlink(sa->sun_path) < 0 && errno != ENOENT)
		return -errno;
	if (bind(fd, (const struct sockaddr *)sa, sizeof(*sa)) < 0 || listen(fd, 1) < 0)
		return -errno;
	return 0;
}

static int open_socket(const char *dir, const char *name, int flags,
		       int (*use)(int fd, const struct sockaddr_un *), const char *what,
		       struct err *err)
{
	int folder = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC), fd = -1, r;
	struct sockaddr_un sa;

	if (folder < 0)
		return err_sys(err, -errno, "cannot open the folder %s", dir);
	r = address(&sa, folder, name);
	if (r == 0) {
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
		r = fd < 0 ? -errno : use(fd, &sa);
	}
	close(folder);
	if (r < 0) {
		err_sys(err, r, "cannot %s the socket %s/%s", what, dir, name);
		if (fd >= 0)
			close(fd);
		return r;
	}
	return fd;
}

static int connect_now(int fd, const struct sockaddr_un *sa)
{
	return connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) < 0 ? -errno : 0;
}

int sock_listen(const char *dir, const char *name, struct err *err)
{
	return open_socket(dir, name, 0, bind_listen, "make", err);
}

int sock_connect(const char *dir, const char *name, struct err *err)
{
	return open_socket(dir, name, SOCK_NONBLOCK, connect_now, "connect to", err);
}
