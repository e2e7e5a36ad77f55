/* The folder of a sandbox: its fixed files, jobs/, console, and root/ last. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "dirbuf.h"
#include "err.h"
#include "job_node.h"
#include "readme.h"
#include "remote_node.h"
#include "scratch.h"
#include "text.h"
#include "tree_internal.h"
#include "value.h"
#include "vm.h"

/* --- the small files ----------------------------------------------------------- */

static void readme_print(struct node *node, struct buf *out)
{
	buf_printf(out, "%s", readme_vm);
}

static void status_print(struct node *node, struct buf *out)
{
	buf_printf(out, "%s\n", vm_status(node->vm));
}

static void info_print(struct node *node, struct buf *out)
{
	vm_info_print(node->vm, out);
}

static void info_json_print(struct node *node, struct buf *out)
{
	vm_info_print_json(node->vm, out);
}

static void error_print(struct node *node, struct buf *out)
{
	value_print(out, vm_error(node->vm));
}

static void cwd_print(struct node *node, struct buf *out)
{
	value_print(out, vm_cwd(node->vm));
}

static int cwd_store(struct node *node, const char *value, struct err *err)
{
	int r = value_check_cwd(value, err);

	return r < 0 ? r : vm_set_cwd(node->vm, value, err);
}

static void env_print(struct node *node, struct buf *out)
{
	value_print(out, vm_env(node->vm));
}

static int env_store(struct node *node, const char *value, struct err *err)
{
	int r = value_check_env(value, err);

	return r < 0 ? r : vm_set_env(node->vm, value, err);
}

static void tags_print(struct node *node, struct buf *out)
{
	value_print(out, vm_tags(node->vm));
}

static int tags_store(struct node *node, const char *value, struct err *err)
{
	return vm_set_tags(node->vm, value, err);
}

static void comment_print(struct node *node, struct buf *out)
{
	value_print(out, vm_comment(node->vm));
}

static int comment_store(struct node *node, const char *value, struct err *err)
{
	return vm_set_comment(node->vm, value, err);
}

static void protect_print(struct node *node, struct buf *out)
{
	buf_printf(out, "%d\n", vm_protected(node->vm));
}

static int protect_store(struct node *node, const char *value, struct err *err)
{
	return vm_set_protect(node->vm, value, err);
}

static void left_print(struct node *node, struct buf *out, void (*print)(struct vm *, struct buf *))
{
	size_t before = buf_size(out);

	print(node->vm, out);
	if (buf_size(out) > before)
		buf_put_u8(out, '\n');
}

static void ttl_print(struct node *node, struct buf *out)
{
	left_print(node, out, vm_ttl_print);
}

static int ttl_store(struct node *node, const char *value, struct err *err)
{
	return vm_set_ttl(node->vm, value, err);
}

static void idle_print(struct node *node, struct buf *out)
{
	left_print(node, out, vm_idle_print);
}

static int idle_store(struct node *node, const char *value, struct err *err)
{
	return vm_set_idle(node->vm, value, err);
}

static void timeout_print(struct node *node, struct buf *out)
{
	value_print_timeout(out, vm_timeout(node->vm));
}

static int timeout_store(struct node *node, const char *value, struct err *err)
{
	uint64_t ms;
	int r = value_parse_timeout(value, &ms, err);

	return r < 0 ? r : vm_set_timeout(node->vm, ms, err);
}

static void ssh_config_print(struct node *node, struct buf *out)
{
	vm_ssh_config_print(node->vm, out);
}

/* --- ctl --------------------------------------------------------------------------- */

static void ctl_print(struct node *node, struct buf *out)
{
	vm_verbs_print(node->vm, out);
	buf_printf(out, "\n");
}

static int ctl_verb(struct node *node, const char *line, struct err *err)
{
	return vm_verb(node->vm, line, err);
}

static int ctl_store(struct node *node, const char *value, struct err *err)
{
	return value_each_line(node, value, ctl_verb, err);
}

/* --- console: a file of the host that grows --------------------------------------------- */

static int console_stat(struct node *node, struct stat *st)
{
	int fd = vm_console(node->vm);
	struct stat file;

	if (fd >= 0 && fstat(fd, &file) == 0)
		st->st_size = file.st_size;
	if (fd >= 0)
		close(fd);
	return 0;
}

static int console_open(struct req *req, struct node *node, struct handle *h,
			struct fuse_file_info *fi)
{
	int fd = vm_console(node->vm);

	if (fd < 0 && fd != -ENOENT)
		return fd;
	/* not yet there: an empty file; 0 stands for that, so fds are kept one higher */
	h->priv = (void *)(intptr_t)(fd == -ENOENT ? 0 : fd + 1);
	fi->direct_io = 1;
	req_reply_open(req, h);
	return 0;
}

static int console_fd(const struct handle *h)
{
	return (int)(intptr_t)h->priv - 1;
}

static int console_read(struct req *req, struct handle *h, size_t size, off_t off)
{
	uint8_t *data = xmalloc(size);
	ssize_t n = console_fd(h) < 0 ? 0 : pread(console_fd(h), data, size, off);
	int r = n < 0 ? -errno : 0;

	if (n >= 0)
		req_reply_buf(req, data, (size_t)n);
	free(data);
	return r;
}

