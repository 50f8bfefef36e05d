//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* lsm (6.2+, bpf among the active LSMs): sleeps inside a security hook. Only hooks are here that the kernel calls once
 * per system call and without locks of an inode, a directory or an address space, so that nobody but the caller waits.
 * A hook may run inside other calls too (execve opens files): hook_calls says which ones are its own. */
#define MECHANISM MECHANISM_LSM
#include "sleep.h"
#include "vfs.h"

const volatile __u64 hook_calls[MAX_SYSCALL / 64];

FOR_TARGETS int delay_current(const struct levels *levels, struct file *file)
{
	struct call call = {.number = current_call(), .file = (__u64)file};
	struct delay delay = {};

	if (call.number >= MAX_SYSCALL || !((hook_calls[(call.number / 64) % (MAX_SYSCALL / 64)] >> (call.number % 64)) & 1))
		return 0;
	decide(levels, &call, &delay);
	if (delay.count)
		sleep_for(&delay);
	return 0;
}

#define DELAY_HOOK(HOOK)            \
	SEC("lsm.s/" #HOOK)         \
	int faultd_##HOOK(void *ctx) \
	{                           \
		struct levels *levels = levels_if_target(HOOK_SYSCALL); \
									\
		return levels ? delay_current(levels, 0) : 0; \
	}

DELAY_HOOK(socket_create)
DELAY_HOOK(socket_socketpair)
DELAY_HOOK(socket_bind)
DELAY_HOOK(socket_connect)
DELAY_HOOK(socket_listen)
DELAY_HOOK(socket_accept)
DELAY_HOOK(socket_sendmsg)
DELAY_HOOK(socket_recvmsg)
DELAY_HOOK(socket_shutdown)
DELAY_HOOK(bprm_creds_for_exec)

/* Network file systems look up and open in one step, under the directory's lock: others would wait too. */
static __always_inline int holds_directory(struct file *file)
{
	struct dentry *parent = file->f_path.dentry->d_parent;
	struct inode *inode = parent ? parent->d_inode : 0;

	return !inode || inode->i_op->atomic_open;
}

SEC("lsm.s/file_open")
int faultd_file_open(__u64 *ctx)
{
	struct levels *levels = levels_if_target(HOOK_SYSCALL);
	struct file *file = (struct file *)ctx[0];

	return levels && !holds_directory(file) ? delay_current(levels, file) : 0;
}

/* Attached, this tells whether LSM programs run at all: without bpf in lsm= they attach and never do. */
const volatile __u32 canary_tgid;
__u64 canary_fired;

SEC("lsm/file_open")
int faultd_canary(void *ctx)
{
	if (bpf_get_current_pid_tgid() >> 32 == canary_tgid)
		atomic_inc(&canary_fired);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
