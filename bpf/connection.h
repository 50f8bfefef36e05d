/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* TCP connections that a target has now. Objects that look at them are loaded once for each fault, whose numbers are set
 * before, so that what they note about sockets is its own. */
#ifndef FAULTD_CONNECTION_H
#define FAULTD_CONNECTION_H

#include "socket.h"

#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_FIN_WAIT1 4
#define TCP_FIN_WAIT2 5
#define TCP_CLOSE 7
#define TCP_CLOSE_WAIT 8
#define TCP_LAST_ACK 9
#define TCP_LISTEN 10
#define TCP_CLOSING 11

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

#pragma clang attribute pop

/* The rule, and where its target is in the tree. */
const volatile struct rule_ref fault;
const volatile __u32 target_level;
const volatile __u64 target_cgroup;

/* The fault's rule, if it is alive and permitted, with its counters. */
static __always_inline struct rule *own_rule(const struct permit *permit, struct stat **stat)
{
	struct rule_ref ref = {.slot = fault.slot, .serial = fault.serial};

	return rule_of(&ref, permit, stat);
}

static __always_inline int is_of_target(struct sock_common *common)
{
	return ancestor_of_sock((struct sock *)common, target_level) == target_cgroup;
}

#endif
