/* The configuration of the KVM backend, and the programs that it needs on the host. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "frame.h"
#include "kvm_internal.h"

#define POOL_MAX 100

/* --- what the host has ------------------------------------------------------- */

/* The path of a program, looked up in PATH unless it is one already; NULL: not there. */
static char *find_program(const char *name)
{
	const char *path = getenv("PATH");

	if (strchr(name, '/'))
		return access(name, X_OK) == 0 ? xstrdup(name) : NULL;
	for (path = path ? path : "/usr/bin:/bin"; *path; path += strspn(path, ":")) {
		size_t len = strcspn(path, ":");
		char *file = xasprintf("%.*s/%s", (int)len, path, name);

		if (access(file, X_OK) == 0)
			return file;
		free(file);
		path += len;
	}
	return NULL;
}

static void need_program(struct kvm *kvm, const char *name, const char *package)
{
	char *path = find_program(name);

	if (!path && !kvm->unready.code)
		err_set(&kvm->unready, -ENODEV, "%s is not installed: apt install %s", name,
			package);
	free(path);
}

uint64_t kvm_host_memory(void)
{
	struct sysinfo si;

	return sysinfo(&si) ? 0 : (uint64_t)si.totalram * si.mem_unit;
}

/* --- configuration -------------------------------------------------------------- */

static int take_accel(struct kvm *kvm, const char *value, struct err *err)
{
	if (!value || !strcmp(value, "auto"))
		kvm->choice = ACCEL_CHOICE_AUTO;
	else if (!strcmp(value, "kvm"))
		kvm->choice = ACCEL_CHOICE_KVM;
	else if (!strcmp(value, "tcg"))
		kvm->choice = ACCEL_CHOICE_TCG;
	else
		return err_set(err, -EINVAL, "[kvm] accel must be auto, kvm or tcg, not '%s'",
			       value);
	return 0;
}

static int take_templates(struct kvm *kvm, const char *value, struct err *err)
{
	if (value && strcmp(value, "on") && strcmp(value, "off"))
		return err_set(err, -EINVAL, "[kvm] templates must be on or off, not '%s'", value);
	kvm->templates = !value || !strcmp(value, "on");
	return 0;
}

static int take_pool(struct kvm *kvm, const char *value, struct err *err)
{
	unsigned long n = 0;
	char *end = NULL;

	if (value)
		n = strtoul(value, &end, 10);
	if (value && (!value[0] || *end || value[0] == '-' || n > POOL_MAX))
		return err_set(err, -EINVAL, "[kvm] pool must be 0 to %d, not '%s'", POOL_MAX,
			       value);
	kvm->pool = (unsigned)n;
	return 0;
}

static int take_allow(struct kvm *kvm, const char *value, struct err *err)
{
	struct frame_rules rules = { 0 };
	char wrong[FRAME_WRONG_MAX];
	int r = frame_allow(&rules, value ? value : "", wrong);

	if (r == -E2BIG)
		return err_set(err, -EINVAL, "[kvm] allow may have %d addresses at most",
			       FRAME_ALLOWED_MAX);
	if (r < 0)
		return err_set(err, -EINVAL, "[kvm] allow takes IPv4 addresses as "
			       "ADDRESS[/LENGTH][:PORT], not '%s'", wrong);
	kvm->allow = xstrdup(value ? value : "");
	return 0;
}

/*
 * Beside us in a build directory, where we were installed (sbxfs-template: in the same
 * folder), or where we were meant to be.
 */
static char *find_net_program(void)
{
	static const char *const places[] = {
		"%s/backends/kvm/net/sbxfs-net", "%s/net/sbxfs-net",
		"%s/../../backends/kvm/net/sbxfs-net", "%s/../libexec/sbxfs/sbxfs-net",
		"%s/sbxfs-net",
	};
	char here[PATH_MAX], *slash;
	ssize_t n = readlink("/proc/self/exe", here, sizeof(here) - 1);

	here[n > 0 ? n : 0] = '\0';
	slash = strrchr(here, '/');
	if (slash)
		*slash = '\0';
	for (size_t i = 0; slash && i < sizeof(places) / sizeof(*places); i++) {
		char path[PATH_MAX + 64];

		snprintf(path, sizeof(path), places[i], here);
		if (access(path, X_OK) == 0)
			return xstrdup(path);
	}
	return xstrdup(SBXFS_LIBEXEC "/sbxfs-net");
}

static void take_net(struct kvm *kvm)
{
	kvm->net_program = find_net_program();
	if (access(kvm->net_program, X_OK) < 0 && !kvm->unready.code)
		err_set(&kvm->unready, -ENODEV, "%s is not there: sbxfs is not installed whole",
			kvm->net_program);
}

static void take_qemu(struct kvm *kvm, const char *value)
{
	kvm->qemu = find_program(value ? value : "qemu-system-x86_64");
	if (kvm->qemu)
		return;
	kvm->qemu = xstrdup(value ? value : "qemu-system-x86_64");
	if (value)
		err_set(&kvm->unready, -ENODEV, "[kvm] qemu: there is no program %s", value);
	else
		need_program(kvm, kvm->qemu, "qemu-system-x86");
}

int kvm_take_conf(struct kvm *kvm, const struct backend_conf *conf, struct err *err)
{
	const char *images = conf->get(conf, "images");
	int r = take_accel(kvm, conf->get(conf, "accel"), err);

	if (r < 0)
		return r;
	if (images && images[0] != '/')
		return err_set(err, -EINVAL, "[kvm] images must be an absolute path, not '%s'",
			       images);
	r = take_templates(kvm, conf->get(conf, "templates"), err);
	if (r == 0)
		r = take_pool(kvm, conf->get(conf, "pool"), err);
	if (r == 0)
		r = take_allow(kvm, conf->get(conf, "allow"), err);
	if (r < 0)
		return r;
	kvm->state_dir = xstrdup(conf->state_dir);
	kvm->run_dir = xstrdup(conf->run_dir);
	kvm->images = images ? xstrdup(images) : xasprintf("%s/images", conf->data_dir);
	take_qemu(kvm, conf->get(conf, "qemu"));
	take_net(kvm);
	need_program(kvm, "qemu-img", "qemu-utils");
	need_program(kvm, "ssh-keygen", "openssh-client");
	return 0;
}
