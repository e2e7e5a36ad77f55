/* Values that several files take. */
#include "value.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "command.h"
#include "err.h"
#include "facts.h"

void value_print(struct buf *out, const char *value)
{
	size_t len = strlen(value);

	buf_put(out, value, len);
	if (len > 0 && value[len - 1] != '\n')
		buf_put_u8(out, '\n');
}

int value_check_cwd(const char *value, struct err *err)
{
	if (strchr(value, '\n'))
		return err_set(err, -EINVAL, "cwd is one line: the folder that new jobs start in");
	if (strlen(value) >= PATH_MAX)
		return err_set(err, -ENAMETOOLONG, "cwd is longer than a path can be");
	return 0;
}

int value_check_env(const char *value, struct err *err)
{
	unsigned line;

	if (env_check(value, &line) < 0)
		return err_set(err, -EINVAL, "env: line %u is not NAME=VALUE", line);
	return 0;
}

int value_parse_timeout(const char *value, uint64_t *ms, struct err *err)
{
	*ms = 0;
	if (*value && duration_parse(value, ms) < 0)
		return err_set(err, -EINVAL,
			       "timeout is a time such as 30s, 5m or 1h30m, or 0 for none");
	return 0;
}

void value_print_timeout(struct buf *out, uint64_t ms)
{
	if (ms > 0) {
		duration_print(out, ms);
		buf_put_u8(out, '\n');
	}
}

int value_each_line(struct node *node, const char *value,
		    int (*verb)(struct node *, const char *line, struct err *), struct err *err)
{
	char *copy = xstrdup(value), *save = NULL;
	int r = 0, count = 0;

	for (char *line = strtok_r(copy, "\n", &save); line && r == 0;
	     line = strtok_r(NULL, "\n", &save)) {
		line += strspn(line, " \t\r");
		for (char *end = line + strlen(line); end > line && strchr(" \t\r", end[-1]); end--)
			end[-1] = 0;
		if (*line) {
			count++;
			r = verb(node, line, err);
		}
	}
	free(copy);
	return r == 0 && count == 0 ? err_set(err, -EINVAL, "no verb was written") : r;
}
