/*
 * `rm -rf NAME` must not wipe a VM's disk file by file.
 *
 * rm goes through a folder in the order of readdir: the fixed files are listed
 * before root, so a process that means to delete everything is refused on one of
 * them first. It is remembered, by thread group and start time, and refused
 * on every unlink, rmdir and opendir in that sandbox from then on.
 *
 * Such a process may end with rmdir NAME (find -delete, Python's rmtree with
 * ignore_errors): that is refused as well, but only once after each time that it was refused
 * on a fixed file. A program that lives long and means it asks again.
 */
#include <errno.h>

#include "err.h"
#include "process.h"
#include "tree_internal.h"
#include "vm.h"

#define REMEMBERED 64

struct culprit {
	uint64_t vm;			/* its serial */
	struct process process;
	bool told;			/* its rmdir of the sandbox was refused */
};

static struct culprit culprits[REMEMBERED];
static unsigned next_culprit, known;

static bool same_process(const struct process *a, const struct process *b)
{
	return a->group == b->group && a->start == b->start;
}

/* What is remembered of the process of req and that sandbox, or NULL. */
static struct culprit *find(const struct req *req, const struct vm *vm)
{
	struct process process;
	bool any = false;

	/* Looking at /proc costs more than the answer is worth, nearly always. */
	for (unsigned i = 0; i < known; i++)
		any |= culprits[i].vm == vm_serial(vm);
	if (!any || !process_identify(req->pid, &process))
		return NULL;
	for (unsigned i = 0; i < known; i++)
		if (culprits[i].vm == vm_serial(vm) && same_process(&culprits[i].process, &process))
			return &culprits[i];
	return NULL;
}

void guard_note(struct req *req, struct node *node)
{
	struct culprit *c, new = { 0 };

	if (!node->vm)
		return;
	c = find(req, node->vm);
	if (c) {
		c->told = false;
		return;
	}
	new.vm = vm_serial(node->vm);
	if (!process_identify(req->pid, &new.process))
		return;
	culprits[next_culprit] = new;
	next_culprit = (next_culprit + 1) % REMEMBERED;
	if (known < REMEMBERED)
		known++;
}

bool guard_refused(struct req *req, struct node *node)
{
	return node->vm && find(req, node->vm);
}

bool guard_refused_all(struct req *req, const struct vm *vm, struct err *err)
{
	struct culprit *c = find(req, vm);

	if (!c || c->told)
		return false;
	c->told = true;
	err_set(err, -EPERM, "not destroyed: the same program was refused on a file of it, as one "
		"that deletes file by file is; 'rmdir %s' destroys it", vm_name(vm));
	return true;
}
