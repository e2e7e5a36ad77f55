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

/* Up to size - 1 bytes of a file from off on (< 0: that far from its end), NUL terminated. */
static ssize_t read_some(const char *path, off_t off, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = -1;

	text[0] = '\0';
	if (fd < 0)
		return -1;
	if (off < 0 && lseek(fd, off, SEEK_END) < 0)
		lseek(fd, 0, SEEK_SET);		/* shorter than that */
	n = read(fd, text, size - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return n;
}

uint64_t process_start(pid_t pid)
{
	char path[64], text[1024], *at;
	uint64_t start = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (read_some(path, 0, text, sizeof(text)) <= 0)
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
		n = read_some(path, 0, text, sizeof(text));
		if (n > 0 && has_word(text, (size_t)n, word))
			found = (pid_t)atoi(entry->d_name);
	}
	if (proc)
		closedir(proc);
	return found;
}

void process_boot_id(char *id, size_t size)
{
	read_some("/proc/sys/kernel/random/boot_id", 0, id, size);
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

void last_words(const char *path, const char *but, char *words, size_t size)
{
	char text[TAIL_BYTES + 1], *end, *line;

	words[0] = '\0';
	if (read_some(path, -TAIL_BYTES, text, sizeof(text)) <= 0)
		return;
	clean(text);
	line = but ? strstr(text, but) : NULL;
	if (line) {
		line += strlen(but);
		line[strcspn(line, "\n")] = '\0';
	} else {
		for (end = text + strlen(text); end > text && strchr("\n ", end[-1]); end--)
			;
		*end = '\0';
		line = strrchr(text, '\n');
		line = line ? line + 1 : text;
	}
	snprintf(words, size, "%s", line + strspn(line, " "));
}
