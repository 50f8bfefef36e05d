//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* clones (error injection on, or kernels that let sleepable programs on system calls): a program that sleeps is skipped
 * for every other thread on its CPU. So a decider that never sleeps asks, several copies of a sleeper are attached, and
 * the first copy that is free on this CPU sleeps. The closer finds what none of them took. Everybody who makes the call goes
 * through all of them, so for those who are no target each does as little as it can. */
#define MECHANISM MECHANISM_CLONES
#include "sleep.h"

const volatile __u32 call_number;

/* By thread, from the decider until a sleeper takes it, or the closer. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct delay);
} faultd_asked SEC(".maps");

/* How many entries that has: nearly always none, and then nobody needs to look for his own. */
__u64 faultd_asking;

static __always_inline int ask(__u32 tid, const struct delay *delay)
{
	atomic_inc(&faultd_asking);
	if (!bpf_map_update_elem(&faultd_asked, &tid, delay, BPF_NOEXIST))
		return 1;
	__sync_fetch_and_add(&faultd_asking, -1ULL);
	return 0;
}

/* Takes this thread's entry out, if it has one. */
static __always_inline int take_asked(__u32 tid, struct delay *delay)
{
	struct delay *asked = bpf_map_lookup_elem(&faultd_asked, &tid);

	if (!asked)
		return 0;
	*delay = *asked;
	if (!bpf_map_delete_elem(&faultd_asked, &tid))
		__sync_fetch_and_add(&faultd_asking, -1ULL);
	return 1;
}

/* An entry of this thread that nobody took, from this call or from one whose closer was skipped. */
FOR_TARGETS int close_asked(void)
{
	struct delay delay;

	if (take_asked(bpf_get_current_pid_tgid(), &delay))
		settle(&delay, NOT_APPLIED);
	return 0;
}

FOR_TARGETS int decide_call(const struct levels *levels)
{
	struct call call = {.number = call_number};
	struct delay delay = {};

	decide(levels, &call, &delay);
	if (delay.count && !ask(bpf_get_current_pid_tgid(), &delay))
		settle(&delay, NOT_APPLIED);
	return 0;
}

FOR_TARGETS int sleep_if_asked(void)
{
	struct delay delay;

	if (take_asked(bpf_get_current_pid_tgid(), &delay))
		sleep_for(&delay);
	return 0;
}

SEC("fentry")
int faultd_decide(void *ctx)
{
	struct levels *levels = levels_if_target(HOOK_SYSCALL);

	if (READ_ONCE(faultd_asking))
		close_asked();
	return levels ? decide_call(levels) : 0;
}

SEC("fentry.s")
int faultd_sleep_once(void *ctx)
{
	return READ_ONCE(faultd_asking) ? sleep_if_asked() : 0;
}

/* Where the call ends, and not where it begins, though that would cost less: a thread that sleeps has yet to come by all programs behind its
 * sleeper when these are detached. The kernel frees a program where a call begins without waiting for it (if it may not sleep itself), and then
 * there is no code where the thread goes; over programs where a call ends it lets it jump (kernel/bpf/trampoline.c, bpf_tramp_image_put). */
SEC("fexit")
int faultd_close(void *ctx)
{
	return READ_ONCE(faultd_asking) ? close_asked() : 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
