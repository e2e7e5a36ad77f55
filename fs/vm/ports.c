/*
 * Ports of a sandbox that are reachable from outside.
 *
 * The record says which shall be; the backend is asked when one is opened and again each
 * time the VM comes up, so a backend need not remember them. Where one is reachable
 * is asked of the backend at each read: it may change with a restart.
 */
#include "vm_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

static unsigned index_of(const struct record *r, unsigned port)
{
	unsigned i = 0;

	while (i < r->port_count && r->ports[i] != port)
		i++;
	return i;
}

bool vm_has_port(const struct vm *vm, unsigned port)
{
	return index_of(&vm->record, port) < vm->record.port_count;
}

void vm_ports_each(const struct vm *vm, void (*each)(void *user, unsigned port), void *user)
{
	for (unsigned i = 0; i < vm->record.port_count; i++)
		each(user, vm->record.ports[i]);
}

static int check(struct vm *vm, struct err *err)
{
	int r = vm_check_open(vm, err);

	if (r == 0 && !(vm_caps(vm) & BACKEND_CAP_PORTS))
		r = err_set(err, -ENOSYS, "backend %s opens no ports", vm->record.backend);
	return r;
}

static void insert(struct record *r, unsigned port)
{
	unsigned i = r->port_count++;

	for (; i > 0 && r->ports[i - 1] > port; i--)
		r->ports[i] = r->ports[i - 1];
	r->ports[i] = (uint16_t)port;
}

int vm_port_open(struct vm *vm, const char *name, struct err *err)
{
	size_t digits = strspn(name, "0123456789");
	unsigned long port = strtoul(name, NULL, 10);
	struct record r = vm->record;
	int result = check(vm, err);

	if (result < 0)
		return result;
	if (digits == 0 || digits > 5 || name[digits] || name[0] == '0' || port > 65535)
		return err_set(err, -EINVAL, "a port is a number from 1 to 65535, not \"%s\"",
			       name);
	if (vm_has_port(vm, (unsigned)port))
		return err_set(err, -EEXIST, "port %lu is open already", port);
	if (r.port_count == RECORD_PORTS_MAX)
		return err_set(err, -ENOSPC, "at most %d ports of a sandbox are open",
			       RECORD_PORTS_MAX);
	insert(&r, (unsigned)port);
	result = store_write(vm->fleet->vms_dir, &r, err);
	if (result < 0)
		return result;
	result = vm->backend->ops->port_open(vm->backend, vm_id(vm), (unsigned)port, err);
	if (result < 0) {
		vm_save(vm, NULL);
		return result;
	}
	vm->record = r;
	vm_used(vm);
	vm_touch(vm);
	return 0;
}

int vm_port_close(struct vm *vm, unsigned port, struct err *err)
{
	struct record r = vm->record;
	unsigned i = index_of(&r, port);
	int result = check(vm, err);

	if (result == 0 && i == r.port_count)
		result = err_set(err, -ENOENT, "port %u is not open", port);
	if (result == 0)
		result = vm->backend->ops->port_close(vm->backend, vm_id(vm), port, err);
	if (result < 0)
		return result;
	memmove(r.ports + i, r.ports + i + 1, (r.port_count - i - 1) * sizeof(*r.ports));
	r.port_count--;
	return vm_update(vm, &r, err);
}

void vm_port_url(struct vm *vm, unsigned port, struct buf *out)
{
	size_t before = buf_size(out);

	if (vm->backend && vm->backend->ops->port_url &&
	    vm->backend->ops->port_url(vm->backend, vm_id(vm), port, out) == 0 &&
	    buf_size(out) > before)
		buf_put_u8(out, '\n');
}

/* --- what more a backend knows of a port ------------------------------------------- */

const char *const *vm_port_keys(const struct vm *vm)
{
	static const char *const none[] = { NULL };

	return vm->backend && vm->backend->ops->port_keys ? vm->backend->ops->port_keys : none;
}

void vm_port_get(struct vm *vm, unsigned port, const char *key, struct buf *out)
{
	size_t before = buf_size(out);

	if (vm->backend && vm->backend->ops->port_get)
		vm->backend->ops->port_get(vm->backend, vm_id(vm), port, key, out);
	if (buf_size(out) > before)
		buf_put_u8(out, '\n');
}

int vm_port_set(struct vm *vm, unsigned port, const char *key, const char *value, struct err *err)
{
	int r = check(vm, err);

	if (r == 0 && !vm_has_port(vm, port))
		r = err_set(err, -ESTALE, "port %u is not open any more", port);
	if (r == 0)
		r = vm->backend->ops->port_set(vm->backend, vm_id(vm), port, key, value, err);
	return r;
}

/* --- the VM is up --------------------------------------------------------------------- */

static int ask(struct vm *vm, unsigned port, struct err *err)
{
	return vm->backend->ops->port_open(vm->backend, vm_id(vm), port, err);
}

void ports_ask(struct vm *vm)
{
	struct err err = ERR_NONE;

	if (!(vm_caps(vm) & BACKEND_CAP_PORTS) || vm_is_closed(vm))
		return;
	for (unsigned i = 0; i < vm->record.port_count; i++)
		if (ask(vm, vm->record.ports[i], &err) < 0)
			vm_set_error(vm, "port", "ports", &err);
}
