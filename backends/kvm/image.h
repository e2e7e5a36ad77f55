/* Images as sbxfs-image makes them: a folder with a kernel, initrd, root disk and image.json. */
#ifndef SBXFS_KVM_IMAGE_H
#define SBXFS_KVM_IMAGE_H

#include <limits.h>
#include <stdint.h>

struct buf;
struct err;

struct image {
	char dir[PATH_MAX];		/* of this very build, without links */
	char kernel[PATH_MAX];		/* "": its disk boots by itself, without initrd, cmdline */
	char initrd[PATH_MAX];
	char disk[PATH_MAX];
	char cmdline[256];		/* what its kernel wants to be told */
	char user[32];
	uint64_t disk_size, min_memory;	/* bytes; no sandbox can have less */
};

/* The newest build of NAME. -EINVAL: none, or not complete; *err says how to make it. */
int image_find(struct image *, const char *images, const char *name, struct err *err);
/* The build in this folder, as image_find left it in dir. */
int image_load(struct image *, const char *dir, struct err *err);
/* The names of all images, separated by commas; nothing when there are none. */
void image_names(const char *images, struct buf *out);

#endif
