//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* task-work (6.18+): a program that may not sleep decides when a call returns; task work, which may, sleeps on the way back
 * to user mode. The call has had its effect by then; its caller learns the result late. Where the kernel has trampolines and
 * knows the call's function, the program sits on that (fexit) and nobody else pays; else on the tracepoint, which sends
 * every call of the node the slow way. */
#define MECHANISM MECHANISM_TASK_WORK
#include "return.h"
#include "sleep.h"
#include "targets_only.h"
#include "twin.h"

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
static __always_inline struct pending *prepare(const struct levels *levels, const struct call *call, __s64 result, __u32 tid)
{
	struct pending new = {};

	if (!is_return(call->number, result))
		return 0;
	decide(levels, call, &new.delay);
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

FOR_TARGETS int returned(const struct levels *levels, __u32 number, __u32 compat, __s64 result)
{
	struct call call = {.number = number, .compat = compat};
	__u32 tid = bpf_get_current_pid_tgid();
	struct pending *pending = prepare(levels, &call, result, tid);

	if (pending && bpf_task_work_schedule_resume(bpf_get_current_task_btf(), &pending->work, &faultd_pending, wake_late))
		give_up(pending, tid);
	return 0;
}

FOR_TARGETS int returned_impl(const struct levels *levels, __u32 number, __u32 compat, __s64 result)
{
	struct call call = {.number = number, .compat = compat};
	__u32 tid = bpf_get_current_pid_tgid();
	struct pending *pending = prepare(levels, &call, result, tid);

	if (pending && bpf_task_work_schedule_resume_impl(bpf_get_current_task_btf(), &pending->work, &faultd_pending,
							  wake_late, 0))
		give_up(pending, tid);
	return 0;
}

/* The loader keeps those for the function that the kernel has, on the hook that it takes. */
SEC("tracepoint/syscalls")
int faultd_return(struct sys_exit *ctx)
{
	targets_go_on(ctx, HOOK_SYSCALL);
	return 0;
}

SEC("tracepoint/syscalls")
int faultd_return_target(struct sys_exit *ctx)
{
	struct levels *levels = levels_if_target(HOOK_SYSCALL);

	on_stack_of_thread(ctx);
	return levels ? returned(levels, ctx->call, 0, ctx->result) : 0;
}

SEC("tracepoint/syscalls")
int faultd_return_target_impl(struct sys_exit *ctx)
{
	struct levels *levels = levels_if_target(HOOK_SYSCALL);

	on_stack_of_thread(ctx);
	return levels ? returned_impl(levels, ctx->call, 0, ctx->result) : 0;
}

/* Of fexit, on the call's function. Its context holds the call's one argument, the registers, and the result. */
SEC("fexit")
int faultd_fexit(__u64 *ctx)
{
	targets_go_on(ctx, HOOK_SYSCALL);
	return 0;
}

SEC("fexit")
int faultd_fexit_target(__u64 *ctx)
{
	struct levels *levels = levels_if_target(HOOK_SYSCALL);

	on_stack_of_thread(ctx);
	return levels ? returned(levels, current_call(), 0, ctx[1]) : 0;
}

SEC("fexit")
int faultd_fexit_target_impl(__u64 *ctx)
{
	struct levels *levels = levels_if_target(HOOK_SYSCALL);

	on_stack_of_thread(ctx);
	return levels ? returned_impl(levels, current_call(), 0, ctx[1]) : 0;
}

/* The same on a function that 32-bit programs call. */
SEC("fexit")
int faultd_fexit_twin(__u64 *ctx)
{
	struct levels *levels = levels_if_target(HOOK_SYSCALL);

	return levels ? returned(levels, twin_number, twin_compat, ctx[1]) : 0;
}

SEC("fexit")
int faultd_fexit_twin_impl(__u64 *ctx)
{
	struct levels *levels = levels_if_target(HOOK_SYSCALL);

	return levels ? returned_impl(levels, twin_number, twin_compat, ctx[1]) : 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
