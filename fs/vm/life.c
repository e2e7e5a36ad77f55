/*
 * How long a sandbox lives: ttl, idle, [limits] age, and the trash behind them.
 *
 * One timer for the fleet, set for what is due first. What is due is computed from
 * the record and the wall clock each time it fires, so nothing depends on the
 * daemon having been there: what ran out meanwhile is seen at the start. The wall clock
 * may jump, and the timer's clock stands still while the host sleeps: it is looked at
 * again every LOOK_MS at the latest.
 *
 * Activity is a job or a change below root/, or touch. The time of the latest is kept in the
 * mtime of <state>/vms/ID/active: one system call a second at most, and one at the end of the
 * daemon, so that only a crash can lose the last second of it. Reads never get here.
 */
#include "vm_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "facts.h"
#include "log.h"
#include "news.h"

#define LOOK_MS 30000
#define STAMP_MS 1000
#define RETRY_MS 60000		/* what its backend refused to remove */
#define NEVER INT64_MAX

/* --- activity ---------------------------------------------------------------- */

static char *active_path(const struct vm *vm)
{
	return xasprintf("%s/%s/active", vm->fleet->vms_dir, vm_id(vm));
}

static void stamp(struct vm *vm)
{
	struct timespec t = { vm->active_at / 1000, vm->active_at % 1000 * 1000000 };
	struct timespec both[2] = { t, t };
	char *path = active_path(vm);
	int fd = -1;

	if (utimensat(AT_FDCWD, path, both, 0) < 0 && errno == ENOENT)
		fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0) {
		futimens(fd, both);
		close(fd);
	}
	vm->stamped = vm->active_at;
	free(path);
}

void life_load(struct vm *vm)
{
	char *path = active_path(vm);
	struct stat st;

	vm->active_at = vm->record.created;
	if (stat(path, &st) == 0)
		vm->active_at = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
	vm->stamped = vm->active_at;
	vm->stop_taken = vm->record.revive;	/* by the daemon before, for all we know */
	free(path);
}

void life_used(struct vm *vm)
{
	int64_t now = wall_ms();

	if (!vm->fleet)
		return;
	vm->active_at = now;
	if (now - vm->stamped >= STAMP_MS || now < vm->stamped)
		stamp(vm);
	life_soon(vm);
}

void life_save(struct vm *vm)
{
	if (vm->active_at != vm->stamped)
		stamp(vm);
}

/* --- what is due ---------------------------------------------------------------- */

static int64_t earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* [limits] age is the owner's word: neither a ttl nor protect goes beyond it. */
static int64_t oldest_age(const struct vm *vm)
{
	int64_t age = vm->fleet->limits.age;

	return age && !vm->record.foreign ? vm->record.created + age : NEVER;
}

static int64_t idle_end(const struct vm *vm)
{
	return vm->record.idle ? vm_active(vm) + vm->record.idle : NEVER;
}

static int64_t ttl_end(const struct vm *vm)
{
	return earlier(vm->record.expires ? vm->record.expires : NEVER, oldest_age(vm));
}

/* When something is to be done about it: ms since the epoch. */
static int64_t due(const struct vm *vm)
{
	const struct record *r = &vm->record;

	int64_t at;

	if (r->destroying || !vm->backend)
		return NEVER;
	if (r->trashed)
		at = r->trashed + vm->fleet->limits.trash;
	else if (r->protect)
		at = oldest_age(vm);
	else
		at = earlier(ttl_end(vm), idle_end(vm));
	return at < vm->not_before ? vm->not_before : at;
}

/* Which of its times is over, and the sentence of it. */
static const char *what_is_over(const struct vm *vm, struct err *why)
{
	const struct record *r = &vm->record;
	int64_t now = wall_ms();
	const char *what = "ttl";
	struct buf text = BUF_INIT;
	int64_t ms = r->ttl;
	char *s;

	if (oldest_age(vm) <= now) {
		what = "age";
		ms = vm->fleet->limits.age;
	} else if (!r->expires || r->expires > now) {
		what = "idle";
		ms = r->idle;
	}
	duration_print(&text, (uint64_t)ms);
	s = buf_take_string(&text);
	err_set(why, -ETIME, "its time is over: %s%s was %s", *what == 'a' ? "[limits] " : "", what,
		s);
	free(s);
	return what;
}

/* --- what is done ---------------------------------------------------------------- */

static void end(struct vm *vm)
{
	struct err why, err = ERR_NONE;
	const char *what = what_is_over(vm, &why);

	news_limit(vm->fleet, what, vm_name(vm), why.text);
	vm_set_error(vm, "end", "", &why);
	vm_ref(vm);
	if (vm_remove(vm, &err) < 0) {
		log_warn("vm=%s %s; it is tried again", vm_name(vm), err.text);
		vm_set_error(vm, "end", "", &err);
		vm->not_before = wall_ms() + RETRY_MS;
	}
	vm_unref(vm);
}

