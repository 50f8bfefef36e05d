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

/* 6.18 and 6.19 have the first and want its last argument; later kernels have the other, and fill that in themselves. */
extern int bpf_task_work_schedule_resume_impl(struct task_struct *task, struct bpf_task_work *tw, void *map__map,
					      bpf_task_work_callback_t callback, void *aux__prog) __ksym;
extern int bpf_task_work_schedule_resume(struct task_struct *task, struct bpf_task_work *tw, void *map__map,
					 bpf_task_work_callback_t callback) __ksym;

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

/* This thread's entry with the delay that it is due, or 0. */
static __always_inline struct pending *prepare(const struct sys_exit *ctx, __u32 tid)
{
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
	return bpf_map_lookup_elem(&faultd_pending, &tid);
}

static __always_inline void give_up(struct pending *pending, __u32 tid)
{
	settle(&pending->delay, NOT_APPLIED);
	bpf_map_delete_elem(&faultd_pending, &tid);
}

/* The loader keeps the one whose function the kernel has. */
SEC("tracepoint/syscalls")
int faultd_return(struct sys_exit *ctx)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct pending *pending = prepare(ctx, tid);

	if (pending && bpf_task_work_schedule_resume(bpf_get_current_task_btf(), &pending->work, &faultd_pending, wake_late))
		give_up(pending, tid);
	return 0;
}

SEC("tracepoint/syscalls")
int faultd_return_impl(struct sys_exit *ctx)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct pending *pending = prepare(ctx, tid);

	if (pending && bpf_task_work_schedule_resume_impl(bpf_get_current_task_btf(), &pending->work, &faultd_pending,
							  wake_late, 0))
		give_up(pending, tid);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
