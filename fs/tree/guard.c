/*
 * `rm -rf NAME` must not wipe a VM's disk file by file.
 *
 * rm goes through a folder in the order of readdir: the fixed files are listed
 * before root, so a process that means to delete everything is refused on one of
 * them first. It is remembered, by thread group and start time, and refused
 * on every unlink, rmdir and opendir in that sandbox from then on.
 */
#include <string.h>

#include "process.h"
#include "tree_internal.h"
#include "vm.h"

#define REMEMBERED 64

struct culprit {
	const struct vm *vm;		/* compared, never followed */
	struct process process;
};

static struct culprit culprits[REMEMBERED];
static unsigned next_culprit, known;

void guard_note(struct req *req, struct node *node)
{
	struct culprit c;

	memset(&c, 0, sizeof(c));	/* compared byte by byte */
	c.vm = node->vm;
	if (!node->vm || !process_identify(req->pid, &c.process))
		return;
	for (unsigned i = 0; i < known; i++)
		if (!memcmp(&culprits[i], &c, sizeof(c)))
			return;
	culprits[next_culprit] = c;
	next_culprit = (next_culprit + 1) % REMEMBERED;
	if (known < REMEMBERED)
		known++;
}

bool guard_refused(struct req *req, struct node *node)
{
	struct culprit c;
	bool any = false;

	for (unsigned i = 0; i < known && node->vm; i++)
		any |= culprits[i].vm == node->vm;
	memset(&c, 0, sizeof(c));
	c.vm = node->vm;
	if (!any || !process_identify(req->pid, &c.process))
		return false;
	for (unsigned i = 0; i < known; i++)
		if (!memcmp(&culprits[i], &c, sizeof(c)))
			return true;
	return false;
}
