/* Processes and their last words: see process.h. */
#include "process.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "buf.h"

#define TAIL_BYTES 8192

/* Up to size - 1 bytes of a file, NUL terminated. */
static ssize_t read_some(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);

	text[n > 0 ? n : 0] = '\0';
	if (fd >= 0)
		close(fd);
	return n;
}

uint64_t process_start(pid_t pid)
{
	char path[64], text[1024], *at;
	uint64_t start = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (read_some(path, text, sizeof(text)) <= 0)
		return 0;
	at = strrchr(text, ')');	/* the command's name may hold anything before it */
	for (int field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	return at && sscanf(at, " %lu", &start) == 1 ? start : 0;
}

static bool has_word(const char *text, size_t len, const char *word)
{
	for (const char *at = text; at < text + len; at += strlen(at) + 1)
		if (!strcmp(at, word))
			return true;
	return false;
}

pid_t process_find(const char *word)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	pid_t found = 0;
	char text[16384];

	while (proc && !found && (entry = readdir(proc))) {
		char path[64];
		ssize_t n;

		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%.20s/cmdline", entry->d_name);
		n = read_some(path, text, sizeof(text));
		if (n > 0 && has_word(text, (size_t)n, word))
			found = (pid_t)atoi(entry->d_name);
	}
	if (proc)
		closedir(proc);
	return found;
}

void process_boot_id(char *id, size_t size)
{
	read_some("/proc/sys/kernel/random/boot_id", id, size);
	id[strcspn(id, "\n")] = '\0';
}

int process_lock(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

/* Drop escape sequences and control characters; newlines stay. */
static void clean(char *text)
{
	char *to = text;

	for (const char *from = text; *from; from++) {
		if (from[0] == '\033' && from[1] == '[') {
			from += 2;
			from += strspn(from, "0123456789;?");
			if (!*from)
				break;
		} else if (*from == '\n' || (unsigned char)*from >= ' ') {
			*to++ = *from;
		}
	}
	*to = '\0';
}

/* The end of a file as clean text, but nothing before from. False: there is nothing. */
static bool read_tail(const char *path, off_t from, char text[TAIL_BYTES + 1])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = -1;
	off_t size;

	if (fd < 0)
		return false;
	size = lseek(fd, 0, SEEK_END);
	if (size - from > TAIL_BYTES)
		from = size - TAIL_BYTES;
	n = pread(fd, text, TAIL_BYTES, from);
	close(fd);
	if (n <= 0)
		return false;
	text[n] = '\0';
	clean(text);
	return true;
}

void last_words(const char *path, char *words, size_t size)
{
	char text[TAIL_BYTES + 1], *end, *line;

	words[0] = '\0';
	if (!read_tail(path, 0, text))
		return;
	for (end = text + strlen(text); end > text && strchr("\n ", end[-1]); end--)
		;
	*end = '\0';
	line = strrchr(text, '\n');
	line = line ? line + 1 : text;
	snprintf(words, size, "%s", line + strspn(line, " "));
}

bool words_behind(const char *path, off_t from, const char *mark, char *words, size_t size)
{
	char text[TAIL_BYTES + 1], *line;

	line = read_tail(path, from, text) ? strstr(text, mark) : NULL;
	if (!line)
		return false;
	line += strlen(mark);
	snprintf(words, size, "%.*s", (int)strcspn(line, "\n"), line);
	return true;
}
