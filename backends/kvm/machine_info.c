/* What info tells of a machine. */
#include <stdio.h>
#include <string.h>

#include "buf.h"
#include "machine.h"

static void print_stages(const struct machine *m, struct buf *out)
{
	static const char *const names[] = {
		[STAGE_FILES] = "files", [STAGE_QEMU] = "qemu", [STAGE_STATE] = "state",
		[STAGE_UP] = "guest",
	};
	int64_t before = m->stages[STAGE_ASKED];

	if (!before || !m->stages[STAGE_UP])
		return;
	buf_printf(out, "start_ms");
	for (int stage = STAGE_FILES; stage < STAGES; stage++) {
		if (!m->stages[stage])
			continue;
		buf_printf(out, " %s=%lld", names[stage], (long long)(m->stages[stage] - before));
		before = m->stages[stage];
	}
	buf_printf(out, "\n");
}

/* Where it came from, and what becomes of it when it is started. */
static void machine_start_info(const struct machine *m, struct buf *out)
{
	const struct record *rec = &m->rec;

	if (rec->spec.from[0])
		buf_printf(out, "cloned_from \"%s%s%s\"\n", rec->spec.from,
			   rec->spec.from_snapshot[0] ? "/" : "", rec->spec.from_snapshot);
	if (rec->base[0] && !rec->start_why[0])
		buf_printf(out, "start template %s\n", strrchr(rec->base, '/') + 1);
	else if (!rec->spec.from[0] || rec->start_why[0])
		buf_printf(out, "start boot\n");
	if (m->from_pool)
		buf_printf(out, "from_pool yes\n");
	if (rec->start_why[0])
		buf_printf(out, "start_why %s\n", rec->start_why);
	if (m->state == VM_STOPPED && rec->incoming[0])
		buf_printf(out, "suspended yes\n");
	if (rec->snapshot_count)
		buf_printf(out, "snapshots %zu\n", rec->snapshot_count);
}

void machine_info(const struct machine *m, struct buf *out)
{
	const struct record *rec = &m->rec;

	buf_printf(out, "image %s\nimage_dir %s\ncpus %u\nmemory %llu\ndisk %llu\n",
		   rec->spec.image, rec->image_dir, rec->spec.cpus,
		   (unsigned long long)rec->spec.memory, (unsigned long long)rec->spec.disk);
	buf_printf(out, "created %lld\nmachine_id %s\n", (long long)rec->created, rec->machine_id);
	if (rec->accel[0])
		buf_printf(out, "accel %s\n", rec->accel);
	if (rec->accel_why[0])
		buf_printf(out, "accel_why %s\n", rec->accel_why);
	machine_start_info(m, out);
	print_stages(m, out);
	if (m->alive)
		buf_printf(out, "pid %d\n", (int)m->child.pid);
	if (uplink_alive(m))
		buf_printf(out, "net_pid %d\n", (int)uplink_pid(m));
	cost_print(m, out);
	if (loop_timer_is_set(&m->full))
		buf_printf(out, "paused_why the host's disk is full\n");
}
