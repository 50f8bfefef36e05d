//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A pool of TCP connections that is used up: once the target has made so many to peers, the next one fails. A connection has
 * a place from connect until its socket is closed, or the connection is. Those of before are given theirs once, over the
 * list of sockets. */
#include "connection.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* As in connect.c. */
static long (*const set_retval)(__s64 error) = (void *)BPF_FUNC_set_retval;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct net___named {
	struct {
		unsigned int inum;
	} ns;
};

struct sock_common___net {
	struct {
		struct net___named *net;
	} skc_net;
};

struct sock___held {
	void *sk_socket; /* what a descriptor holds; null: nobody has accepted it yet, or everybody has closed it */
};

#pragma clang attribute pop

/* How many places are taken, of rule.high. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} faultd_taken SEC(".maps");

/* Held while a place is looked for, so that two do not refuse each other the last one. In a map of its own: other programs
 * that only give back may not even see a lock. */
struct taking {
	struct bpf_spin_lock lock;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct taking);
} faultd_taking SEC(".maps");

/* 1: the socket has a place. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u64);
} faultd_places SEC(".maps");

/* By local port the network namespace (its inode) where it was last listened on: who has this port there was accepted. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u32);
} faultd_listening SEC(".maps");

static __always_inline __u64 *taken(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&faultd_taken, &zero);
}

/* Takes a place for the socket whose mark this is, whether there is one or not. */
static __always_inline void take(__u64 *count, __u64 *place)
{
	if (!__sync_lock_test_and_set(place, 1))
		__sync_fetch_and_add(count, 1);
}

static __always_inline void give_back(__u64 *place)
{
	__u64 *count = taken();

	if (place && count && __sync_lock_test_and_set(place, 0))
		__sync_fetch_and_add(count, -1ULL);
}

/* Takes a place if there is one; 0: there is none. */
static __always_inline int take_free(const struct rule *rule, __u64 *count, __u64 *place)
{
	__u64 size = rule->high, zero = 0;
	struct taking *taking = bpf_map_lookup_elem(&faultd_taking, &zero);
	int free;

	if (!taking)
		return 0;
	bpf_spin_lock(&taking->lock);
	free = READ_ONCE(*count) < size;
	if (free)
		take(count, place);
	bpf_spin_unlock(&taking->lock);
	return free;
}

/* 0: the connection is made; else the errno (negative) it shall fail with. */
static __always_inline __s64 pool_error(struct bpf_sock_addr *ctx, const struct peer *peer)
{
	struct permit permit = permit_read();
	struct stat *stat;
	struct rule *rule = own_rule(&permit, &stat);

	/* What fails already needs no place. */
	if (!rule || !ctx->sk || bpf_get_retval() < 0)
		return 0;
	atomic_inc(&stat->evaluated);
	if (!peer_fits(rule, fault.slot, peer))
		return 0;
	__u64 *place = bpf_sk_storage_get(&faultd_places, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE), *count = taken();

	if (!place || !count || *place || take_free(rule, count, place))
		return 0;
	__u64 number = harm_due(rule, stat, scope_of(rule));
	__s64 error = number ? fail_with(rule, stat, &permit, number) : 0;

	if (!error)
		take(count, place);
	return error;
}

static __always_inline int fail_if_full(struct bpf_sock_addr *ctx, const struct peer *peer)
{
	__s64 error = pool_error(ctx, peer);

	barrier_var(error); /* the verifier must see this check, on this register */
	if (error >= 0 || error < -4095)
		return 1;
	set_retval(error);
	return 0;
}

SEC("cgroup/connect4")
int faultd_pool4(struct bpf_sock_addr *ctx)
{
	struct peer peer = {.protocol = ctx->protocol, .port = bpf_ntohs((__u16)ctx->user_port)};

	peer_set4(&peer, ctx->user_ip4);
	return fail_if_full(ctx, &peer);
}

SEC("cgroup/connect6")
int faultd_pool6(struct bpf_sock_addr *ctx)
{
	struct peer peer = {.protocol = ctx->protocol, .port = bpf_ntohs((__u16)ctx->user_port)};

	peer.address[0] = ctx->user_ip6[0];
	peer.address[1] = ctx->user_ip6[1];
	peer.address[2] = ctx->user_ip6[2];
	peer.address[3] = ctx->user_ip6[3];
	return fail_if_full(ctx, &peer);
}

SEC("cgroup/sock_release")
int faultd_released(struct bpf_sock *ctx)
{
	give_back(bpf_sk_storage_get(&faultd_places, ctx, 0, 0));
	return 1;
}

/* A connection that was refused, timed out or was reset is over, though its socket may be open still. */
SEC("tp_btf/inet_sock_set_state")
int faultd_over(__u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];

	if ((int)ctx[2] == TCP_CLOSE)
		give_back(bpf_sk_storage_get(&faultd_places, sk, 0, 0));
	return 0;
}

/* Whether the target made this connection and still has it. */
static __always_inline int is_made(struct sock_common *common, __u32 netns)
{
	const __u32 states = 1 << TCP_ESTABLISHED | 1 << TCP_SYN_SENT | 1 << TCP_FIN_WAIT1 | 1 << TCP_FIN_WAIT2 |
			     1 << TCP_CLOSE_WAIT | 1 << TCP_LAST_ACK | 1 << TCP_CLOSING;
	__u32 state = common->skc_state, port = common->skc_num;

	if (state > TCP_CLOSING || !((states >> state) & 1) || !is_of_target(common))
		return 0;
	__u32 *listening = bpf_map_lookup_elem(&faultd_listening, &port);

	return BPF_CORE_READ((struct sock___held *)common, sk_socket) && !(listening && *listening == netns);
}

/* Listening sockets come first in the kernel's list. */
SEC("iter/tcp")
int faultd_count(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct permit permit = permit_read();
	struct peer peer = {};
	struct stat *stat;

	if (!common)
		return 0;
	__u32 netns = BPF_CORE_READ((struct sock_common___net *)common, skc_net.net, ns.inum), port = common->skc_num;

	if (common->skc_state == TCP_LISTEN) {
		bpf_map_update_elem(&faultd_listening, &port, &netns, BPF_ANY);
		return 0;
	}
	struct rule *rule = own_rule(&permit, &stat);

	if (!rule || !is_made(common, netns))
		return 0;
	peer_of_sock((struct sock *)common, &peer);
	if (!peer_fits(rule, fault.slot, &peer))
		return 0;
	__u64 *place = bpf_sk_storage_get(&faultd_places, common, 0, BPF_SK_STORAGE_GET_F_CREATE), *count = taken();

	if (place && count)
		take(count, place);
	return 0;
}
