/*
 * Mount, serve the FUSE device from the loop, unmount.
 *
 * The device says that it is over when the last mount of the file system has
 * gone; but a process with mounts of its own (a container that was started
 * meanwhile) may hold a copy of ours for as long as it lives. So the mount
 * table is watched too (proc(5): mountinfo can be polled for changes): when our mount
 * is no longer in it, that is the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/fuse.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "fleet.h"
#include "log.h"
#include "req_internal.h"
#include "tree_internal.h"

/* Requests taken off the device before the others on the loop have a turn. */
#define BATCH 32

/* Blanks and the like stand as \\ooo in the table. */
static bool mount_field_is(const char *field, const char *path)
{
	for (; *field && *path; path++) {
		int c = (unsigned char)*field;

		if (c == '\\' && strlen(field) >= 4) {
			c = (field[1] - '0') * 64 + (field[2] - '0') * 8 + (field[3] - '0');
			field += 3;
		}
		if (c != (unsigned char)*path)
			return false;
		field++;
	}
	return !*field && !*path;
}

static void ended(struct tree *tree)
{
	loop_fd_del(&tree->fd);
	if (tree->mounted && tree->conf.unmounted)
		tree->conf.unmounted(tree->conf.user);
	tree->mounted = false;
}

/* Of the topmost mount on that folder, or of the mount with that number: its number, or -1. */
static int find_mount(const char *mountpoint, int wanted)
{
	FILE *table = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t cap = 0;
	int found = -1;

	if (!table)
		return wanted;	/* not to be known now */
	while (getline(&line, &cap, table) > 0) {
		char *save = NULL, *field = strtok_r(line, " ", &save);
		int id = field ? atoi(field) : -1;

		for (int i = 0; i < 4 && field; i++)	/* parent, device, root, mount point */
			field = strtok_r(NULL, " ", &save);
		if (id == wanted)
			found = id;
		else if (wanted < 0 && field && mount_field_is(field, mountpoint))
			found = id;
	}
	free(line);
	fclose(table);
	return found;
}

static void table_changed(struct loop_fd *f, uint32_t events)
{
	struct tree *tree = container_of(f, struct tree, table);

	if (find_mount(NULL, tree->mount_id) < 0) {
		loop_fd_del(f);
		ended(tree);
	}
}

/*
 * Our mount has gone, though the kernel may not have said so on the device. Then
 * fuse_session_unmount would unmount whatever is mounted there by now. It does not
 * when the descriptor polls as broken: put the end of a broken pipe in its place,
 * which also closes the device.
 */
static void close_device(struct tree *tree)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return;
	close(fds[0]);
	dup3(fds[1], fuse_session_fd(tree->session), O_CLOEXEC);
	close(fds[1]);
}

static void watch_table(struct tree *tree)
{
	tree->mount_id = find_mount(tree->conf.mountpoint, -1);
	tree->table_fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	if (tree->mount_id < 0 || tree->table_fd < 0 ||
	    loop_fd_add(tree->loop, &tree->table, tree->table_fd, EPOLLPRI, table_changed) < 0)
		log_warn("fuse: /proc/self/mountinfo cannot be watched: an end of the mount that "
			 "the kernel does not tell is not seen");
}

static void device_ready(struct loop_fd *f, uint32_t events)
{
	struct tree *tree = container_of(f, struct tree, fd);

	for (int i = 0; i < BATCH; i++) {
		int n = fuse_session_receive_buf(tree->session, &tree->buf);

		if (n == -EAGAIN || n == -EINTR)
			return;
		if (n <= 0) {
			if (n < 0)
				log_error("fuse: reading requests: %s", strerror(-n));
			ended(tree);
			return;
		}
		/* (When the session has exited, the next receive says so.) */
		fuse_session_process_buf(tree->session, &tree->buf);
	}
}

/*
 * FUSE_NOTIFY_INC_EPOCH (linux/fuse.h, protocol 7.44, Linux 6.16): the kernel counts up a number,
 * and asks anew for every name that it learnt before. Unlike an invalidation of one name
 * it takes no lock, so that the loop may send it. libfuse does not know it yet.
 */
#define NOTIFY_INC_EPOCH 8

static bool recall_names(void *user)
{
	struct tree *tree = user;
	struct fuse_out_header out = { .len = sizeof(out), .error = NOTIFY_INC_EPOCH };

	return tree->init_sent &&
	       write(fuse_session_fd(tree->session), &out, sizeof(out)) == (ssize_t)sizeof(out);
}

