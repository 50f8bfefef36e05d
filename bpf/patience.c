//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* patience: connections that the target opens to peers are given up sooner, or later, than the kernel would by itself. Before it
 * sends the first SYN it asks how long to wait for an answer; all further waits follow from that (net/ipv4/tcp_timer.c,
 * tcp_retransmit_timer). Nothing is kept: a connection that is open has measured how long an answer takes. */
#include "connection.h"
#include "packet.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* When they are given up, in ticks of the kernel's clock. */
const volatile __u64 ticks;

/* Beyond that many doublings a wait is longer than the kernel lets it be, however short the first. */
#define MAX_RETRIES 20

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct netns_ipv4___syn {
	__u8 sysctl_tcp_syn_retries;
	__u8 sysctl_tcp_syn_linear_timeouts; /* since 6.5: so many waits more, which are not doubled */
};

struct net___syn {
	struct netns_ipv4___syn ipv4;
};

struct sock_common___syn {
	struct {
		struct net___syn *net;
	} skc_net;
};

struct inet_connection_sock {
	__u8 icsk_syn_retries; /* 0: as the network namespace says */
};

#pragma clang attribute pop

/* How often the first wait goes into the time until a connection is given up. */
static __always_inline __u64 waits_of(struct sock *sk)
{
	struct net___syn *net = BPF_CORE_READ((struct sock_common___syn *)sk, skc_net.net);
	__u32 retries = BPF_CORE_READ((struct inet_connection_sock *)sk, icsk_syn_retries), linear = 0;

	if (!retries)
		retries = BPF_CORE_READ(net, ipv4.sysctl_tcp_syn_retries);
	if (bpf_core_field_exists(struct netns_ipv4___syn, sysctl_tcp_syn_linear_timeouts))
		linear = BPF_CORE_READ(net, ipv4.sysctl_tcp_syn_linear_timeouts);
	if (retries > MAX_RETRIES)
		retries = MAX_RETRIES;
	return linear + (2ULL << retries) - 1;
}

/* Whether the rule loses what opens this connection: as the packets' own rule decides (packet.c), which counts it. */
static __always_inline int is_lost(struct sock *sk)
{
	struct permit permit = permit_read();
	struct packet packet = {};
	struct stat *stat;
	struct rule *rule = own_rule(&permit, &stat);

	if (!rule || !is_of_target(&sk->__sk_common))
		return 0;
	peer_of_sock(sk, &packet.peer);
	packet.local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	if (!port_fits(rule->traffic.local_port, rule->traffic.local_ports, packet.local_port) || !peer_fits(rule, fault.slot, &packet.peer))
		return 0;
	return roll(rule, 0, flow_of(&packet)) < rule->threshold;
}

SEC("sockops")
int faultd_patience(struct bpf_sock_ops *ctx)
{
	if (ctx->op != BPF_SOCK_OPS_TIMEOUT_INIT || !ctx->is_fullsock || ctx->state != TCP_SYN_SENT || !ctx->sk)
		return 1;
	struct sock *sk = (struct sock *)bpf_skc_to_tcp_sock(ctx->sk);

	if (!sk || !is_lost(sk))
		return 1;
	__u64 waits = waits_of(sk);

	ctx->reply = (ticks + waits - 1) / waits;
	return 1;
}
