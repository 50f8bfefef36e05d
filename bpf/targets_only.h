/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What only targets go on to is a program of its own, which is loaded once for all calls. Those on the calls are a few instructions each: the
 * verifier takes most of the time between the order and the first harm, and a fault may have a dozen calls. */
#ifndef FAULTD_TARGETS_ONLY_H
#define FAULTD_TARGETS_ONLY_H

#include "match.h"

/* That program; the loader puts it there. Once the daemon is gone the kernel takes it out, and whoever comes by goes on unharmed. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} faultd_targets_only SEC(".maps");

const volatile __u32 never; /* 0 */

/* To be in each such program. Newer kernels (6.13) give a program of these types a stack for each processor, as they let no two threads into it
 * there at once. But that is looked after where a program is attached: two threads of one processor may come here from two calls, and would have
 * one stack. A program with a tail call has none of those (check_max_stack_depth, kernel/bpf/verifier.c). */
static __always_inline void on_stack_of_thread(void *ctx)
{
	if (never)
		bpf_tail_call(ctx, &faultd_targets_only, 0);
}

/* Goes on there if the current thread may be in a target of the hook; it does not come back then. */
static __always_inline void targets_go_on(void *ctx, __u32 hook)
{
	if (levels_if_target(hook))
		bpf_tail_call(ctx, &faultd_targets_only, 0);
}

#endif