/*
 * libfuse before 3.17 takes FUSE_CAP_PARALLEL_DIROPS (and FUSE_CAP_HANDLE_KILLPRIV) and
 * forgets to tell the kernel, which then holds a folder's lock over each lookup in it: one
 * that waits for a silent guest would hold up, beyond ^C, all others in that folder. So the
 * first reply, that to INIT (struct fuse_init_out in linux/fuse.h), is completed here.
 */
static ssize_t device_writev(int fd, struct iovec *iov, int count, void *user)
{
	struct tree *tree = user;

	if (!tree->init_sent && count == 2 &&
	    iov[1].iov_len >= offsetof(struct fuse_init_out, max_write)) {
		struct fuse_init_out *init = iov[1].iov_base;

		tree->init_sent = true;
		if (tree->parallel_dirops)
			init->flags |= FUSE_PARALLEL_DIROPS;
		/*
		 * The same: else each chown asks for the attributes first. The guest's kernel
		 * does it.
		 */
		if (tree->handle_killpriv)
			init->flags |= FUSE_HANDLE_KILLPRIV;
	}
	return writev(fd, iov, count);
}

static ssize_t device_read(int fd, void *buf, size_t len, void *user)
{
	return read(fd, buf, len);
}

static const struct fuse_custom_io device_io = { .writev = device_writev, .read = device_read };

static int session_create(struct tree *tree, struct err *err)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	/* Whoever lets others in wants the modes that are shown to hold for them. */
	bool others = strstr(tree->conf.options, "allow_");
	char *options = xasprintf("-o%s%sfsname=sbxfs,subtype=sbxfs,nosuid,nodev%s",
				  tree->conf.options, tree->conf.options[0] ? "," : "",
				  others ? ",default_permissions" : "");
	int r = 0;

	fuse_opt_add_arg(&args, "sbxfs");
	fuse_opt_add_arg(&args, options);
	if (tree->conf.debug)
		fuse_opt_add_arg(&args, "-d");
	tree->session = fuse_session_new(&args, &tree_fuse_ops, sizeof(tree_fuse_ops), tree);
	if (!tree->session)
		r = err_set(err, -EINVAL, "the mount options are not valid: %s",
			    tree->conf.options);
	fuse_opt_free_args(&args);
	free(options);
	return r;
}

int tree_mount(struct tree **result, struct loop *loop, struct fleet *fleet,
	       const struct tree_conf *conf, struct err *err)
{
	struct tree *tree = xcalloc(1, sizeof(*tree));
	int fd, r;

	tree->loop = loop;
	tree->table_fd = -1;
	tree->fleet = fleet;
	tree->conf = *conf;
	tree->uid = getuid();
	tree->gid = getgid();
	tree->started = wall_ms();
	node_tables_init(tree);
	hold_init(tree);
	r = session_create(tree, err);
	if (r < 0)
		goto out;
	if (fuse_session_mount(tree->session, conf->mountpoint) != 0) {
		r = err_set(err, -EIO, "cannot mount on %s; see the line above", conf->mountpoint);
		goto out;
	}
	tree->mounted = true;
	fd = fuse_session_fd(tree->session);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	r = fuse_session_custom_io(tree->session, &device_io, fd);
	if (r < 0) {
		err_sys(err, r, "cannot use the FUSE device");
		goto out;
	}
	r = loop_fd_add(loop, &tree->fd, fd, EPOLLIN, device_ready);
	if (r < 0)
		err_sys(err, r, "cannot watch the FUSE device");
	else
		watch_table(tree);
out:
	if (r < 0)
		tree_unmount(tree);
	else
		*result = tree;
	if (r == 0)
		fleet_on_recall(fleet, recall_names, tree);
	return r;
}

void tree_unmount(struct tree *tree)
{
	if (!tree)
		return;
	fleet_on_recall(tree->fleet, NULL, NULL);
	reqs_end(tree);
	hold_finish(tree);
	loop_timer_cancel(&tree->pages_timer);
	loop_fd_del(&tree->fd);
	loop_fd_del(&tree->table);
	if (tree->table_fd >= 0)
		close(tree->table_fd);
	if (tree->session) {
		if (!tree->mounted && fuse_session_fd(tree->session) >= 0)
			close_device(tree);
		fuse_session_unmount(tree->session);
		node_tables_finish(tree);
		fuse_session_destroy(tree->session);
	} else {
		node_tables_finish(tree);
	}
	free(tree->buf.mem);
	free(tree);
}
