/* What a fleet may take and how long its sandboxes last: [limits] of the config file. */
#ifndef SBXFS_VM_FLEET_LIMITS_H
#define SBXFS_VM_FLEET_LIMITS_H

#include <stdint.h>

/* 0: no such limit. Counts and sizes hold for the sandboxes of each backend by itself. */
struct fleet_limits {
	unsigned sandboxes;	/* in the top folder */
	uint64_t memory;	/* of those that are neither stopped nor failed, bytes */
	uint64_t disk;		/* of all, those in the trash too, bytes */
	uint64_t free;		/* of the host's disk: below it nothing is made here, bytes */
	int64_t age;		/* from the creation, ms */
	int64_t trash;		/* how long what was removed is kept, ms; 0: not at all */
};

#define FLEET_LIMITS_DEFAULT ((struct fleet_limits){ \
	.free = 1ull << 30, .trash = 60 * 60 * 1000 })

/* What counts against them. */
struct fleet_usage {
	unsigned sandboxes;
	uint64_t memory, disk;
};

#endif
