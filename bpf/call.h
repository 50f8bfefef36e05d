/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The system call that the current thread is in: its arguments, and the file that it is about. */
#ifndef FAULTD_CALL_H
#define FAULTD_CALL_H

#include "match.h"
#include "vfs.h"

#define MAX_IOV 64

/* What filters look at. A hook that knows the file fills it in; else the descriptor among the arguments leads to it. */
struct call {
	__u32 number; /* NO_CALL: none, or one that is not of the machine's own table */
	__u32 op;     /* of security hooks (enum op) */
	__u32 compat; /* of a 32-bit program: 1 + how many of its arguments, from the first, are those of the call of this number; 0: it is that call */
	__u32 pad;
	__u64 file;   /* struct file *, or 0 */
	__u64 path;   /* struct path *, or 0: of the file itself, or of the directory that dentry is in */
	__u64 dentry; /* struct dentry *, or 0 */
	__u64 inode;  /* struct inode *, or 0: of hooks that know no more than that */
	__u64 new_path;   /* of a rename, where it goes */
	__u64 new_dentry;
	__u64 socket;  /* struct socket *, or 0 */
	__u64 message; /* struct msghdr * that is sent, or 0 */
};

static __always_inline void *current_regs(void)
{
	return (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
}

static __always_inline __u64 argument_x86(const struct pt_regs___x86 *regs, __u32 i)
{
	switch (i) {
	case 0: return regs->di;
	case 1: return regs->si;
	case 2: return regs->dx;
	case 3: return regs->r10;
	case 4: return regs->r8;
	default: return regs->r9;
	}
}

/* A 32-bit program's (int $0x80 and its like). */
static __always_inline __u32 argument_ia32(const struct pt_regs___x86 *regs, __u32 i)
{
	switch (i) {
	case 0: return regs->bx;
	case 1: return regs->cx;
	case 2: return regs->dx;
	case 3: return regs->si;
	case 4: return regs->di;
	default: return regs->bp;
	}
}

static __always_inline __u64 argument_arm64(void *regs, __u32 i)
{
	const struct user_pt_regs___arm64 *user = regs; /* they come first in pt_regs */

	switch (i) {
	case 0: return ((struct pt_regs___arm64 *)regs)->orig_x0;
	case 1: return user->regs[1];
	case 2: return user->regs[2];
	case 3: return user->regs[3];
	case 4: return user->regs[4];
	default: return user->regs[5];
	}
}

/* Argument i, 0..5, of the call. On x86 they stay in their registers until it returns. */
LOOP_BODY __u64 argument(const struct call *call, __u32 i)
{
	void *regs = current_regs();

	if (!call)
		return 0;
	if (bpf_core_field_exists(struct pt_regs___x86, orig_ax))
		return call->compat ? argument_ia32(regs, i) : argument_x86(regs, i);
	return argument_arm64(regs, i);
}

/* Whether argument i is what it is in the call of this number: a 32-bit call may have two where that has one of 64 bits. */
static __always_inline int has_argument(const struct call *call, __u32 i)
{
	return !call->compat || i + 1 < call->compat;
}

static __always_inline const struct call_shape *shape_of(__u32 call)
{
	return bpf_map_lookup_elem(&faultd_calls, &call);
}

/* The file behind a descriptor of the current process, or 0. */
static __always_inline struct file *file_of(__u32 fd)
{
	struct task_struct___vfs *task = (void *)bpf_get_current_task_btf();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files = BPF_CORE_READ(table, fd), *file = 0;

	if (fd >= BPF_CORE_READ(table, max_fds) || bpf_probe_read_kernel(&file, sizeof(file), files + fd))
		return 0;
	return file;
}

/* The descriptor that a call is about; 0 if it is about none. */
static __always_inline int fd_of_call(const struct call *call, __u32 *fd)
{
	const struct call_shape *shape = shape_of(call->number);

	if (!shape || !shape->fd || !has_argument(call, shape->fd - 1))
		return 0;
	*fd = argument(call, shape->fd - 1);
	return 1;
}

/* How long a word of the program is that makes the call. */
static __always_inline __u32 word_of(const struct call *call)
{
	return call->compat ? 4 : 8;
}

/* The sum of a vector of buffers, each an address and a length; -1: it cannot be read. */
LOOP_BODY __s64 iov_sum(__u64 address, __u64 count, __u32 word)
{
	__s64 sum = 0;

	word &= 4 | 8; /* the verifier must not look at the loop once for each */
	if (count > MAX_IOV)
		return -1;
	for (__u32 i = 0; i < MAX_IOV && i < count; i++) {
		__u64 length[2] = {};

		if (bpf_probe_read_user(length, word, (void *)(address + (2 * i + 1) * word)))
			return -1;
		sum += length[0];
	}
	return sum;
}

/* How many bytes the call shall move; -1: it says nothing of the kind, or it cannot be read. */
static __always_inline __s64 count_of_call(const struct call *call)
{
	const struct call_shape *shape = shape_of(call->number);

	if (!shape)
		return -1;
	if (shape->count)
		return has_argument(call, shape->count - 1) ? argument(call, shape->count - 1) : -1;
	if (shape->iov && has_argument(call, shape->iov))
		return iov_sum(argument(call, shape->iov - 1), argument(call, shape->iov), word_of(call));
	return -1;
}

#endif
