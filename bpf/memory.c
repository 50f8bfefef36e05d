//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* fmod_ret on should_failslab and should_fail_alloc_page, which the allocators ask before each allocation: any result but 0 and
 * there is no memory. */
#include "filter.h"

#define ANCESTOR(level) bpf_get_current_ancestor_cgroup_id(level)

/* Flags of an allocation (gfp_t), whose numbers differ from kernel to kernel. */
const volatile __u32 gfp_needed;   /* it may sleep and enter file systems and block devices */
const volatile __u32 gfp_nofail;   /* its caller does not look whether it failed */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct task_struct___flags {
	__u32 flags;
};
#pragma clang attribute pop

/* include/linux/sched.h: kernel threads; and sections that work for file systems, block devices or reclaim. */
#define PF_KTHREAD 0x00200000
#define PF_MEMALLOC 0x00000800
#define PF_MEMALLOC_NOFS 0x00040000
#define PF_MEMALLOC_NOIO 0x00080000

/* Whether an allocation may fail without harm to others. One that cannot sleep may be made in an interrupt, for anybody; one
 * inside a file system's transaction would end with a file system that is read-only for all. */
static __always_inline int may_fail(__u32 gfp)
{
	struct task_struct___flags *task = (void *)bpf_get_current_task_btf();

	if ((gfp & gfp_needed) != gfp_needed || (gfp & gfp_nofail))
		return 0;
	return !(task->flags & (PF_KTHREAD | PF_MEMALLOC | PF_MEMALLOC_NOFS | PF_MEMALLOC_NOIO));
}

#define OBJECT ~0u /* instead of the order of pages */

static __always_inline int allocation_is_meant(const struct rule *rule, __u32 order)
{
	if (order == OBJECT)
		return rule->requests & REQUEST_SLAB;
	return (rule->requests & REQUEST_PAGE) && order >= rule->low && order <= rule->high;
}

/* Tries a rule; once the allocation fails, it only counts that the rule was looked at. */
LOOP_BODY int memory_rule(const struct rule_ref *ref, const struct permit *permit, __u32 call, __u32 order, __s64 *error)
{
	if (!ref || !permit || !error)
		return 0;
	struct stat *stat;
	struct rule *rule = rule_of(ref, permit, &stat);

	if (!rule)
		return 0;
	atomic_inc(&stat->evaluated);
	if (*error || !call_fits(rule, call) || !allocation_is_meant(rule, order))
		return 0;
	__u64 number = harm_due(rule, stat, scope_of(rule));

	if (number)
		*error = fail_with(rule, stat, permit, number);
	return 0;
}

/* The error of an allocation of 2^order pages, or of an object. */
static __always_inline __s64 judge(__u32 gfp, __u32 order)
{
	struct rule_set *set = find_rule_set(HOOK_MEMORY, ANCESTOR);
	__s64 error = 0;

	if (!set || !may_fail(gfp))
		return 0;
	struct permit permit = permit_read();
	__u32 call = current_call();

	for (__u32 i = 0; i < MAX_RULES_PER_SET && i < set->count; i++)
		memory_rule(&set->refs[i], &permit, call, order, &error);
	return error;
}

SEC("fmod_ret")
long faultd_slab(__u64 *ctx)
{
	return judge(ctx[1], OBJECT);
}

/* It returns whether the allocation fails: true, not an error. */
SEC("fmod_ret")
long faultd_page(__u64 *ctx)
{
	return judge(ctx[0], ctx[1]) != 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
