//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* clones (error injection on, or kernels that let sleepable programs on system calls): a program that sleeps is skipped
 * for every other thread on its CPU. So a decider that never sleeps asks, several copies of a sleeper are attached, and
 * the first copy that is free on this CPU sleeps. The closer finds what none of them took. */
#define MECHANISM MECHANISM_CLONES
#include "sleep.h"

const volatile __u32 call_number;

/* By thread, while it is between decider and closer. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct delay);
} faultd_asked SEC(".maps");

/* An entry of this thread that nobody took, from this call or from one whose closer was skipped. */
static __always_inline void close_asked(__u32 tid)
{
	struct delay *asked = bpf_map_lookup_elem(&faultd_asked, &tid);

	if (!asked)
		return;
	if (!asked->taken)
		settle(asked, NOT_APPLIED);
	bpf_map_delete_elem(&faultd_asked, &tid);
}

SEC("fentry")
int faultd_decide(void *ctx)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct call call = {.number = call_number};
	struct levels *levels = levels_if_target(HOOK_SYSCALL);
	struct delay delay = {};

	close_asked(tid);
	if (levels)
		decide(levels, &call, &delay);
	if (delay.count && bpf_map_update_elem(&faultd_asked, &tid, &delay, BPF_ANY))
		settle(&delay, NOT_APPLIED);
	return 0;
}

SEC("fentry.s")
int faultd_sleep_once(void *ctx)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct delay *asked = bpf_map_lookup_elem(&faultd_asked, &tid);

	if (!asked || asked->taken)
		return 0;
	asked->taken = 1;
	struct delay delay = *asked;

	sleep_for(&delay);
	return 0;
}

SEC("fexit")
int faultd_close(void *ctx)
{
	close_asked(bpf_get_current_pid_tgid());
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
