/*
 * The disks of machines, as layers: a layer is a folder state_dir/.layers/ID with
 *
 *	layer.json	parent: the layer that its disk lies over; "" none
 *	disk.qcow2	what was written since, by the one machine whose layer it is
 *	ram, state	a machine as it stood when this disk was its (save.c); or not
 *
 * A layer that another one lies over, or that a snapshot is of, is never written
 * to again. Nobody counts who needs a layer: whatever no record and no needed
 * layer leads to is garbage, at any moment, and so after any crash.
 */
#ifndef SBXFS_KVM_LAYER_H
#define SBXFS_KVM_LAYER_H

#include <stdbool.h>
#include <stdint.h>

#include "record.h"

struct err;
struct kvm;

#define LAYER_DISK "disk.qcow2"
#define LAYER_RAM "ram"
#define LAYER_STATE "state"
#define LAYER_SAVED "saved.json"	/* which machines can take the state in */

/* The folder of a layer, or a file of it; free it. */
char *layer_folder(const struct kvm *, const char *id);
char *layer_file(const struct kvm *, const char *id, const char *file);
/*
 * A new layer over parent ("": over a disk that is no layer), with all but its
 * disk, on the disk. id is filled in. 0, or < 0 with *err.
 */
int layer_make(struct kvm *, const char *parent, char id[LAYER_ID], struct err *err);
/* Has it got a saved machine? */
bool layer_has_state(const struct kvm *, const char *id);
/* Say which QEMU_MACHINE_VERSION a state in that folder is of. 0, or < 0 and *err. */
int layer_set_machine(const char *folder, unsigned version, struct err *err);
/* As it was said, or stands in the description of a template; 1 where nothing is. */
unsigned layer_machine(const char *folder);
/* The bytes that it takes on the host. */
uint64_t layer_size(const struct kvm *, const char *id);
/*
 * Remove what nobody needs: layers, and saved machines of layers that only disks
 * lie over. Not while a record is damaged: nobody knows what it needs.
 */
void layers_collect(struct kvm *);

#endif
