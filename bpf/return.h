/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The tracepoints syscalls/sys_exit_*: a call that blocks for an hour occupies nothing of ours meanwhile. */
#ifndef FAULTD_RETURN_H
#define FAULTD_RETURN_H

#include "delay.h"

/* The tracepoint's record, the same on every kernel since 4.7. */
struct sys_exit {
	__u64 common;
	__s32 call;
	__u32 pad;
	__s64 result;
};

/* Calls that return in a new thread too, with 0: only the parent's is meant. */
const volatile __u64 returns_twice[MAX_SYSCALL / 64];

/* Whether this return is one that the program will see. ERESTARTSYS and its kin (512..516) never reach it: the call
 * comes again, or ends with EINTR after a signal, which would cut a sleep short anyway. */
static __always_inline int is_return(__u32 call, __s64 result)
{
	if (call >= MAX_SYSCALL)
		return 0;
	if (result <= -512 && result >= -516)
		return 0;
	return result != 0 || !((returns_twice[(call / 64) % (MAX_SYSCALL / 64)] >> (call % 64)) & 1);
}

#endif
