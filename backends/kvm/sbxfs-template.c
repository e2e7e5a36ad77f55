/*
 * sbxfs-template BUILD CPUS MEMORY DISK [ACCEL]: make a template of the image in the
 * folder BUILD, for machines of that size (bytes), and print its folder. Run by
 * sbxfs-image, which builds the image; the daemon makes those of other sizes itself
 * (template.c). What it needs meanwhile is in a folder of its own below TMPDIR.
 *
 * sbxfs-template --verify FOLDER: is the template in that folder what it was when it was
 * made? One that is not is said so, and not used again.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"
#include "image.h"
#include "list.h"
#include "log.h"
#include "loop.h"
#include "machine.h"
#include "template_sum.h"

extern const struct backend_ops kvm_backend_ops;

static struct loop *loop;
static const char *accel;
static int result = 1;

static void on_state(void *user, const char *id, enum vm_state state, const struct endpoint *to,
		     const struct err *err)
{
}

static void on_gone(void *user, const char *id)
{
}

static void on_ready(void *user, bool ready, const char *why)
{
}

static const struct backend_events events = {
	.state = on_state, .gone = on_gone, .ready = on_ready,
};

static const char *get_key(const struct backend_conf *conf, const char *key)
{
	return !strcmp(key, "accel") ? accel : NULL;
}

static void done(void *user, const char *folder, const struct err *err)
{
	if (err->code)
		fprintf(stderr, "%s\n", err->text);
	else
		printf("%s\n", folder);
	result = err->code ? 1 : 0;
	loop_stop(loop);
}

static void on_signal(void *user, int signo)
{
	result = 128 + signo;
	loop_stop(loop);
}

static int make(const char *build, const struct vm_spec *spec, struct backend *b, struct err *err)
{
	struct kvm *kvm = container_of(b, struct kvm, base);
	struct image *image = xcalloc(1, sizeof(*image));
	int r = image_load(image, build, err);

	if (r == 0 && kvm->unready.code)
		r = err_set(err, kvm->unready.code, "%s", kvm->unready.text);
	if (r == 0)
		r = template_make(kvm, image, spec, done, NULL, err);
	free(image);
	return r;
}

static int work(char **argv, const char *folder, struct err *err)
{
	char *run = xasprintf("%s/run", folder), *state = xasprintf("%s/state", folder);
	const struct backend_conf conf = {
		.state_dir = state, .run_dir = run, .data_dir = folder, .get = get_key,
	};
	struct vm_spec spec = { .image = "template", .tag = "template" };
	struct backend *backend = NULL;
	int r = 0;

	spec.cpus = (unsigned)strtoul(argv[2], NULL, 10);
	spec.memory = strtoull(argv[3], NULL, 10);
	spec.disk = strtoull(argv[4], NULL, 10);
	accel = argv[5];
	if (mkdir(run, 0700) < 0 || mkdir(state, 0700) < 0)
		r = err_sys(err, -errno, "cannot write to %s", folder);
	if (r == 0)
		r = kvm_backend_ops.open(&backend, loop, &conf, &events, NULL, err);
	if (r == 0)
		r = make(argv[1], &spec, backend, err);
	if (r == 0)
		loop_run(loop);
	kvm_backend_ops.close(backend);
	remove_folder(run);
	remove_folder(state);
	free(state);
	free(run);
	return r;
}

static int verify(const char *folder)
{
	char said[512];
	int r = template_sum_verify(folder, said, sizeof(said));

	if (r == -EBADMSG)
		template_spoil(folder);
	if (r < 0)
		fprintf(stderr, "%s\n", said);
	return r < 0;
}

int main(int argc, char **argv)
{
	const char *tmp = getenv("TMPDIR");
	char *folder;
	struct err err = ERR_NONE;

	if (argc == 3 && !strcmp(argv[1], "--verify"))
		return verify(argv[2]);
	if (argc < 5 || argc > 6) {
		fprintf(stderr, "usage: sbxfs-template BUILD CPUS MEMORY DISK [ACCEL]\n"
				"       sbxfs-template --verify TEMPLATE\n");
		return 2;
	}
	folder = xasprintf("%s/sbxfs-template-XXXXXX", tmp && *tmp ? tmp : "/var/tmp");
	loop = loop_create();
	if (!loop || !mkdtemp(folder)) {
		fprintf(stderr, "cannot begin: %s\n", strerror(errno));
		return 1;
	}
	loop_signal(loop, SIGTERM, on_signal, NULL);
	loop_signal(loop, SIGINT, on_signal, NULL);
	loop_signal(loop, SIGHUP, on_signal, NULL);
	if (work(argv, folder, &err) < 0)
		fprintf(stderr, "%s\n", err.text);
	loop_destroy(loop);
	remove_folder(folder);
	free(folder);
	return result;
}
