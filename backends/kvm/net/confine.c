/* Rights that are given up: see confine.h. */
#include "confine.h"

#include <errno.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NOBODY 65534
#define LOG_MAX 65536

static int drop_root(void)
{
	if (geteuid() != 0)
		return 0;
	return setgroups(0, NULL) || setresgid(NOBODY, NOBODY, NOBODY) ||
	       setresuid(NOBODY, NOBODY, NOBODY) ? -errno : 0;
}

static int limit(int what, rlim_t most)
{
	const struct rlimit l = { most, most };

	return setrlimit(what, &l) < 0 ? -errno : 0;
}

#define LOAD(field) \
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define DENY(call) \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (call), 0, 1), \
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)

/* A list of what is denied is short; libslirp and libc keep what they may ever need. */
static int deny_calls(void)
{
	static struct sock_filter filter[] = {
		LOAD(arch),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		LOAD(nr),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1),	/* the x32 ABI */
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		DENY(SYS_execve), DENY(SYS_execveat), DENY(SYS_fork), DENY(SYS_vfork),
		DENY(SYS_clone), DENY(SYS_clone3), DENY(SYS_ptrace), DENY(SYS_kill),
		DENY(SYS_tkill), DENY(SYS_process_vm_readv), DENY(SYS_process_vm_writev),
		DENY(SYS_unshare), DENY(SYS_setns), DENY(SYS_mount), DENY(SYS_bpf),
		DENY(SYS_keyctl), DENY(SYS_add_key), DENY(SYS_userfaultfd),
		DENY(SYS_perf_event_open), DENY(SYS_pidfd_send_signal), DENY(SYS_unlink),
		DENY(SYS_unlinkat), DENY(SYS_rename), DENY(SYS_renameat), DENY(SYS_renameat2),
		DENY(SYS_chmod), DENY(SYS_fchmodat), DENY(SYS_truncate), DENY(SYS_ftruncate),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = { sizeof(filter) / sizeof(*filter), filter };

	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0 ? -errno : 0;
}

int confine(void)
{
	int r = drop_root();

	if (r == 0)
		r = limit(RLIMIT_FSIZE, LOG_MAX);
	if (r == 0)
		r = limit(RLIMIT_CORE, 0);
	if (r == 0 && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
		       prctl(PR_SET_DUMPABLE, 0) < 0))
		r = -errno;
#ifdef __x86_64__
	if (r == 0)
		r = deny_calls();
#endif
	return r;
}
