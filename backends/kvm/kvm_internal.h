/* What kvm.c, kvm_conf.c, kvm_create.c and kvm_describe.c share; nobody else includes it. */
#ifndef SBXFS_KVM_KVM_INTERNAL_H
#define SBXFS_KVM_KVM_INTERNAL_H

#include "list.h"
#include "machine.h"

#define KVM_CPUS_MAX 64
#define KVM_DISK_MAX (16ull << 40)
#define MIB (1ull << 20)

static inline struct kvm *kvm_of(struct backend *b)
{
	return container_of(b, struct kvm, base);
}

/* kvm_conf.c: 0, or < 0 and *err; what the host lacks is in kvm->unready. */
int kvm_take_conf(struct kvm *, const struct backend_conf *, struct err *err);
/* Bytes that the host has; 0: not known. */
uint64_t kvm_host_memory(void);
/* As the ops of backend.h: kvm_create.c, kvm_describe.c. */
int kvm_create(struct backend *, const char *name, const struct vm_spec *, struct err *err);
void kvm_describe(struct backend *, struct buf *out);

#endif
