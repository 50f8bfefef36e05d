/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The few kernel types that delays touch, found by CO-RE, instead of a vmlinux.h of megabytes. */
#ifndef FAULTD_TASK_H
#define FAULTD_TASK_H

#include "faultd.h"
#include <bpf/bpf_core_read.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct thread_info {
	unsigned long flags;
};

struct task_struct {
	struct thread_info thread_info;
	unsigned int flags;
};

struct thread_info___x86 {
	__u32 status;
};

struct task_struct___x86 {
	struct thread_info___x86 thread_info;
};

struct pt_regs___x86 {
	unsigned long r10;
	unsigned long r9;
	unsigned long r8;
	unsigned long bx;
	unsigned long cx;
	unsigned long dx;
	unsigned long si;
	unsigned long di;
	unsigned long bp;
	unsigned long orig_ax;
};

struct pt_regs___arm64 {
	__u64 orig_x0; /* the first argument; regs[0] becomes the result */
	__s32 syscallno;
};

struct user_pt_regs___arm64 {
	__u64 regs[31];
};

struct bpf_map {
	__u32 id;
};

#pragma clang attribute pop

extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;

#define NO_CALL (~0u)
#define PF_IO_WORKER 0x10 /* works for io_uring; its registers are left over from the call that it was made in */

/* The system call that the current thread is in, or NO_CALL: a 32-bit call has another number table. */
static __always_inline __u32 current_call(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	void *regs = (void *)bpf_task_pt_regs(task);

	if (task->flags & PF_IO_WORKER)
		return NO_CALL;
	if (bpf_core_field_exists(struct pt_regs___x86, orig_ax)) {
		const __u32 compat = 2; /* TS_COMPAT */

		if (((struct task_struct___x86 *)task)->thread_info.status & compat)
			return NO_CALL;
		return ((struct pt_regs___x86 *)regs)->orig_ax;
	}
	if (bpf_core_field_exists(struct pt_regs___arm64, syscallno)) {
		const unsigned long compat = 1ul << 22; /* TIF_32BIT */

		if (task->thread_info.flags & compat)
			return NO_CALL;
		return ((struct pt_regs___arm64 *)regs)->syscallno;
	}
	return NO_CALL;
}

#endif
