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
	uint64_t vm;			/* its serial */
	struct process process;
};

static struct culprit culprits[REMEMBERED];
static unsigned next_culprit, known;

void guard_note(struct req *req, struct node *node)
{
	struct culprit c;

	if (!node->vm)
		return;
	memset(&c, 0, sizeof(c));	/* compared byte by byte */
	c.vm = vm_serial(node->vm);
	if (!process_identify(req->pid, &c.process))
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

	if (!node->vm)
		return false;
	memset(&c, 0, sizeof(c));
	c.vm = vm_serial(node->vm);
	for (unsigned i = 0; i < known; i++)
		any |= culprits[i].vm == c.vm;
	if (!any || !process_identify(req->pid, &c.process))
		return false;
	for (unsigned i = 0; i < known; i++)
		if (!memcmp(&culprits[i], &c, sizeof(c)))
			return true;
	return false;
}
