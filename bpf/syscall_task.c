//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* task-work (6.18+): a tracepoint, which may not sleep, decides; task work, which may, sleeps on the way back to user
 * mode. The call has had its effect by then; its caller learns the result late. */
#define MECHANISM MECHANISM_TASK_WORK
#include "return.h"
#include "sleep.h"

/* The kernel knows this type by its name; it must not be relocated. */
struct bpf_task_work {
	__u64 __opaque;
} __attribute__((aligned(8)));

typedef int (*bpf_task_work_callback_t)(struct bpf_map *map, void *key, void *value);

/* 6.18 to 6.19 want the last argument, later kernels fill it in themselves and have the other name. */
extern int bpf_task_work_schedule_resume_impl(struct task_struct *task, struct bpf_task_work *tw, void *map__map,
					      bpf_task_work_callback_t callback, void *aux__prog) __ksym __weak;
extern int bpf_task_work_schedule_resume(struct task_struct *task, struct bpf_task_work *tw, void *map__map,
					 bpf_task_work_callback_t callback) __ksym __weak;

struct pending {
	struct bpf_task_work work;
	struct delay delay;
};

/* By thread, from the tracepoint until its task work runs; that is soon, also when the thread is killed. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct pending);
} faultd_pending SEC(".maps");

static int wake_late(struct bpf_map *map, void *key, void *value)
{
	struct pending *pending = value;
	struct delay delay = pending->delay;

	bpf_map_delete_elem(&faultd_pending, key);
	sleep_for(&delay);
	return 0;
}

static __always_inline int schedule(struct pending *pending)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (bpf_task_work_schedule_resume)
		return bpf_task_work_schedule_resume(task, &pending->work, &faultd_pending, wake_late);
	if (bpf_task_work_schedule_resume_impl)
		return bpf_task_work_schedule_resume_impl(task, &pending->work, &faultd_pending, wake_late, 0);
	return -1;
}

SEC("tracepoint/syscalls")
int faultd_return(struct sys_exit *ctx)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct pending new = {};

	if (!is_return(ctx))
		return 0;
	decide(ctx->call, &new.delay);
	if (!new.delay.count)
		return 0;
	if (bpf_map_update_elem(&faultd_pending, &tid, &new, BPF_NOEXIST)) {
		settle(&new.delay, NOT_APPLIED);
		return 0;
	}
	struct pending *pending = bpf_map_lookup_elem(&faultd_pending, &tid);

	if (pending && schedule(pending)) {
		bpf_map_delete_elem(&faultd_pending, &tid);
		settle(&new.delay, NOT_APPLIED);
	}
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
