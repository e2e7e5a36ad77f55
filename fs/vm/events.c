/*
 * The stream of events; see events.h for the format.
 *
 * All lines that are kept lie in memory, one behind the other, with a ring of
 * where each ends. On disk there are two files: `events`, which is appended to,
 * and `events.1`, the one before it; at EVENTS_KEPT lines `events` takes the
 * other's place. So a restart finds at least that many.
 */
#include "events.h"

#include <cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <uthash.h>

#include "buf.h"
#include "err.h"
#include "log.h"
#include "process.h"

/* A file holds no more lines than these, each far below 4 KiB. */
#define FILE_MAX ((size_t)EVENTS_KEPT * 8192)

struct events {
	char *path, *path_before;
	int fd;
	unsigned in_file;		/* lines of path */
	bool failing;			/* the disk takes no more: told once */
	struct buf text;		/* the lines kept */
	uint64_t start;			/* the byte of the stream that text begins with */
	uint64_t last_seq;
	unsigned count;			/* lines kept: last_seq - count + 1 .. last_seq */
	uint64_t ends[EVENTS_KEPT];	/* of the line seq, at seq % EVENTS_KEPT */
	uid_t uid;
	pid_t thread;
	struct wait_list news;
};

/* --- lines in memory ---------------------------------------------------------------- */

static uint64_t first_seq(const struct events *e)
{
	return e->last_seq - e->count + 1;
}

uint64_t events_size(const struct events *e)
{
	return e->start + buf_size(&e->text);
}

static void keep(struct events *e, const char *line, size_t len)
{
	if (e->count == EVENTS_KEPT) {
		uint64_t end = e->ends[first_seq(e) % EVENTS_KEPT];

		buf_consume(&e->text, (size_t)(end - e->start));
		e->start = end;
		e->count--;
	}
	buf_put(&e->text, line, len);
	e->last_seq++;
	e->count++;
	e->ends[e->last_seq % EVENTS_KEPT] = events_size(e);
}

/* The first line that ends behind that byte; last_seq + 1 when none does. */
static uint64_t line_at(const struct events *e, uint64_t byte)
{
	uint64_t low = first_seq(e), high = e->last_seq + 1;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;

		if (e->ends[middle % EVENTS_KEPT] > byte)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* --- files ------------------------------------------------------------------------------ */

/* A line of a file: its number, or 0 when it is none of ours. */
static uint64_t seq_of(const char *line, size_t len)
{
	cJSON *json = cJSON_ParseWithLength(line, len);
	double seq = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(json, "seq"));

	cJSON_Delete(json);
	return seq >= 1 && seq < 9e15 ? (uint64_t)seq : 0;
}

/* Numbers go on from the last line's, also over a line that was damaged. */
static unsigned load_lines(struct events *e, const char *text, size_t len)
{
	unsigned lines = 0;

	while (len > 0) {
		const char *end = memchr(text, '\n', len);
		size_t line = (size_t)(end - text) + 1;
		uint64_t seq = seq_of(text, line);

		if (seq > 0 && seq != e->last_seq + 1) { /* a gap: what is before it is not kept */
			buf_clear(&e->text);
			e->start = 0;
			e->count = 0;
			e->last_seq = seq - 1;
		}
		if (seq > 0) {
			keep(e, text, line);
			lines++;
		}
		text += line;
		len -= line;
	}
	return lines;
}

/* Read a file of lines; what is behind the last newline is cut off. -ENOENT is fine. */
static int load(struct events *e, const char *path, unsigned *lines, struct err *err)
{
	int fd = open(path, O_RDWR | O_CLOEXEC), r = 0;
	struct stat st;
	char *text = NULL;
	size_t len;
	ssize_t n;

	*lines = 0;
	if (fd < 0)
		return errno == ENOENT ? 0 : err_sys(err, -errno, "cannot open %s", path);
	if (fstat(fd, &st) < 0) {
		r = err_sys(err, -errno, "cannot stat %s", path);
		goto out;
	}
	if ((uint64_t)st.st_size > FILE_MAX) {
		r = err_set(err, -EFBIG, "%s is larger than any file of events: remove it", path);
		goto out;
	}
	text = xmalloc((size_t)st.st_size + 1);
	n = pread(fd, text, (size_t)st.st_size, 0);
	if (n < 0) {
		r = err_sys(err, -errno, "cannot read %s", path);
		goto out;
	}
	for (len = (size_t)n; len > 0 && text[len - 1] != '\n'; len--)
		;
	if (len < (size_t)st.st_size && ftruncate(fd, (off_t)len) < 0)
		r = err_sys(err, -errno, "cannot cut a half line off %s", path);
	else
		*lines = load_lines(e, text, len);
out:
	free(text);
	close(fd);
	return r;
}

