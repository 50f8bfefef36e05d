//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* spin (5.17+): where nothing may sleep, a short delay is waited out on the CPU, capped so that it hurts nobody else. */
#define MECHANISM MECHANISM_SPIN
#include "return.h"
#include "targets_only.h"

#define MAX_SPIN_NS 100000
#define MAX_LOOPS (1 << 23) /* the helper's own limit */

static long until_reached(__u64 i, __u64 *until)
{
	return bpf_ktime_get_ns() >= *until;
}

FOR_TARGETS int return_late(const struct levels *levels, __u32 number, __s64 result)
{
	struct call call = {.number = number};
	struct delay delay = {};

	if (!is_return(number, result))
		return 0;
	decide(levels, &call, &delay);
	if (!delay.count)
		return 0;
	__u64 ns = delay.ns > MAX_SPIN_NS ? MAX_SPIN_NS : delay.ns;
	__u64 until = bpf_ktime_get_ns() + ns;

	bpf_loop(MAX_LOOPS, until_reached, &until, 0);
	settle(&delay, ns < delay.ns ? CUT_SHORT : INJECTED);
	return 0;
}

SEC("tracepoint/syscalls")
int faultd_return(struct sys_exit *ctx)
{
	targets_go_on(ctx, HOOK_SYSCALL);
	return 0;
}

SEC("tracepoint/syscalls")
int faultd_return_target(struct sys_exit *ctx)
{
	struct levels *levels = levels_if_target(HOOK_SYSCALL);

	on_stack_of_thread(ctx);
	return levels ? return_late(levels, ctx->call, ctx->result) : 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
