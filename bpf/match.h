/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who is hit, whether faultd is allowed to, and the dice. Every program goes through here before it does harm. */
#ifndef FAULTD_MATCH_H
#define FAULTD_MATCH_H

#include "maps.h"

#define atomic_inc(p) ((void)__sync_fetch_and_add((p), 1))
#define READ_ONCE(x) (*(volatile typeof(x) *)&(x))

/* A permit to do harm: the generation of the switch, and now; generation 0 is no permit. */
struct permit {
	__u64 generation;
	__u64 now;
};

/* The generation that the switch is armed with; 0: it is off. */
static __always_inline __u64 switch_read(void)
{
	__u32 zero = 0;
	__u64 *kill = bpf_map_lookup_elem(&faultd_kill, &zero);

	return kill ? READ_ONCE(*kill) : 0;
}

/* Switch and lease, read once per call. The deadline is checked for each rule. */
static __always_inline struct permit permit_read(void)
{
	struct permit permit = {.now = bpf_ktime_get_ns()};
	__u32 zero = 0;
	__u64 *lease = bpf_map_lookup_elem(&faultd_lease, &zero);

	if (lease && permit.now < READ_ONCE(*lease))
		permit.generation = switch_read();
	return permit;
}

/* Whether a cgroup can be a target. Nearly all that are none end here, without the look-up in the hash, which costs more than
 * all the rest. */
static __always_inline int may_be_target(const struct levels *levels, __u64 cgroup)
{
	return (levels->ids[cgroup / 64 % (TARGET_BITS / 64)] >> (cgroup % 64)) & 1;
}

/* The rule set of the deepest target among the ancestors, with the levels of the hook. ANCESTOR(level) gives the cgroup id at a level.
 * A set holds the rules of the target's own ancestors too (user space merges them), so the first hit is enough. */
#define rule_set_in(LEVELS, HOOK, ANCESTOR)                                                           \
	({                                                                                           \
		struct rule_set *found = 0;                                                          \
		for (int i = 0; (LEVELS) && !found && i <= MAX_LEVEL && (LEVELS)->plus_one[i]; i++) { \
			__u32 level = (LEVELS)->plus_one[i] - 1;                                     \
			struct target_key key = {.cgroup = ANCESTOR(level), .hook = (HOOK)};         \
			if (may_be_target(LEVELS, key.cgroup))                                       \
				found = bpf_map_lookup_elem(&faultd_targets, &key);                  \
		}                                                                                    \
		found;                                                                               \
	})

#define find_rule_set(HOOK, ANCESTOR)                                                      \
	({                                                                                 \
		__u32 hook_index = (HOOK);                                                 \
		struct levels *levels = bpf_map_lookup_elem(&faultd_levels, &hook_index);  \
		rule_set_in(levels, HOOK, ANCESTOR);                                       \
	})

/* The levels of a hook if the current thread may be in a target; 0 for nearly all that are in none. A hook that everybody goes
 * through asks this first, and has all the rest in a function that is not inlined (FOR_TARGETS): a program saves as many registers as it
 * needs anywhere, for all who run it. */
static __always_inline struct levels *levels_if_target(__u32 hook)
{
	struct levels *levels = bpf_map_lookup_elem(&faultd_levels, &hook);

	if (!levels)
		return 0;
	/* Without a target it asks for level -1, of which nobody is. */
	return may_be_target(levels, bpf_get_current_ancestor_cgroup_id(levels->plus_one[0] - 1)) || levels->plus_one[1] ? levels : 0;
}

#define FOR_TARGETS static __attribute__((noinline))

/* What loops run is a global function: the verifier looks at those once, and not again in each turn of the loop, which
 * took most of the time between the order and the first harm. Their pointers may be null for all it knows. */
#define LOOP_BODY __attribute__((noinline))

/* The rule in a slot, if it still is the one that was meant and the switch is on for it: enough to look at it, not to do harm. */
static __always_inline struct rule *rule_armed(__u32 slot, __u32 serial, __u64 generation)
{
	struct rule *rule = bpf_map_lookup_elem(&faultd_rules, &slot);

	if (!rule || rule->serial != serial || !generation || rule->generation != generation)
		return 0;
	return rule;
}

/* The rule in a slot, if it still is the one that was meant, alive and permitted. */
static __always_inline struct rule *rule_at(__u32 slot, __u32 serial, const struct permit *permit)
{
	struct rule *rule = rule_armed(slot, serial, permit->generation);

	return rule && permit->now < READ_ONCE(rule->until_ns) ? rule : 0;
}

/* The counters of a rule: its own, or those that it shares with the other parts of its fault. */
static __always_inline struct stat *stat_of(const struct rule *rule)
{
	__u32 slot = rule->stat;

	return bpf_map_lookup_elem(&faultd_stats, &slot);
}

