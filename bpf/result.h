/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a system call shall return instead of its own result. The includer defines MECHANISM. */
#ifndef FAULTD_RESULT_H
#define FAULTD_RESULT_H

#include "filter.h"

#define ANCESTOR(level) bpf_get_current_ancestor_cgroup_id(level)

/* What was decided about a call. */
struct verdict {
	__u32 action; /* 0: nothing, the call goes on */
	__u32 pad;
	__s64 result; /* of the call; with ACTION_SHORT the count that it shall be made with */
};

#define MOST_COMPAT 0xfffff000LL /* what a 32-bit program takes for a result: more are errors, or do not fit */

/* The result that a call which is not made returns; 0 as well if it cannot be told. */
static __always_inline int pretended(const struct rule *rule, const struct call *call, __s64 *result)
{
	const struct call_shape *shape = shape_of(call->number);

	*result = rule->result;
	if (!(rule->flags & RULE_COUNT) || !shape || !shape->writes)
		return !call->compat || *result <= MOST_COMPAT;
	*result = count_of_call(call);
	return *result >= 0;
}

/* The count that a shorter call is made with: at least 1, and less than what was asked. 0: it cannot be made shorter. */
static __always_inline __s64 shortened(const struct rule *rule, const struct call *call)
{
	__s64 count = count_of_call(call), less = rule->result;

	if (count < 2)
		return 0;
	if (rule->flags & RULE_SHARE)
		less = (count >> 16) * less + (((count & 0xffff) * less) >> 16);
	if (less < 1)
		less = 1;
	return less < count ? less : 0;
}

/* Does what the rule says, for match number n; what cannot be done is counted as not applied. */
static __always_inline void decide_result(const struct rule *rule, struct stat *stat, const struct permit *permit, const struct call *call, __u64 n, struct verdict *verdict)
{
	__s64 result = 0;
	int can = 0;

	if (rule->action == ACTION_ERRNO) {
		result = choose_error(rule, n);
		can = result != 0;
	} else if (rule->action == ACTION_PRETEND) {
		/* fmod_ret cannot return 0: that means "make the call". */
		can = pretended(rule, call, &result) && (result || MECHANISM != MECHANISM_FMOD_RET);
	} else if (rule->action == ACTION_SHORT) {
		result = shortened(rule, call);
		can = result && MECHANISM == MECHANISM_UPROBE;
	}
	if (!can) {
		count_not_applied(rule, stat);
		return;
	}
	count_injected(stat, permit->now);
	verdict->result = result;
	verdict->action = rule->action;
}

/* Tries a rule; once something is decided, it only counts that the rule was looked at. */
LOOP_BODY int result_rule(const struct rule_ref *ref, const struct permit *permit, const struct call *call, struct verdict *verdict)
{
	if (!ref || !permit || !call || !verdict)
		return 0;
	struct stat *stat;
	struct rule *rule = rule_of(ref, permit, &stat);

	if (!rule || rule->mechanism != MECHANISM)
		return 0;
	atomic_inc(&stat->evaluated);
	if (verdict->action || !call_fits(rule, call->number) || !call_is_meant(rule, ref->slot, stat, call))
		return 0;
	__u64 number = harm_due(rule, stat, scope_of(rule));

	if (number)
		decide_result(rule, stat, permit, call, number, verdict);
	return 0;
}

/* What shall become of the call. */
static __always_inline void judge(struct rule_set *set, const struct call *call, struct verdict *verdict)
{
	struct permit permit = permit_read();

	for (__u32 i = 0; i < MAX_RULES_PER_SET && i < set->count; i++)
		result_rule(&set->refs[i], &permit, call, verdict);
}

#endif
