//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What arrives in a target while faults on its calls run, and what they do not reach: programs of 32 bits, which have another
 * table of calls, and rings of io_uring, whose requests are no calls. It is counted for each of these faults. */
#include "call.h"

#define ANCESTOR(level) bpf_get_current_ancestor_cgroup_id(level)
#define ELF_CLASS 4 /* where it is in the first bytes of a program */
#define ELF_CLASS_32 1

enum arrival {
	ARRIVED_PROGRAM,
	ARRIVED_RING,
};

/* Each part of a fault counts in a slot of its own. */
LOOP_BODY int count_for(const struct rule_ref *ref, const struct permit *permit, enum arrival arrival)
{
	if (!ref || !permit)
		return 0;
	__u32 slot = ref->slot;
	struct rule *rule = rule_at(slot, ref->serial, permit);
	struct stat *stat = rule ? bpf_map_lookup_elem(&faultd_stats, &slot) : 0;
	__u64 calls = 0;

	if (!stat)
		return 0;
	for (__u32 i = 0; i < MAX_SYSCALL / 64; i++)
		calls |= rule->calls[i];
	if (calls)
		atomic_inc(arrival == ARRIVED_RING ? &stat->rings : &stat->programs);
	return 0;
}

/* For each rule of one hook. A function of its own, so that the verifier looks at it once (see LOOP_BODY). */
LOOP_BODY int count_in(__u32 hook, enum arrival arrival)
{
	struct rule_set *set = find_rule_set(hook, ANCESTOR);
	struct permit permit = permit_read();

	for (__u32 i = 0; set && i < MAX_RULES_PER_SET && i < set->count; i++)
		count_for(&set->refs[i], &permit, arrival);
	return 0;
}

static __always_inline void count(enum arrival arrival)
{
	count_in(HOOK_SYSCALL, arrival);
	count_in(HOOK_RESULT, arrival);
	count_in(HOOK_SECURITY, arrival);
}

/* sched_process_exec(task, old_pid, bprm): the current thread has become that program. */
SEC("tp_btf/sched_process_exec")
int faultd_program(__u64 *ctx)
{
	struct linux_binprm *program = (struct linux_binprm *)ctx[2];

	if (BPF_CORE_READ(program, buf[ELF_CLASS]) == ELF_CLASS_32)
		count(ARRIVED_PROGRAM);
	return 0;
}

SEC("tp_btf/io_uring_create")
int faultd_ring(void *ctx)
{
	count(ARRIVED_RING);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
