/* The backends compiled in. The first that is ready is the default (fs/options.c). */
#include "backend.h"

#include <string.h>

#ifdef SBXFS_KVM
extern const struct backend_ops kvm_backend_ops;
#endif
#ifdef SBXFS_EXEDEV
extern const struct backend_ops exedev_backend_ops;
#endif
#ifdef SBXFS_FAKE
extern const struct backend_ops fake_backend_ops, fake2_backend_ops;
#endif

const struct backend_ops *const backend_registry[] = {
#ifdef SBXFS_KVM
	&kvm_backend_ops,
#endif
#ifdef SBXFS_EXEDEV
	&exedev_backend_ops,
#endif
#ifdef SBXFS_FAKE
	&fake_backend_ops,
	&fake2_backend_ops,
#endif
	NULL,
};

const struct backend_ops *backend_find(const char *name)
{
	for (const struct backend_ops *const *b = backend_registry; *b; b++)
		if (!strcmp((*b)->name, name))
			return *b;
	return NULL;
}
