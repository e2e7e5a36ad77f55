/*
 * Templates are read whole once in each boot of the host, when the first sandbox
 * starts from one, in a child and behind all else that the host has to do. At each mkdir
 * only the sizes and times of their files are looked at (template.c).
 *
 * That it was done stands in the file "checked" of the template, as the id of the boot.
 * One that is not what it was is not used again, and those who began there are told.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "log.h"
#include "machine.h"
#include "process.h"
#include "template_sum.h"
#include "work.h"

#define CHECKED "checked"
#define BOOT_ID_MAX 64

struct template_check {
	struct kvm *kvm;
	struct work *work;
	char *folder;
};

static bool checked(const char *folder)
{
	char *path = xasprintf("%s/" CHECKED, folder), now[BOOT_ID_MAX], then[BOOT_ID_MAX] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	free(path);
	if (fd < 0)
		return false;
	process_boot_id(now, sizeof(now));
	if (read(fd, then, sizeof(then) - 1) < 0)
		then[0] = '\0';
	close(fd);
	return now[0] && !strcmp(now, then);
}

void template_checked(const char *folder)
{
	char *path = xasprintf("%s/" CHECKED, folder), now[BOOT_ID_MAX];
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	process_boot_id(now, sizeof(now));
	/* Not written, it is checked once more. */
	if (fd < 0 || write(fd, now, strlen(now)) < 0)
		log_info("cannot write %s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	free(path);
}

static void free_check(struct template_check *c)
{
	c->kvm->check = NULL;
	free(c->folder);
	free(c);
}

/* Those who began there, and are what came of it. */
static void tell_users(struct kvm *kvm, const char *folder, const struct err *err)
{
	struct machine *m, *next;

	HASH_ITER (hh, kvm->machines, m, next) {
		if (strcmp(m->rec.base, folder) || m->state == VM_DESTROYING)
			continue;
		if (m->hidden)
			machine_destroy(m, NULL);	/* of the pool: it waits for nobody now */
		else
			machine_trouble(m, "start", err);
	}
}

static void verified(void *user, int r, const char *said)
{
	struct template_check *c = user;
	struct err err;

	if (r == 0) {
		template_checked(c->folder);
	} else if (r != -EBADMSG) {
		log_warn("a template was not checked: %s", said);
	} else {
		log_error("a template is not used again: %s", said);
		template_spoil(c->folder);
		err_set(&err, -EIO, "the template that it started from was damaged, so that what "
			"is in it may be wrong (%s): make it anew", said);
		tell_users(c->kvm, c->folder, &err);
		pool_check(c->kvm);
	}
	free_check(c);
}

/* In a child. */
static int verify(const void *arg, const int *fds, char said[WORK_SAID_MAX])
{
	const struct template_check *c = arg;

	setpriority(PRIO_PROCESS, 0, 19);
	return template_sum_verify(c->folder, said, WORK_SAID_MAX);
}

void template_check(struct kvm *kvm, const char *folder)
{
	struct template_check *c;
	struct err err;

	if (kvm->check || checked(folder))
		return;
	c = xcalloc(1, sizeof(*c));
	c->kvm = kvm;
	c->folder = xstrdup(folder);
	kvm->check = c;
	if (work_start(kvm->loop, verify, c, NULL, 0, verified, c, &c->work, &err) < 0) {
		log_warn("a template was not checked: %s", err.text);
		free_check(c);
	}
}

void template_check_cancel(struct kvm *kvm)
{
	if (!kvm->check)
		return;
	work_cancel(kvm->check->work);
	free_check(kvm->check);
}
