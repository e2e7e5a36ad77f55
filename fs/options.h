/* What the command line and the config file say: read once, read-only afterwards. */
#ifndef SBXFS_OPTIONS_H
#define SBXFS_OPTIONS_H

#include <stdbool.h>

#include "backend.h"
#include "err.h"
#include "fleet_limits.h"
#include "job.h"
#include "log.h"

struct setting {
	char *section, *key, *value;
};

struct options {
	bool foreground, debug_fuse, help, version;
	enum log_level log_level;
	char *mountpoint;		/* absolute */
	char *fuse_options;		/* for mount's -o */
	char *state_dir, *run_dir, *data_dir;
	char **backends;		/* NULL terminated, the default first */
	uint64_t cache;			/* bytes; 0: the default */
	struct vm_spec defaults;	/* zero fields were not set */
	struct job_conf jobs;
	struct fleet_limits limits;
	int64_t ttl, idle;		/* of new sandboxes, ms; 0: none */
	char *overflow;			/* a backend, or NULL */
	struct setting *settings;	/* those of the backends' sections */
	unsigned setting_count;
};

extern const char options_usage[];

/* 0, or < 0 with a sentence: what is wrong, and where. options_finish in either case. */
int options_parse(struct options *, int argc, char *argv[], struct err *);
void options_finish(struct options *);
/* The value of a key of a backend's section, or NULL; user is the struct options. */
const char *options_get(void *user, const char *section, const char *key);

#endif
