/*
 * What is kept of each VM in state_dir/ID.json: written, and on disk before the service
 * is asked for a change (ask.c). It says what was promised; what is true is asked with `ls`.
 */
#ifndef SBXFS_EXEDEV_CVM_RECORD_H
#define SBXFS_EXEDEV_CVM_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "api.h"
#include "backend.h"

enum cvm_phase {
	CVM_NEW,		/* promised: `new` may have been sent -> MADE, FAILED, DESTROYING */
	CVM_MADE,		/* -> DESTROYING */
	CVM_FAILED,		/* the service refused to make it -> DESTROYING */
	CVM_DESTROYING,		/* -> gone */
};

#define CVM_PORTS 16

struct cvm_record {
	char id[64];
	enum cvm_phase phase;
	bool foreign;			/* found at the service, not made here */
	bool marked;			/* a clone: its tag is still to be taken off its source */
	struct vm_spec spec;
	char source[64];		/* the service's name of spec.from, as it was then */
	struct api_vm vm;		/* as last seen; vm.name is what the service calls it now */
	unsigned ports[CVM_PORTS];	/* that were asked for, the one of the proxy first */
	unsigned port_count;
	struct err why;			/* of FAILED */
};

/*
 * Write state_dir/ID.json atomically, flushed (flush.h); soon: by the helper thread, where
 * nothing is lost with it. 0, or a negative errno and *err.
 */
int cvm_record_save(const struct cvm_record *, const char *state_dir, bool soon, struct err *);
int cvm_record_load(struct cvm_record *, const char *path, struct err *);
/* Removed, and flushed. A missing one is fine. */
int cvm_record_remove(const struct cvm_record *, const char *state_dir, struct err *);

#endif
