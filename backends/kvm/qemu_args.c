/*
 * QEMU's command line. Nothing comes by default (-nodefaults), so what stands
 * here is all that the guest can touch: one disk, one network card, one serial
 * port for the console, the identity port, random numbers, and pvpanic, by
 * which a guest kernel that dies says so.
 */
#include "qemu_args.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"

#define ARGS_MAX 64

struct args {
	char *v[ARGS_MAX + 1];
	size_t n;
};

static void add(struct args *a, char *arg)
{
	if (a->n == ARGS_MAX)
		abort();		/* a longer list is written here, not asked for */
	a->v[a->n++] = arg;
}

static void add2(struct args *a, const char *option, const char *value)
{
	add(a, xstrdup(option));
	add(a, xstrdup(value));
}

static void __attribute__((format(printf, 3, 4))) addf(struct args *a, const char *option,
						       const char *fmt, ...)
{
	char *value;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&value, fmt, ap) < 0)
		abort();
	va_end(ap);
	add2(a, option, value);
	free(value);
}

/* In QEMU's option lists a comma within a value is written twice. */
static char *escape(const char *path)
{
	struct buf out = BUF_INIT;

	for (; *path; path++) {
		buf_put_u8(&out, (uint8_t)*path);
		if (*path == ',')
			buf_put_u8(&out, ',');
	}
	return buf_take_string(&out);
}

/* Of one name wherever it comes from: what was saved of one kind is loaded into another. */
static void add_memory(struct args *a, const struct qemu_machine *m)
{
	unsigned long long mib = (unsigned long long)(m->memory >> 20);
	char *ram;

	if (!m->ram) {
		addf(a, "-object", "memory-backend-ram,id=mem,size=%lluM", mib);
		return;
	}
	ram = escape(m->ram);
	addf(a, "-object", "memory-backend-file,id=mem,size=%lluM,share=off,mem-path=%s", mib,
	     ram);
	add2(a, "-incoming", "defer");
	free(ram);
}

static void add_machine(struct args *a, const struct qemu_machine *m)
{
	char uuid[37];

	qemu_uuid(m->machine_id, uuid);
	addf(a, "-name", "guest=%s,debug-threads=on", m->name);
	add2(a, "-uuid", uuid);
	add(a, xstrdup("-nodefaults"));
	add(a, xstrdup("-no-user-config"));
	add2(a, "-sandbox",
	     "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	add2(a, "-machine", "q35,graphics=off,sata=off,smbus=off,smm=off,usb=off,vmport=off,"
	     "memory-backend=mem");
	/* What was translated is kept up to tb-size MiB; a boot fills about 100, a login 20. */
	add2(a, "-accel", m->kvm ? "kvm" :
			  m->ram ? "tcg,thread=multi,tb-size=64" : "tcg,thread=multi,tb-size=128");
	add2(a, "-cpu", m->kvm ? "host" : "max");
	addf(a, "-smp", "%u", m->cpus);
	addf(a, "-m", "size=%lluM", (unsigned long long)(m->memory >> 20));
	add_memory(a, m);
	add2(a, "-rtc", "base=utc");
	add2(a, "-display", "none");
}

static void add_kernel(struct args *a, const struct qemu_machine *m)
{
	add2(a, "-kernel", m->kernel);
	add2(a, "-initrd", m->initrd);
	addf(a, "-append", "console=ttyS0 panic=-1 systemd.machine_id=%s%s%s",
	     m->machine_id, m->cmdline[0] ? " " : "", m->cmdline);
}

static void add_disk(struct args *a, const struct qemu_machine *m)
{
	char *disk = escape(m->disk);

	addf(a, "-blockdev",
	     "driver=qcow2,node-name=%s,discard=unmap,file.driver=file,file.filename=%s",
	     m->node, disk);
	addf(a, "-device", "virtio-blk-pci,id=disk,drive=%s", m->node);
	free(disk);
}

static void add_channels(struct args *a, const struct qemu_machine *m)
{
	char *console = escape(m->console);

	addf(a, "-chardev", "file,id=console,path=%s,append=on", console);
	add2(a, "-serial", "chardev:console");
	addf(a, "-chardev", "socket,id=qmp,fd=%d,server=on,wait=off", m->qmp_fd);
	add2(a, "-mon", "chardev=qmp,mode=control");
	add2(a, "-device", "virtio-serial-pci,max_ports=2");
	addf(a, "-chardev", "socket,id=identity,fd=%d,server=on,wait=off", m->identity_fd);
	add2(a, "-device", "virtserialport,chardev=identity,name=org.sbxfs.identity");
	free(console);
}

char **qemu_args(const struct qemu_machine *m)
{
	struct args *a = xcalloc(1, sizeof(*a));

	add(a, xstrdup(m->binary));
	add_machine(a, m);
	if (m->kernel[0])
		add_kernel(a, m);
	add_disk(a, m);
	add_channels(a, m);
	/* A server takes another client when the first one has gone: see uplink.c. */
	addf(a, "-netdev", "stream,id=net,server=on,addr.type=fd,addr.str=%d", m->net_fd);
	addf(a, "-device", "virtio-net-pci,netdev=net,romfile=,host_mtu=%d", QEMU_MTU);
	add2(a, "-device", "virtio-rng-pci");
	add2(a, "-device", "pvpanic-pci");
	/* A new number at each start: by it a guest kernel knows that it is a copy, and reseeds. */
	add2(a, "-device", "vmgenid,guid=auto");
	return a->v;
}

void qemu_args_free(char **argv)
{
	for (char **arg = argv; arg && *arg; arg++)
		free(*arg);
	free(argv);		/* the first member of struct args */
}

void qemu_uuid(const char *machine_id, char uuid[37])
{
	snprintf(uuid, 37, "%.8s-%.4s-%.4s-%.4s-%.12s", machine_id, machine_id + 8,
		 machine_id + 12, machine_id + 16, machine_id + 20);
}