static void console_release(struct handle *h)
{
	if (console_fd(h) >= 0)
		close(console_fd(h));
}

const struct node_ops console_ops = {
	.kind = "console", .mode = S_IFREG | 0444,
	.stat = console_stat, .open = console_open, .read = console_read,
	.release = console_release,
};

/* --- the folder ------------------------------------------------------------------------------ */

static const struct text_file texts[] = {
	{ "README", &text_ro_ops, readme_print, NULL, TEXT_VALUE },
	{ "status", &text_ro_ops, status_print, NULL, TEXT_VALUE },
	{ "info", &text_ro_ops, info_print, NULL, TEXT_VALUE },
	{ "info.json", &text_ro_ops, info_json_print, NULL, TEXT_VALUE },
	{ "error", &text_ro_ops, error_print, NULL, TEXT_VALUE },
	{ "ctl", &text_rw_ops, ctl_print, ctl_store, TEXT_VERBS },
	{ "cwd", &text_rw_ops, cwd_print, cwd_store, TEXT_VALUE },
	{ "env", &text_rw_ops, env_print, env_store, TEXT_LINES },
	{ "ttl", &text_rw_ops, ttl_print, ttl_store, TEXT_VALUE },
	{ "idle", &text_rw_ops, idle_print, idle_store, TEXT_VALUE },
	{ "tags", &text_rw_ops, tags_print, tags_store, TEXT_LINES },
	{ "comment", &text_rw_ops, comment_print, comment_store, TEXT_VALUE },
	{ "protect", &text_rw_ops, protect_print, protect_store, TEXT_VALUE },
	{ "timeout", &text_rw_ops, timeout_print, timeout_store, TEXT_VALUE },
	{ "ssh_config", &text_ro_ops, ssh_config_print, NULL, TEXT_VALUE },
};

/* Those that its backend can serve; what is listed last is further down. */
static const struct folder {
	const char *name;
	unsigned cap;			/* 0: any */
	const struct node_ops *ops;
} folders[] = {
	{ "console", BACKEND_CAP_CONSOLE, &console_ops },
	{ "jobs", 0, &jobs_ops },
	{ "ports", BACKEND_CAP_PORTS, &ports_ops },
	{ "snapshots", BACKEND_CAP_SNAPSHOT, &snapshots_ops },
};
#define FOLDER_COUNT (sizeof(folders) / sizeof(folders[0]))

static bool serves(const struct vm *vm, const struct folder *f)
{
	return !f->cap || (vm_caps(vm) & f->cap);
}

static int vm_lookup(struct node *dir, const char *name, struct node **child)
{
	struct vm *vm = dir->vm;

	*child = job_entry_get(dir, name);
	for (size_t i = 0; !*child && i < sizeof(texts) / sizeof(texts[0]); i++)
		if (!strcmp(texts[i].name, name))
			*child = text_node_get(dir, &texts[i]);
	if (*child)
		return 0;
	for (const struct folder *f = folders; f < folders + FOLDER_COUNT; f++)
		if (!strcmp(name, f->name) && serves(vm, f))
			*child = node_get(dir, name, f->ops, vm, NULL);
	if (!strcmp(name, "root"))
		*child = remote_root_get(dir);
	return *child ? 0 : scratch_lookup(dir, name, child);
}

static int vm_list(struct node *dir, struct dirbuf *out)
{
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		dirbuf_add(out, texts[i].name, S_IFREG);
	for (const struct job_entry *e = job_entries; e->name; e++)
		dirbuf_add(out, e->name, S_IFREG);
	scratch_list(dir, out);
	for (const struct folder *f = folders; f < folders + FOLDER_COUNT; f++)
		if (serves(dir->vm, f))
			dirbuf_add(out, f->name, f->ops->mode & S_IFMT);
	/* Last: whoever deletes everything is refused on a fixed file before (guard.c). */
	dirbuf_add(out, "root", S_IFDIR);
	return 0;
}

/* touch is a sign of life; all else of a sandbox's folder is fixed. */
static int vm_setattr(struct req *req, struct node *node, struct handle *h, const struct stat *attr,
		      int to_set)
{
	int times = FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW |
		    FUSE_SET_ATTR_MTIME_NOW | FUSE_SET_ATTR_CTIME;
	struct err err;
	struct stat st;

	if (to_set & ~times) {
		err_set(&err, -EPERM, "the attributes of a sandbox's folder are fixed");
		return req_fail(node, "setattr", NULL, &err);
	}
	vm_used(node->vm);
	node_stat_init(node, &st);
	req_reply_attr(req, &st, 0);
	return 0;
}

/* The time of the folder is the last sign of life: `find -mmin` finds what nobody uses. */
static int vm_stat(struct node *node, struct stat *st)
{
	int64_t ms = vm_active(node->vm);

	st->st_mtim = (struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };
	return 0;
}

const struct node_ops vm_ops = {
	.kind = "sandbox", .mode = S_IFDIR | 0755, .lent = true, .lookup_now = vm_lookup,
	.list = vm_list,
	.stat = vm_stat, .setattr = vm_setattr,
	.create = scratch_create, .unlink = scratch_unlink, .rename = scratch_rename,
};
