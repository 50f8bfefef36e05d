/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Whose a packet is that comes in by a device, before anybody in the network namespace has seen it. */
#ifndef FAULTD_ARRIVE_H
#define FAULTD_ARRIVE_H

#include "packet.h"
#include "socket.h"
#include <linux/if_packet.h>

#define LOOPBACK 1 /* its number in every network namespace */
#define VLAN_MASK 0xfff

/* How it is told in the network namespace that the program is in; it may change meanwhile. */
enum sockets {
	SOCKETS_NONE = 0,
	SOCKETS_CONNECTED = 1, /* those with a peer: addresses may be rewritten after the program has seen them, and no two connections have the same */
	SOCKETS_ANY = 2,
};

/* Which sockets tell by their cgroup whose a packet is that will come to them. */
volatile __u32 faultd_incoming_sockets = SOCKETS_NONE;
/* The target that has the namespace for itself, so that all is its that no socket says otherwise of; 0: there is none. */
volatile __u64 faultd_incoming_all = 0;

/* Whether a packet that came to this host is for it. Else it is on its way to somebody else, for whom a socket that is bound to any address
 * must not be taken. Of IPv6 a device may say that it forwards nothing while the host does (net/ipv6/ip6_output.c, ip6_forward), so loopback
 * is asked then. */
LOOP_BODY int ends_here(struct __sk_buff *skb, const struct bpf_sock_tuple *tuple, int v4)
{
	if (!tuple)
		return 0;
	struct bpf_fib_lookup fib = {.ifindex = skb->ifindex};
	long found;

	if (v4) {
		fib.family = AF_INET;
		fib.ipv4_src = tuple->ipv4.saddr;
		fib.ipv4_dst = tuple->ipv4.daddr;
	} else {
		fib.family = AF_INET6;
		__builtin_memcpy(fib.ipv6_src, tuple->ipv6.saddr, 16);
		__builtin_memcpy(fib.ipv6_dst, tuple->ipv6.daddr, 16);
	}
	found = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	if (!v4 && found == BPF_FIB_LKUP_RET_FWD_DISABLED) {
		fib.ifindex = LOOPBACK;
		found = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	}
	return found == BPF_FIB_LKUP_RET_NOT_FWDED || found == BPF_FIB_LKUP_RET_FWD_DISABLED;
}

/* A socket that a look-up has found as an address like any other, which the helpers for tc that tell a socket's cgroup are missing for: the
 * kernel lets a program do little with such a pointer but read it back. */
static __always_inline struct sock *address_of(void *found)
{
	void *volatile kept = found;
	struct sock *sk = 0;

	bpf_probe_read_kernel(&sk, sizeof(sk), (void *)&kept);
	return sk;
}

#define SOCKET_ANCESTOR(level) ancestor_of_sock(sk, level)

/* The target that a socket is of; 0: of none. These are global functions for the reason that is said of LOOP_BODY. */
LOOP_BODY __u64 target_of_socket(__u64 address)
{
	struct sock *sk = (struct sock *)address;
	struct rule_set *set = find_rule_set(HOOK_PACKET, SOCKET_ANCESTOR);

	return set ? set->target : 0;
}

/* The target of the socket that a packet's addresses find, and whether that has a peer. For TCP and UDP in two functions, as an instruction of a
 * program may read one kind of socket alone. A connection that is about to be made is its listener's; one that is closed has no owner any more. */
static __always_inline __u64 target_by_tcp(struct __sk_buff *skb, struct bpf_sock_tuple *tuple, int v4, int *connected)
{
	struct bpf_sock *found = bpf_skc_lookup_tcp(skb, tuple, v4 ? sizeof(tuple->ipv4) : sizeof(tuple->ipv6), BPF_F_CURRENT_NETNS, 0);

	if (!found)
		return 0;
	__u32 state = found->state;
	struct sock *sk = address_of(found);

	if (state == BPF_TCP_NEW_SYN_RECV)
		sk = BPF_CORE_READ(sk, __sk_common.skc_listener);
	__u64 target = state == BPF_TCP_TIME_WAIT ? 0 : target_of_socket((__u64)sk);

	bpf_sk_release(found);
	*connected = state != BPF_TCP_LISTEN;
	return target;
}

static __always_inline __u64 target_by_udp(struct __sk_buff *skb, struct bpf_sock_tuple *tuple, int v4, int *connected)
{
	struct bpf_sock *found = bpf_sk_lookup_udp(skb, tuple, v4 ? sizeof(tuple->ipv4) : sizeof(tuple->ipv6), BPF_F_CURRENT_NETNS, 0);

	if (!found)
		return 0;
	__u32 state = found->state;
	__u64 target = target_of_socket((__u64)address_of(found));

	bpf_sk_release(found);
	*connected = state == BPF_TCP_ESTABLISHED; /* so it is for UDP, too */
	return target;
}

/* The addresses that a socket is found by; 0: several may get the packet. */
static __always_inline int read_tuple(struct __sk_buff *skb, __u32 offset, const struct packet *packet, struct bpf_sock_tuple *tuple, int v4)
{
	__be16 sport = bpf_htons(packet->peer.port), dport = bpf_htons(packet->local_port);

	if (v4) {
		tuple->ipv4.saddr = packet->peer.address[3];
		if (read_header(skb, offset + offsetof(struct iphdr, daddr), &tuple->ipv4.daddr))
			return 0;
		tuple->ipv4.sport = sport;
		tuple->ipv4.dport = dport;
		return bpf_ntohl(tuple->ipv4.daddr) >> 28 != 0xe;
	}
	__builtin_memcpy(tuple->ipv6.saddr, packet->peer.address, 16);
	if (read_header(skb, offset + offsetof(struct ipv6hdr, daddr), (struct in6_addr *)tuple->ipv6.daddr))
		return 0;
	tuple->ipv6.sport = sport;
	tuple->ipv6.dport = dport;
	return bpf_ntohl(tuple->ipv6.daddr[0]) >> 24 != 0xff;
}

/* The target that a packet is for, as far as its socket tells. One without a peer may stand in nobody's way: the packet goes on to another host,
 * or its addresses are rewritten. What has a tag is seen at the device of the VLAN, and what is for another device at that. */
LOOP_BODY __u64 target_by_socket(struct __sk_buff *skb, __u32 offset, const struct packet *packet)
{
	struct bpf_sock_tuple tuple = {};
	int v4 = skb->protocol == bpf_htons(ETH_P_IP), connected = 0;
	__u64 target;

	if (!packet || !packet->data || skb->pkt_type != PACKET_HOST || (skb->vlan_present && skb->vlan_tci & VLAN_MASK))
		return 0;
	if (!read_tuple(skb, offset, packet, &tuple, v4))
		return 0;
	target = packet->peer.protocol == IPPROTO_TCP ? target_by_tcp(skb, &tuple, v4, &connected) : target_by_udp(skb, &tuple, v4, &connected);
	if (!target || connected)
		return target;
	return faultd_incoming_sockets == SOCKETS_ANY && ends_here(skb, &tuple, v4) ? target : 0;
}

static __always_inline struct rule_set *rules_of_arrival(struct __sk_buff *skb, __u32 offset, const struct packet *packet)
{
	struct target_key key = {.hook = HOOK_PACKET};

	if (faultd_incoming_sockets != SOCKETS_NONE)
		key.cgroup = target_by_socket(skb, offset, packet);
	if (!key.cgroup)
		key.cgroup = faultd_incoming_all;
	return key.cgroup ? bpf_map_lookup_elem(&faultd_targets, &key) : 0;
}

#endif