/* The rule that is meant, if it is alive and permitted, with its counters. */
static __always_inline struct rule *rule_of(const struct rule_ref *ref, const struct permit *permit, struct stat **stat)
{
	struct rule *rule = rule_at(ref->slot, ref->serial, permit);

	*stat = rule ? stat_of(rule) : 0;
	return *stat ? rule : 0;
}

/* splitmix64's finaliser (Steele, Lea, Flood 2014). */
static __always_inline __u64 mix(__u64 x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ULL;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

/* For match number n: the same number each time with a seed. salt tells several throws for one match apart. */
static __always_inline __u32 dice(const struct rule *rule, __u64 n, __u64 salt)
{
	if (rule->flags & RULE_SEEDED)
		return (__u32)mix((rule->seed ^ salt) + n * 0x9e3779b97f4a7c15ULL);
	return bpf_get_prandom_u32();
}

#define SALT_DELAY ~0ULL
#define SALT_ERROR 0x5851f42d4c957f2dULL

/* A number in [0, 2^32) for match number n; scope is what the rule rolls for: 0, or a flow, thread or process. */
static __always_inline __u32 roll(const struct rule *rule, __u64 n, __u64 scope)
{
	if (rule->flags & (RULE_PER_FLOW | RULE_PER_THREAD | RULE_PER_PROCESS))
		return (__u32)mix(rule->seed + scope);
	return dice(rule, n, 0);
}

/* What the current thread's calls are rolled for. */
static __always_inline __u64 scope_of(const struct rule *rule)
{
	if (rule->flags & RULE_PER_THREAD)
		return mix((__u32)bpf_get_current_pid_tgid());
	if (rule->flags & RULE_PER_PROCESS)
		return mix(bpf_get_current_pid_tgid() >> 32);
	return 0;
}

/* Whether the rate allows an injection now; who gets a yes has used it up. */
static __always_inline int rate_allows(const struct rule *rule, struct stat *stat)
{
	__u64 next = READ_ONCE(stat->next_ns), now = bpf_ktime_get_ns();

	if (!rule->interval_ns)
		return 1;
	return now >= next && __sync_val_compare_and_swap(&stat->next_ns, next, now + rule->interval_ns) == next;
}

/* Counts a match: its number from 1, or 0 if skip_first or every_nth spare it. */
static __always_inline __u64 count_match(const struct rule *rule, struct stat *stat)
{
	__u64 n = __sync_fetch_and_add(&stat->matched, 1);

	if (n < rule->skip_first)
		return 0;
	if (rule->every_nth > 1 && (n - rule->skip_first + 1) % rule->every_nth != 0)
		return 0;
	return n + 1;
}

/* Whether max_hits and rate leave room for what the dice chose; who gets a yes has used it up. */
static __always_inline int has_room(const struct rule *rule, struct stat *stat)
{
	if (rule->max_hits && READ_ONCE(stat->hits) >= rule->max_hits)
		return 0;
	if (!rate_allows(rule, stat))
		return 0;
	if (rule->max_hits && __sync_fetch_and_add(&stat->hits, 1) >= rule->max_hits) {
		__sync_fetch_and_add(&stat->hits, -1ULL);
		return 0;
	}
	return 1;
}

/* Counts a match and decides. If harm is due: the number of the match, from 1, and the caller must count it injected or
 * not_applied. 0: it is spared. */
static __always_inline __u64 harm_due(const struct rule *rule, struct stat *stat, __u64 scope)
{
	__u64 n = count_match(rule, stat);

	if (n && roll(rule, n - 1, scope) < rule->threshold && has_room(rule, stat))
		return n;
	atomic_inc(&stat->spared);
	return 0;
}

/* The error of match number n (as from harm_due), negative; 0: the rule has none that can be returned. */
static __always_inline __s64 choose_error(const struct rule *rule, __u64 n)
{
	__u32 thrown = rule->errors > 1 ? dice(rule, n, SALT_ERROR) : 0;
	__s64 error = 0;

	for (__u32 i = 0; i < MAX_ERRORS; i++)
		if (!error && i < rule->errors && (i + 1 == rule->errors || thrown < rule->error[i].below))
			error = rule->error[i].error;
	return error < 0 && error >= -4095 ? error : 0;
}

static __always_inline void count_injected(struct stat *stat, __u64 now)
{
	if (!READ_ONCE(stat->first_ns))
		stat->first_ns = now;
	atomic_inc(&stat->injected);
}

/* Harm was due and could not be done: a max_hits ticket is given back. */
static __always_inline void count_not_applied(const struct rule *rule, struct stat *stat)
{
	if (rule->max_hits)
		__sync_fetch_and_add(&stat->hits, -1ULL);
	atomic_inc(&stat->not_applied);
}

/* Does the harm of match number n where it is an error: counts it, and gives the error (negative), or 0. */
static __always_inline __s64 fail_with(const struct rule *rule, struct stat *stat, const struct permit *permit, __u64 n)
{
	__s64 error = choose_error(rule, n);

	if (error)
		count_injected(stat, permit->now);
	else
		count_not_applied(rule, stat);
	return error;
}

#endif
