/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How a thread sleeps: it touches a page of the holder, which comes from the guard's FUSE file; the guard answers with
 * an error when the delay is over. Only for sleepable programs. */
#ifndef FAULTD_SLEEP_H
#define FAULTD_SLEEP_H

#include "delay.h"
#include "task.h"

#define SLEEPER_PROBES 64

/* A free sleeper, taken for this thread; its page is *page. Hashing keeps threads from fighting for the first ones. */
static __always_inline struct sleeper *take_sleeper(__u32 tid, __u32 *page)
{
	__u32 start = (__u32)mix(tid);

	for (__u32 i = 0; i < SLEEPER_PROBES; i++) {
		__u32 slot = (start + i) % MAX_SLEEPERS;
		struct sleeper *sleeper = bpf_map_lookup_elem(&faultd_sleepers, &slot);

		if (!sleeper)
			return 0;
		if (READ_ONCE(sleeper->taken) || __sync_val_compare_and_swap(&sleeper->taken, 0, 1) != 0)
			continue;
		*page = slot;
		return sleeper;
	}
	return 0;
}

/* Touches the page; returns when the guard has answered, or at once when nobody holds it. */
static __always_inline int touch(__u32 page)
{
	__u32 zero = 0;
	char byte;
	struct sleep_config *config = bpf_map_lookup_elem(&faultd_sleep, &zero);

	if (!config || !READ_ONCE(config->holder))
		return -1;
	struct task_struct *holder = bpf_task_from_pid(READ_ONCE(config->holder));

	if (!holder)
		return -1;
	void *address = (void *)(READ_ONCE(config->address) + (__u64)page * SLEEP_PAGE);

	bpf_copy_from_user_task(&byte, sizeof(byte), address, holder, 0);
	bpf_task_release(holder);
	return 0;
}

/* Early by more than the clocks explain: by 2 % and 20 us. */
static __always_inline int ended_early(const struct delay *delay, __u64 until)
{
	__u64 now = bpf_ktime_get_ns();

	return now + 20000 < until && now + delay->ns / 50 < until;
}

/* Sleeps and settles. */
static __always_inline void sleep_for(const struct delay *delay)
{
	__u32 tid = bpf_get_current_pid_tgid(), page = 0;
	struct sleeper *sleeper = take_sleeper(tid, &page);

	if (!sleeper) {
		settle(delay, NOT_APPLIED);
		return;
	}
	__u64 until = bpf_ktime_get_ns() + delay->ns;

	sleeper->until_ns = until;
	sleeper->generation = delay->generation;
	sleeper->rule_slot = delay->parts[0].slot;
	sleeper->tid = tid;
	touch(page);
	__u32 held = READ_ONCE(sleeper->held);

	sleeper->held = 0;
	__sync_val_compare_and_swap(&sleeper->taken, 1, 0); /* a full barrier: held is cleared before */
	settle(delay, !held ? NOT_APPLIED : ended_early(delay, until) ? CUT_SHORT : INJECTED);
}

#endif
