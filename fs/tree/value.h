/* Values that several files take: how they are shown, and what is a good one. */
#ifndef SBXFS_TREE_VALUE_H
#define SBXFS_TREE_VALUE_H

#include <stdint.h>

struct buf;
struct err;
struct node;

/* The value and a newline; nothing at all when it is empty. */
void value_print(struct buf *, const char *value);
int value_check_cwd(const char *value, struct err *);
int value_check_env(const char *value, struct err *);
/* Nothing or 0 is no limit: 0 ms, and shows as nothing. */
int value_parse_timeout(const char *value, uint64_t *ms, struct err *);
void value_print_timeout(struct buf *, uint64_t ms);
/* Call verb for each line that is not blank; stops at the first that is refused. */
int value_each_line(struct node *, const char *value,
		    int (*verb)(struct node *, const char *line, struct err *), struct err *);

#endif
