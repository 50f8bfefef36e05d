/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which delay a system call is due: the delays of all rules that hit add up. Whoever asks must settle the answer.
 * The includer defines MECHANISM. */
#ifndef FAULTD_DELAY_H
#define FAULTD_DELAY_H

#include "filter.h"

#define MAX_DELAY_NS 5000000000ULL /* while a thread sleeps, the kernel frees no sleepable program */

/* A delay and the rules that it is made of. */
struct delay {
	__u64 ns;
	__u64 generation;
	__u32 count;
	__u32 pad;
	struct rule_ref parts[MAX_PARTS];
};

enum outcome {
	NOT_APPLIED,
	INJECTED,
	CUT_SHORT, /* injected, but ended early */
};

#define ANCESTOR(level) bpf_get_current_ancestor_cgroup_id(level)

/* delay +- jitter, evenly. */
static __always_inline __u64 spread(__u64 delay, __u64 jitter, __u64 thrown)
{
	if (jitter > MAX_DELAY_NS)
		jitter = MAX_DELAY_NS;
	/* In steps of 1 us, so that the product fits. */
	delay += ((2 * jitter) >> 10) * thrown >> 22;
	return delay > jitter ? delay - jitter : 0;
}

/* A distribution is a straight line between each two of its quantiles. */
static __always_inline __u64 draw(__u32 slot, __u32 thrown)
{
	struct quantiles *quantiles = bpf_map_lookup_elem(&faultd_quantiles, &slot);
	__u32 step = thrown >> 24;

	if (!quantiles)
		return 0;
	__u64 low = quantiles->ns[step], high = quantiles->ns[step + 1];

	return low + ((high - low) >> 8) * (thrown & 0xffffff) / (1 << 16);
}

/* The delay of match number n of the rule in a slot; with a seed the same each time. */
static __always_inline __u64 roll_delay(const struct rule *rule, __u32 slot, __u64 n)
{
	__u64 delay = READ_ONCE(rule->delay_ns), jitter = READ_ONCE(rule->jitter_ns);

	if (rule->flags & RULE_QUANTILES)
		return draw(slot, dice(rule, n, SALT_DELAY));
	return jitter ? spread(delay, jitter, dice(rule, n, SALT_DELAY)) : delay;
}

/* Counts what became of a delay, for one of its rules, if that is still the same. */
LOOP_BODY int settle_part(const struct rule_ref *ref, enum outcome outcome, __u64 now)
{
	if (!ref)
		return 0;
	__u32 slot = ref->slot; /* before 6.3 a key must lie on the stack */
	struct rule *rule = bpf_map_lookup_elem(&faultd_rules, &slot);
	struct stat *stat = rule ? stat_of(rule) : 0;

	if (!rule || !stat || rule->serial != ref->serial)
		return 0;
	if (outcome == NOT_APPLIED) {
		count_not_applied(rule, stat);
		return 0;
	}
	count_injected(stat, now);
	if (outcome == CUT_SHORT)
		atomic_inc(&stat->cut_short);
	return 0;
}

static __always_inline void settle(const struct delay *delay, enum outcome outcome)
{
	__u64 now = bpf_ktime_get_ns();

	for (__u32 i = 0; i < MAX_PARTS && i < delay->count; i++)
		settle_part(&delay->parts[i], outcome, now);
}

/* Tries a rule, and adds what it gives to the delay. */
LOOP_BODY int delay_rule(const struct rule_ref *ref, const struct permit *permit, const struct call *call, struct delay *delay)
{
	if (!ref || !permit || !call || !delay)
		return 0;
	struct stat *stat;
	struct rule *rule = rule_of(ref, permit, &stat);

	if (!rule || rule->action != ACTION_DELAY || rule->mechanism != MECHANISM)
		return 0;
	atomic_inc(&stat->evaluated);
	if (!call_fits(rule, call->number) || !call_is_meant(rule, ref->slot, stat, call))
		return 0;
	__u64 number = harm_due(rule, stat, scope_of(rule));
	__u32 part = delay->count;

	if (!number)
		return 0;
	if (part >= MAX_PARTS) {
		count_not_applied(rule, stat);
		return 0;
	}
	delay->parts[part] = *ref;
	delay->count = part + 1;
	delay->ns += roll_delay(rule, ref->slot, number);
	return 0;
}

/* The delay that a call of the current thread is due; count is 0 if none is. */
static __always_inline void decide(const struct levels *levels, const struct call *call, struct delay *delay)
{
	struct rule_set *set = rule_set_in(levels, HOOK_SYSCALL, ANCESTOR);

	if (!set)
		return;
	struct permit permit = permit_read();

	delay->generation = permit.generation;
	for (__u32 i = 0; i < MAX_RULES_PER_SET && i < set->count; i++)
		delay_rule(&set->refs[i], &permit, call, delay);
	if (delay->ns > MAX_DELAY_NS)
		delay->ns = MAX_DELAY_NS;
}

#endif