static void save(struct events *e, const char *line, size_t len)
{
	ssize_t n;

	if (e->in_file >= EVENTS_KEPT) {
		int fd;

		if (rename(e->path, e->path_before) < 0)
			goto failed;
		fd = open(e->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		if (fd < 0)
			goto failed;
		close(e->fd);
		e->fd = fd;
		e->in_file = 0;
	}
	n = write(e->fd, line, len);
	if (n != (ssize_t)len) {
		struct stat st;

		/* Half a line in the middle would make two of them unreadable. */
		if (n > 0 && (fstat(e->fd, &st) < 0 || ftruncate(e->fd, st.st_size - n) < 0))
			log_error("%s holds half a line: %s", e->path, strerror(errno));
		errno = n < 0 ? errno : ENOSPC;
		goto failed;
	}
	e->in_file++;
	e->failing = false;
	return;
failed:
	if (!e->failing)
		log_error("events are kept in memory alone: %s: %s", e->path, strerror(errno));
	e->failing = true;
}

int events_open(struct events **events, const char *dir, struct err *err)
{
	struct events *e = xcalloc(1, sizeof(*e));
	unsigned before;
	int r;

	e->path = xasprintf("%s/events", dir);
	e->path_before = xasprintf("%s/events.1", dir);
	e->fd = -1;
	e->uid = (uid_t)-1;
	wait_init(&e->news);
	r = load(e, e->path_before, &before, err);
	if (r == 0)
		r = load(e, e->path, &e->in_file, err);
	if (r == 0) {
		e->fd = open(e->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		if (e->fd < 0)
			r = err_sys(err, -errno, "cannot open %s", e->path);
	}
	if (r < 0) {
		events_close(e);
		return r;
	}
	*events = e;
	return 0;
}

void events_close(struct events *e)
{
	if (!e)
		return;
	if (e->fd >= 0)
		close(e->fd);
	buf_finish(&e->text);
	free(e->path);
	free(e->path_before);
	free(e);
}

/* --- what happens ------------------------------------------------------------------------- */

void events_caller(struct events *e, uid_t uid, pid_t thread)
{
	e->uid = uid;
	e->thread = thread;
}

static void time_text(char *out, size_t size)
{
	struct timespec now;
	struct tm tm;
	size_t n;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	n = strftime(out, size, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out + n, size - n, ".%03dZ", (int)(now.tv_nsec / 1000000));
}

void events_post(struct events *e, const char *event, const char *sandbox,
		 const struct event_field *fields)
{
	cJSON *json;
	struct process process;
	char when[64], *text, *line;

	if (!e)
		return;
	json = cJSON_CreateObject();
	time_text(when, sizeof(when));
	cJSON_AddNumberToObject(json, "seq", (double)(e->last_seq + 1));
	cJSON_AddStringToObject(json, "time", when);
	cJSON_AddStringToObject(json, "event", event);
	if (sandbox)
		cJSON_AddStringToObject(json, "sandbox", sandbox);
	if (e->uid != (uid_t)-1)
		cJSON_AddNumberToObject(json, "uid", e->uid);
	if (e->uid != (uid_t)-1 && process_identify(e->thread, &process))
		cJSON_AddNumberToObject(json, "pid", process.group);
	for (; fields && fields->key; fields++) {
		if (fields->text)
			cJSON_AddStringToObject(json, fields->key, fields->text);
		else
			cJSON_AddNumberToObject(json, fields->key, (double)fields->number);
	}
	text = cJSON_PrintUnformatted(json);
	line = xasprintf("%s\n", text);
	save(e, line, strlen(line));
	keep(e, line, strlen(line));
	free(line);
	cJSON_free(text);
	cJSON_Delete(json);
	wait_wake(&e->news);
}

/* --- the past ------------------------------------------------------------------------------- */

struct there {
	char *name;
	UT_hash_handle hh;
};

static void there_add(struct there **all, const char *name)
{
	struct there *t;

	HASH_FIND_STR(*all, name, t);
	if (t)
		return;
	t = xcalloc(1, sizeof(*t));
	t->name = xstrdup(name);
	HASH_ADD_KEYPTR(hh, *all, t->name, strlen(t->name), t);
}

static void there_remove(struct there **all, const char *name)
{
	struct there *t;

	HASH_FIND_STR(*all, name, t);
	if (!t)
		return;
	HASH_DEL(*all, t);
	free(t->name);
	free(t);
}

static void replay_line(struct there **all, const cJSON *line)
{
	const char *event = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(line, "event"));
	const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(line, "sandbox"));
	const char *was = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(line, "was"));

	if (!event || !name)
		return;
	if (!strcmp(event, "created") || !strcmp(event, "adopted")) {
		there_add(all, name);
	} else if (!strcmp(event, "destroyed")) {
		there_remove(all, name);
	} else if ((!strcmp(event, "renamed") || !strcmp(event, "trashed") ||
		    !strcmp(event, "restored")) && was) {
		there_remove(all, was);
		there_add(all, name);
	}
}