static void drop(struct vm *vm)
{
	vm_ref(vm);
	if (trash_drop(vm, "its time in the trash is over", NULL) < 0)
		vm->not_before = wall_ms() + RETRY_MS;
	vm_unref(vm);
}

static void attend(struct vm *vm)
{
	bool over;

	/* Of one that its backend has not told of yet nothing can be asked. */
	if (!vm->backend || !vm->reported || vm->record.destroying)
		return;
	over = due(vm) <= wall_ms();
	if (vm->record.trashed && over)
		drop(vm);
	else if (vm->record.trashed)
		trash_keep_stopped(vm);
	else if (over)
		end(vm);
	else if (vm->record.revive)
		trash_revive(vm);
	else if (vm->record.idle && vm->active > 0)
		life_used(vm);
}

static void life_tick(struct loop_timer *t)
{
	struct fleet *f = container_of(t, struct fleet, life);
	struct vm *vm, *next;

	f->life_due = NEVER;
	HASH_ITER(hh, f->vms, vm, next)
		attend(vm);
	trash_pressure(f);
	drafts_expire(f);
	HASH_ITER(hh, f->vms, vm, next)
		life_soon(vm);
	life_look(f);
}

static void set_timer(struct fleet *f, int64_t due_at)
{
	int64_t ms = due_at - wall_ms();

	f->life_due = due_at;
	loop_timer_set(f->loop, &f->life, ms < 0 ? 0 : ms < LOOK_MS ? ms + 1 : LOOK_MS, life_tick);
}

void life_soon(struct vm *vm)
{
	int64_t at, now = wall_ms();

	if (!vm->fleet)
		return;
	at = due(vm);
	/* What could not be done now is tried again, but not in a circle. */
	if (at <= now)
		at = now + 1000;
	if (at < vm->fleet->life_due)
		set_timer(vm->fleet, at);
}

void life_look(struct fleet *f)
{
	int64_t at = drafts_due(f);

	if (at < f->life_due)
		set_timer(f, at);
}

void life_attend(struct vm *vm)
{
	if (vm->fleet)
		set_timer(vm->fleet, wall_ms());
}

static void clock_was_moved(void *user)
{
	struct fleet *f = user;

	set_timer(f, wall_ms());
}

void life_start(struct fleet *f)
{
	f->life_due = NEVER;
	wall_watch(clock_was_moved, f);
	clock_was_moved(f);
}

void life_stop(struct fleet *f)
{
	wall_watch(NULL, NULL);
	loop_timer_cancel(&f->life);
}

/* --- ttl and idle as files ------------------------------------------------------------ */

/* What is left, in whole seconds. */
static void left_print(struct buf *out, int64_t end_at)
{
	int64_t left = end_at - wall_ms();

	if (end_at != NEVER)
		duration_print(out, left > 0 ? (uint64_t)(left + 999) / 1000 * 1000 : 0);
}

void vm_ttl_print(struct vm *vm, struct buf *out)
{
	if (vm->fleet)
		left_print(out, ttl_end(vm));
}

void vm_idle_print(struct vm *vm, struct buf *out)
{
	if (vm->fleet)
		left_print(out, idle_end(vm));
}

int life_parse(const char *key, const char *value, int64_t *ms, struct err *err)
{
	uint64_t n = 0;

	if (*value && strcmp(value, "none") && (duration_parse(value, &n) < 0 || n == 0))
		return err_set(err, -EINVAL, "%s is a time such as 30m, 8h or 1h30m, or \"none\", "
			       "not \"%s\"", key, value);
	*ms = (int64_t)n;
	return 0;
}

int vm_set_ttl(struct vm *vm, const char *value, struct err *err)
{
	struct record r = vm->record;
	int result = life_parse("ttl", value, &r.ttl, err);

	if (result < 0)
		return result;
	r.expires = r.ttl ? wall_ms() + r.ttl : 0;
	if (vm->fleet && r.expires > oldest_age(vm))
		return err_set(err, -EDQUOT,
			       "[limits] age ends it before that: cat ttl tells when");
	return vm_update(vm, &r, err);
}

int vm_set_idle(struct vm *vm, const char *value, struct err *err)
{
	struct record r = vm->record;
	int result = life_parse("idle", value, &r.idle, err);

	if (result == 0)
		result = vm_update(vm, &r, err);
	if (result == 0)
		life_used(vm);
	return result;
}
