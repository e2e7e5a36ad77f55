/* What lies in the folder of a machine, and what its console says last: see machine.h. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "layer.h"
#include "log.h"
#include "machine.h"
#include "process.h"

char *machine_path(const struct machine *m, const char *file)
{
	return xasprintf("%s/%s", m->dir, file);
}

char *machine_disk(const struct machine *m)
{
	if (!m->rec.layer[0])
		return machine_path(m, FILE_DISK);
	return layer_file(m->kvm, m->rec.layer, LAYER_DISK);
}

void machine_node(const struct machine *m, char node[24])
{
	snprintf(node, 24, "%s%s", m->rec.layer[0] ? "layer-" : "disk", m->rec.layer);
}

char *machine_read(const struct machine *m, const char *file)
{
	char *path = machine_path(m, file), *text = NULL;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = -1;

	free(path);
	if (fd < 0)
		return NULL;
	text = xcalloc(1, 8192);
	n = read(fd, text, 8191);
	close(fd);
	if (n > 0)
		return text;
	free(text);
	return NULL;
}

char *machine_socket(const struct machine *m, const char *end)
{
	return xasprintf("%s.%s", m->rec.name, end);
}

bool machine_kvm(const struct machine *m)
{
	return !strcmp(m->rec.accel, "kvm");
}

void machine_console_end(const struct machine *m, char *said, size_t size)
{
	char *path = machine_path(m, FILE_CONSOLE);

	if (!machine_panicked(m, said, size))
		last_words(path, said, size);
	free(path);
}

bool machine_panicked(const struct machine *m, char *said, size_t size)
{
	char *path = machine_path(m, FILE_CONSOLE);
	bool found;

	found = words_behind(path, m->console_from, "Kernel panic - not syncing: ", said, size);
	free(path);
	return found;
}

void machine_mark_console(struct machine *m)
{
	char *path = machine_path(m, FILE_CONSOLE);
	struct stat st;

	m->console_from = stat(path, &st) == 0 ? st.st_size : 0;
	free(path);
}

int machine_save(struct machine *m)
{
	struct err err;
	int r = record_save(&m->rec, m->dir, &err);

	if (r < 0)
		log_error("vm=%s %s", m->rec.name, err.text);
	return r;
}
