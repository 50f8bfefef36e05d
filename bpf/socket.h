/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The kernel's sockets, as far as faultd looks at them; CO-RE finds the fields. */
#ifndef FAULTD_SOCKET_H
#define FAULTD_SOCKET_H

#include "peer.h"
#include "task.h"

#define AF_INET 2
#define AF_INET6 10

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	int level;
	struct kernfs_node *kn;
	struct cgroup *ancestors[];
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

struct sock;

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num; /* the local port, in host order */
	__u16 skc_family;
	volatile __u8 skc_state;
	int skc_bound_dev_if;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	struct sock *skc_listener; /* of a connection that is about to be made */
};

struct sock {
	struct sock_common __sk_common;
	__u16 sk_protocol;
	struct sock_cgroup_data sk_cgrp_data;
};

struct socket___inet {
	struct sock *sk;
};

struct msghdr {
	void *msg_name;
};

#pragma clang attribute pop

/* Of an IPv4 or IPv6 socket; the port is 0 while it has no peer. */
static __always_inline void peer_of_sock(struct sock *sk, struct peer *peer)
{
	peer->protocol = BPF_CORE_READ(sk, sk_protocol);
	peer->port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET)
		peer_set4(peer, BPF_CORE_READ(sk, __sk_common.skc_daddr));
	else
		BPF_CORE_READ_INTO(&peer->address, sk, __sk_common.skc_v6_daddr);
}

/* The cgroup id, at a level of the tree, of the cgroup that a socket was made in; 0: it lies above. */
static __always_inline __u64 ancestor_of_sock(struct sock *sk, __u32 level)
{
	struct cgroup *cgroup = BPF_CORE_READ(sk, sk_cgrp_data.cgroup), *ancestor = 0;
	const char *ancestors = (const char *)cgroup + bpf_core_field_offset(struct cgroup, ancestors);

	if (!cgroup || BPF_CORE_READ(cgroup, level) < (int)level)
		return 0;
	if (bpf_probe_read_kernel(&ancestor, sizeof(ancestor), ancestors + level * sizeof(ancestor)))
		return 0;
	return BPF_CORE_READ(ancestor, kn, id);
}

/* An address in the kernel's memory, as sockaddr_in or sockaddr_in6; 0: it is none. */
static __always_inline int peer_of_name(const void *name, struct peer *peer)
{
	struct sockaddr_in6 address = {};

	if (bpf_probe_read_kernel(&address, sizeof(struct sockaddr_in), name))
		return 0;
	peer->port = bpf_ntohs(address.sin6_port);
	if (address.sin6_family == AF_INET) {
		peer_set4(peer, ((struct sockaddr_in *)&address)->sin_addr.s_addr);
		return 1;
	}
	if (address.sin6_family != AF_INET6 || bpf_probe_read_kernel(&address, sizeof(address), name))
		return 0;
	__builtin_memcpy(peer->address, &address.sin6_addr, sizeof(peer->address));
	return 1;
}

#endif
