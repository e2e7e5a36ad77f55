/*
 * What a machine takes on the host. Processor time of its QEMU. Memory as the kernel counts it
 * for QEMU's process: private is what nobody else could share (what the machine has changed,
 * and QEMU's own); the rest is pages of files, of which a template's count once
 * however many machines use them. Disk: the blocks of the layer that it writes to.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "machine.h"

static unsigned long long line_kib(const char *line, const char *key)
{
	unsigned long long kib;
	size_t len = strlen(key);

	return !strncmp(line, key, len) && sscanf(line + len, " %llu kB", &kib) == 1 ? kib : 0;
}

static void print_memory(pid_t pid, struct buf *out)
{
	unsigned long long rss = 0, private = 0;
	char path[64], line[256];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return;
	while (fgets(line, sizeof(line), f)) {
		rss += line_kib(line, "Rss:");
		private += line_kib(line, "Private_Dirty:") + line_kib(line, "Swap:");
	}
	fclose(f);
	buf_printf(out, "memory_private %llu\nmemory_shared %llu\n", private << 10,
		   rss > private ? (rss - private) << 10 : 0);
}

/* Of all its threads, with the kernel's part: fields 14 and 15 of /proc/PID/stat. */
static void print_cpu(pid_t pid, struct buf *out)
{
	unsigned long long user, system, tick = (unsigned long long)sysconf(_SC_CLK_TCK);
	char path[64], line[1024] = "", *at;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return;
	at = fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
	fclose(f);
	if (at && sscanf(at, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user,
			 &system) == 2)
		buf_printf(out, "cpu_seconds %.2f\n", (double)(user + system) / (double)tick);
}

void cost_print(const struct machine *m, struct buf *out)
{
	char *disk = machine_disk(m);
	struct stat st;

	if (m->alive) {
		print_cpu(m->child.pid, out);
		print_memory(m->child.pid, out);
	}
	if (stat(disk, &st) == 0)
		buf_printf(out, "disk_used %llu\n", (unsigned long long)st.st_blocks * 512);
	free(disk);
}
