/* QEMU's command line. */
#include "test.h"

#include <string.h>

#include "qemu_args.h"

static const struct qemu_machine plain = {
	.binary = "/usr/bin/qemu-system-x86_64",
	.name = "web",
	.machine_id = "0123456789abcdef0123456789abcdef",
	.cpus = 3,
	.memory = 768ull << 20,
	.kernel = "/i/vmlinux",
	.initrd = "/i/initrd",
	.cmdline = "net.ifnames=0",
	.disk = "/s/web/disk.qcow2",
	.node = "disk",
	.console = "/s/web/console.log",
	.qmp_fd = 7,
	.identity_fd = 9,
	.net_fd = 11,
};

/* The value behind an option, the n-th time it stands there. */
static const char *value(char **argv, const char *option, int n)
{
	for (; *argv; argv++)
		if (!strcmp(*argv, option) && n-- == 0)
			return argv[1];
	return NULL;
}

static bool has(char **argv, const char *arg)
{
	for (; *argv; argv++)
		if (!strcmp(*argv, arg))
			return true;
	return false;
}

static void says_what_the_machine_is(void **state)
{
	char **argv = qemu_args(&plain);

	assert_string_equal(argv[0], "/usr/bin/qemu-system-x86_64");
	assert_string_equal(value(argv, "-smp", 0), "3");
	assert_string_equal(value(argv, "-m", 0), "size=768M");
	assert_string_equal(value(argv, "-name", 0), "guest=web,debug-threads=on");
	assert_string_equal(value(argv, "-uuid", 0), "01234567-89ab-cdef-0123-456789abcdef");
	assert_string_equal(value(argv, "-kernel", 0), "/i/vmlinux");
	assert_non_null(strstr(value(argv, "-append", 0), "console=ttyS0"));
	assert_non_null(strstr(value(argv, "-append", 0), " net.ifnames=0"));
	assert_non_null(strstr(value(argv, "-append", 0),
			       "systemd.machine_id=0123456789abcdef0123456789abcdef"));
	qemu_args_free(argv);
}

static void is_closed_to_all_but_what_it_names(void **state)
{
	char **argv = qemu_args(&plain);

	assert_true(has(argv, "-nodefaults"));
	assert_true(has(argv, "-no-user-config"));
	assert_string_equal(
		value(argv, "-sandbox", 0),
		"on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	assert_string_equal(value(argv, "-display", 0), "none");
	assert_string_equal(value(argv, "-netdev", 0),
			    "stream,id=net,server=on,addr.type=fd,addr.str=11");
	assert_null(value(argv, "-netdev", 1));
	qemu_args_free(argv);
}

static void hands_its_sockets_down(void **state)
{
	char **argv = qemu_args(&plain);

	assert_string_equal(value(argv, "-chardev", 0),
			    "file,id=console,path=/s/web/console.log,append=on");
	assert_non_null(strstr(value(argv, "-chardev", 1), "id=qmp,fd=7,server=on,wait=off"));
	assert_non_null(strstr(value(argv, "-chardev", 2), "id=identity,fd=9,server=on,wait=off"));
	qemu_args_free(argv);
}

static void chooses_the_processor_by_the_accelerator(void **state)
{
	struct qemu_machine m = plain;
	char **argv = qemu_args(&m);

	assert_int_equal(strncmp(value(argv, "-accel", 0), "tcg,thread=multi", 16), 0);
	assert_string_equal(value(argv, "-cpu", 0), "max");
	qemu_args_free(argv);
	m.kvm = true;
	argv = qemu_args(&m);
	assert_string_equal(value(argv, "-accel", 0), "kvm");
	assert_string_equal(value(argv, "-cpu", 0), "host");
	qemu_args_free(argv);
}

static void goes_on_from_saved_memory(void **state)
{
	struct qemu_machine m = plain;
	char **argv = qemu_args(&m);

	assert_string_equal(value(argv, "-object", 0), "memory-backend-ram,id=mem,size=768M");
	assert_null(value(argv, "-incoming", 0));
	qemu_args_free(argv);
	m.ram = "/t,1/ram";
	argv = qemu_args(&m);
	assert_string_equal(value(argv, "-object", 0),
			    "memory-backend-file,id=mem,size=768M,share=off,mem-path=/t,,1/ram");
	assert_string_equal(value(argv, "-incoming", 0), "defer");
	qemu_args_free(argv);
}

static void doubles_commas_in_paths(void **state)
{
	struct qemu_machine m = plain;
	char **argv;

	m.disk = "/a,b/disk,snapshot=on";
	m.console = "/a,b/console";
	argv = qemu_args(&m);
	assert_non_null(
		strstr(value(argv, "-blockdev", 0), "file.filename=/a,,b/disk,,snapshot=on"));
	assert_non_null(strstr(value(argv, "-chardev", 0), "path=/a,,b/console,append=on"));
	qemu_args_free(argv);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(says_what_the_machine_is),
		cmocka_unit_test(is_closed_to_all_but_what_it_names),
		cmocka_unit_test(hands_its_sockets_down),
		cmocka_unit_test(chooses_the_processor_by_the_accelerator),
		cmocka_unit_test(goes_on_from_saved_memory),
		cmocka_unit_test(doubles_commas_in_paths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