void events_replay(struct events *e, void (*each)(void *user, const char *sandbox), void *user)
{
	struct there *all = NULL, *t, *next;
	const char *text = (const char *)e->text.data + e->text.off;
	uint64_t from = e->start;

	for (uint64_t seq = first_seq(e); seq <= e->last_seq; seq++) {
		uint64_t end = e->ends[seq % EVENTS_KEPT];
		cJSON *line = cJSON_ParseWithLength(text + (from - e->start), (size_t)(end - from));

		replay_line(&all, line);
		cJSON_Delete(line);
		from = end;
	}
	HASH_ITER(hh, all, t, next) {
		each(user, t->name);
		HASH_DEL(all, t);
		free(t->name);
		free(t);
	}
}

/* --- readers --------------------------------------------------------------------------------- */

struct wait_list *events_news(struct events *e)
{
	return &e->news;
}

/* It came too late: from off on it reads how much it missed, then the oldest line. */
static void reader_lost(struct events *e, struct events_reader *r, uint64_t off)
{
	free(r->notice);
	r->notice = xasprintf("%s{\"lost\":%llu}\n", r->mid_line ? "\n" : "",
			      (unsigned long long)(first_seq(e) - r->next_seq));
	r->from_off = off + strlen(r->notice);
	r->from_byte = e->start;
	r->next_seq = first_seq(e);
	r->mid_line = false;
}

static size_t notice_read(const struct events_reader *r, void *out, size_t len, uint64_t off)
{
	size_t size = strlen(r->notice), at = size - (size_t)(r->from_off - off);

	if (len > size - at)
		len = size - at;
	memcpy(out, r->notice + at, len);
	return len;
}

static bool in_notice(const struct events_reader *r, uint64_t off)
{
	return r->notice && off < r->from_off && r->from_off - off <= strlen(r->notice);
}

size_t events_read(struct events *e, struct events_reader *r, void *out, size_t len, uint64_t off)
{
	uint64_t byte;

	if (in_notice(r, off))
		return notice_read(r, out, len, off);
	byte = r->from_byte + (off - r->from_off);
	/* Where it begins, or goes back to, the oldest line stands for those that are gone. */
	if (off < r->from_off || (!r->begun && byte < e->start)) {
		r->from_off = off;
		r->from_byte = byte = e->start;
	} else if (byte < e->start) {
		reader_lost(e, r, off);
		return notice_read(r, out, len, off);
	}
	r->begun = true;
	if (byte >= events_size(e))
		return 0;
	if (len > events_size(e) - byte)
		len = (size_t)(events_size(e) - byte);
	memcpy(out, buf_peek(&e->text) + (byte - e->start), len);
	byte += len;
	r->next_seq = line_at(e, byte);
	r->mid_line = buf_peek(&e->text)[byte - e->start - 1] != '\n';
	return len;
}

void events_reader_finish(struct events_reader *r)
{
	free(r->notice);
	memset(r, 0, sizeof(*r));
}
