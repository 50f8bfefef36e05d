/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How a thread sleeps: it touches a page of the holder, which comes from the guard's FUSE file; the guard answers with
 * an error when the delay is over. Only for sleepable programs. */
#ifndef FAULTD_SLEEP_H
#define FAULTD_SLEEP_H

#include "delay.h"
#include "task.h"

#define SLEEPER_PROBES 64

/* Takes a sleeper for this thread, if it is free. */
LOOP_BODY int take_sleeper_at(__u32 slot)
{
	struct sleeper *sleeper = bpf_map_lookup_elem(&faultd_sleepers, &slot);

	return sleeper && !READ_ONCE(sleeper->taken) && __sync_val_compare_and_swap(&sleeper->taken, 0, 1) == 0;
}

/* A sleeper for this thread; its page is *page. Hashing keeps threads from fighting for the first ones. */
static __always_inline struct sleeper *take_sleeper(__u32 tid, __u32 *page)
{
	__u32 start = (__u32)mix(tid);

	for (__u32 i = 0; i < SLEEPER_PROBES; i++) {
		*page = (start + i) % MAX_SLEEPERS;
		if (take_sleeper_at(*page))
			return bpf_map_lookup_elem(&faultd_sleepers, page);
	}
	return 0;
}

/* Touches the page; returns when the guard has answered, or at once when nobody holds it. */
static __always_inline void touch(__u32 page)
{
	__u32 zero = 0;
	char byte;
	struct sleep_config *config = bpf_map_lookup_elem(&faultd_sleep, &zero);

	if (!config || !READ_ONCE(config->holder))
		return;
	struct task_struct *holder = bpf_task_from_pid(READ_ONCE(config->holder));

	if (!holder)
		return;
	void *address = (void *)(READ_ONCE(config->address) + (__u64)page * SLEEP_PAGE);

	bpf_copy_from_user_task(&byte, sizeof(byte), address, holder, 0);
	bpf_task_release(holder);
}

/* Early by more than the clocks explain: by 2 % and 20 us. */
static __always_inline int ended_early(const struct delay *delay, __u64 until)
{
	__u64 now = bpf_ktime_get_ns();

	return now + 20000 < until && now + delay->ns / 50 < until;
}

#define MAX_LATE_NS 1000000
#define MAX_REST_LOOPS (1 << 16)

static long rest_is_over(__u64 i, __u64 *until)
{
	return bpf_ktime_get_ns() >= *until;
}

/* Waking up takes time, of the guard and of the thread. How long at least is learned here, quickly downwards and slowly
 * upwards; the guard answers so much early, and who comes too early for that waits out the rest, some microseconds. So
 * where many wake up at once nobody waits for what others take. A thread that was set free before is let go. */
static __always_inline void arrive(const struct sleeper *sleeper)
{
	__u64 now = bpf_ktime_get_ns(), until = READ_ONCE(sleeper->until_ns), early = READ_ONCE(sleeper->early_ns);
	__u32 zero = 0;
	struct sleep_config *config = bpf_map_lookup_elem(&faultd_sleep, &zero);

	if (!config || now + early < until)
		return;
	__u64 late = now + early - until, known = READ_ONCE(config->late_ns);

	if (late < MAX_LATE_NS)
		config->late_ns = late < known ? known - (known - late) / 4 : known + (late - known) / 32;
	if (now < until)
		bpf_loop(MAX_REST_LOOPS, rest_is_over, &until, 0);
}

/* Until when a thread may sleep: no longer than any of its rules lives. 0: one has ended already. */
static __always_inline __u64 rules_end(const struct delay *delay, __u64 until)
{
	for (__u32 i = 0; i < MAX_PARTS && i < delay->count; i++) {
		struct rule_ref ref = delay->parts[i];
		struct rule *rule = bpf_map_lookup_elem(&faultd_rules, &ref.slot);
		__u64 rule_until = rule && rule->serial == ref.serial ? READ_ONCE(rule->until_ns) : 0;

		if (rule_until < until)
			until = rule_until;
	}
	return until;
}

/* Makes the sleeper known; 0 if one of its rules has ended. Whoever ends a rule marks it first and then looks for its
 * sleepers (Installed.Disarm); here the rules are looked at again after the sleeper can be seen. So one finds the other. */
static __always_inline int publish_sleeper(struct sleeper *sleeper, const struct delay *delay, __u32 tid, __u64 until)
{
	sleeper->generation = delay->generation;
	sleeper->tid = tid;
	for (__u32 i = 0; i < MAX_PARTS; i++)
		sleeper->rule_slots[i] = delay->parts[i].slot;
	sleeper->until_ns = rules_end(delay, until);
	__sync_val_compare_and_swap(&sleeper->rules, 0, delay->count); /* a full barrier */
	return rules_end(delay, until) != 0;
}

/* Sleeps, and says what came of it. */
static __always_inline enum outcome sleep_in(struct sleeper *sleeper, __u32 page, const struct delay *delay, __u32 tid)
{
	__u64 until = bpf_ktime_get_ns() + delay->ns;

	if (publish_sleeper(sleeper, delay, tid, until))
		touch(page);
	if (!READ_ONCE(sleeper->held))
		return NOT_APPLIED;
	arrive(sleeper);
	return ended_early(delay, until) ? CUT_SHORT : INJECTED;
}

/* Sleeps and settles. */
static __always_inline void sleep_for(const struct delay *delay)
{
	__u32 tid = bpf_get_current_pid_tgid(), page = 0;
	struct sleeper *sleeper = take_sleeper(tid, &page);
	enum outcome outcome = NOT_APPLIED;

	if (sleeper) {
		outcome = sleep_in(sleeper, page, delay, tid);
		sleeper->held = 0;
		sleeper->rules = 0;
		__sync_val_compare_and_swap(&sleeper->taken, 1, 0); /* a full barrier: held is cleared before */
	}
	settle(delay, outcome);
}

#endif
