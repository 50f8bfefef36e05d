//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* divert: connections that the target opens go to a stand-in on the loopback address, a socket of the daemon in the target's
 * network namespace, which does the harm and passes the rest on. The socket itself keeps whom it was meant for; when its own
 * port is chosen, just before it sends its SYN, that is told to the stand-in. */
#include "match.h"
#include "loopback.h"

#define ANCESTOR(level) bpf_get_current_ancestor_cgroup_id(level)
#define DNS_PORT 53 /* is the kind dns's */

/* What a socket keeps. */
struct meant_for {
	__u64 netns;
	struct server server;
	__u32 stand_in; /* its port, host order */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct meant_for);
} faultd_meant_for SEC(".maps");

/* Asks a rule whether it wants a connection. With lost only counts that it could not be had. */
LOOP_BODY int divert_rule(const struct rule_ref *ref, const struct permit *permit, const struct peer *peer, int lost)
{
	if (!ref || !permit || !peer)
		return 0;
	struct stat *stat;
	struct rule *rule = rule_of(ref, permit, &stat);

	if (!rule || !peer_fits(rule, ref->slot, peer))
		return 0;
	if (lost) {
		atomic_inc(&stat->evaluated);
		atomic_inc(&stat->unknown);
	}
	return 1;
}

static __always_inline int any_rule(struct rule_set *set, const struct peer *peer, int lost)
{
	struct permit permit = permit_read();
	int wanted = 0;

	for (__u32 i = 0; i < MAX_RULES_PER_SET && i < set->count; i++)
		wanted |= divert_rule(&set->refs[i], &permit, peer, lost);
	return wanted;
}

/* Whether the address is that of a stand-in of the kind dns, whose program was here before. */
static __always_inline int is_stand_in(__u64 netns, const struct server *server)
{
	struct stand_in_port key = {.netns = netns, .family = is_mapped4(server->address) ? 4 : 6, .port = server->port};

	return bpf_map_lookup_elem(&faultd_stood_in, &key) != 0;
}

/* The port of the stand-in for a connection to a server, or 0: it goes there itself. */
static __always_inline __u32 stand_in_for(struct bpf_sock_addr *ctx, const struct server *server)
{
	struct bpf_sock *sk = ctx->sk;

	if (ctx->protocol != IPPROTO_TCP || !sk || server->port == DNS_PORT)
		return 0;
	bpf_sk_storage_delete(&faultd_meant_for, sk); /* it may have been connected before */
	struct rule_set *set = find_rule_set(HOOK_DIVERT, ANCESTOR);
	struct peer peer = {.protocol = IPPROTO_TCP, .port = server->port};

	__builtin_memcpy(peer.address, server->address, sizeof(peer.address));
	if (!set || !any_rule(set, &peer, 0))
		return 0;
	struct stand_in_key key = {
		.netns = bpf_get_netns_cookie(ctx), .target = set->target, .family = is_mapped4(server->address) ? 4 : 6, .hook = HOOK_DIVERT,
	};
	if (is_stand_in(key.netns, server))
		return 0;
	struct stand_in *stand_in = comes_to_loopback(sk, server) ? bpf_map_lookup_elem(&faultd_stand_ins, &key) : 0;
	struct meant_for *meant = stand_in ? bpf_sk_storage_get(&faultd_meant_for, sk, 0, BPF_SK_STORAGE_GET_F_CREATE) : 0;

	if (!meant) {
		any_rule(set, &peer, 1);
		return 0;
	}
	meant->netns = key.netns;
	meant->server = *server;
	meant->stand_in = stand_in->ports[0];
	return meant->stand_in;
}

/* The server in whose name the socket's peer speaks, or none. It harms nobody, and so needs no permit. */
static __always_inline struct server *stood_in(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct meant_for *meant = sk ? bpf_sk_storage_get(&faultd_meant_for, sk, 0, 0) : 0;

	return meant && meant->stand_in == bpf_ntohs((__u16)ctx->user_port) ? &meant->server : 0;
}

SEC("cgroup/connect4")
int faultd_divert_connect4(struct bpf_sock_addr *ctx)
{
	return redirect4(ctx);
}

SEC("cgroup/connect6")
int faultd_divert_connect6(struct bpf_sock_addr *ctx)
{
	return redirect6(ctx);
}

SEC("cgroup/getpeername4")
int faultd_divert_getpeername4(struct bpf_sock_addr *ctx)
{
	struct server *server = stood_in(ctx);

	if (server)
		seem_from4(ctx, server);
	return 1;
}

SEC("cgroup/getpeername6")
int faultd_divert_getpeername6(struct bpf_sock_addr *ctx)
{
	struct server *server = stood_in(ctx);

	if (server)
		seem_from6(ctx, server);
	return 1;
}

/* Tells the stand-in whom a connection is meant for that is about to come. */
static __always_inline void announce(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct meant_for *meant = sk ? bpf_sk_storage_get(&faultd_meant_for, sk, 0, 0) : 0;

	if (!meant || meant->stand_in != bpf_ntohl(ctx->remote_port))
		return;
	struct diverted key = {.netns = meant->netns, .port = ctx->local_port, .stand_in = meant->stand_in};
	__u32 address4 = ctx->local_ip4;

	key.address[0] = ctx->local_ip6[0];
	key.address[1] = ctx->local_ip6[1];
	key.address[2] = ctx->local_ip6[2];
	key.address[3] = ctx->local_ip6[3];
	barrier_var(address4); /* else the compiler computes which field it reads, which the verifier refuses */
	if (is_mapped4(meant->server.address)) {
		key.address[0] = 0;
		key.address[1] = 0;
		key.address[2] = bpf_htonl(0xffff);
		key.address[3] = address4;
	}
	/* If there is no room the stand-in knows nobody, and closes the connection. */
	bpf_map_update_elem(&faultd_diverted, &key, &meant->server, BPF_ANY);
}

SEC("sockops")
int faultd_divert_sockops(struct bpf_sock_ops *ctx)
{
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		announce(ctx);
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
