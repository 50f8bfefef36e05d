//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* redirect: what the target sends to a port goes to a stand-in on the loopback address, a socket of the daemon in the target's
 * network namespace, which does the harm and passes the rest on. Each server has a port of the stand-in to itself, so that
 * the port alone tells whom a packet was meant for, and whom an answer must seem to be from. Nothing is kept for a socket. */
#include "match.h"
#include "loopback.h"

#define ANCESTOR(level) bpf_get_current_ancestor_cgroup_id(level)
/* Asks a rule whether it wants what goes to the port. With lost only counts that it could not be had. */
LOOP_BODY int redirect_rule(const struct rule_ref *ref, const struct permit *permit, __u32 port, int lost)
{
	if (!ref || !permit)
		return 0;
	struct stat *stat;
	struct rule *rule = rule_of(ref, permit, &stat);

	if (!rule || !port_fits(rule->traffic.port, rule->traffic.ports, port))
		return 0;
	if (lost) {
		atomic_inc(&stat->evaluated);
		atomic_inc(&stat->unknown);
	}
	return 1;
}

static __always_inline int any_rule(struct rule_set *set, __u32 port, int lost)
{
	struct permit permit = permit_read();
	int wanted = 0;

	for (__u32 i = 0; i < MAX_RULES_PER_SET && i < set->count; i++)
		wanted |= redirect_rule(&set->refs[i], &permit, port, lost);
	return wanted;
}

/* Takes a port of the stand-in for a server that it has not met yet. 0: there is none. */
static __always_inline __u32 take_port(const struct server_key *key)
{
	struct stand_in_key stand_in_key = {.netns = key->netns, .target = key->target, .family = is_mapped4(key->server.address) ? 4 : 6, .hook = HOOK_REDIRECT};
	struct stand_in *stand_in = bpf_map_lookup_elem(&faultd_stand_ins, &stand_in_key);

	if (!stand_in || READ_ONCE(stand_in->used) >= MAX_SERVERS)
		return 0;
	__u64 i = __sync_fetch_and_add(&stand_in->used, 1);

	if (i >= MAX_SERVERS) {
		__sync_fetch_and_add(&stand_in->used, -1ULL);
		return 0;
	}
	__u32 port = stand_in->ports[i];
	struct stand_in_port port_key = {.netns = key->netns, .family = stand_in_key.family, .port = port};

	if (bpf_map_update_elem(&faultd_stood_in, &port_key, &key->server, BPF_ANY) ||
	    !bpf_map_update_elem(&faultd_servers, key, &port, BPF_NOEXIST))
		return port;
	/* Another processor was faster: the port it took is the server's, and ours rests. */
	__u32 *theirs = bpf_map_lookup_elem(&faultd_servers, key);

	return theirs ? *theirs : 0;
}

/* The port of the stand-in that answers for a server, or 0: it is asked itself. */
static __always_inline __u32 stand_in_for(struct bpf_sock_addr *ctx, const struct server *server)
{
	struct rule_set *set = find_rule_set(HOOK_REDIRECT, ANCESTOR);
	struct bpf_sock *sk = ctx->sk;

	if (!set || !sk || !any_rule(set, server->port, 0))
		return 0;
	/* From that port a server answers. */
	if (sk->src_port == server->port)
		return 0;
	struct server_key key = {.netns = bpf_get_netns_cookie(ctx), .target = set->target, .server = *server};
	__u32 *known = bpf_map_lookup_elem(&faultd_servers, &key);
	__u32 port = 0;

	if (comes_to_loopback(sk, server))
		port = known ? *known : take_port(&key);
	if (!port)
		any_rule(set, server->port, 1);
	return port;
}

/* The server in whose name the address speaks, or none. It harms nobody, and so needs no permit: an answer that is on its way
 * when the fault ends is still understood. */
static __always_inline struct server *stood_in(struct bpf_sock_addr *ctx, __u32 family)
{
	struct stand_in_port key = {.netns = bpf_get_netns_cookie(ctx), .family = family, .port = bpf_ntohs((__u16)ctx->user_port)};

	return bpf_map_lookup_elem(&faultd_stood_in, &key);
}

static __always_inline int restore4(struct bpf_sock_addr *ctx)
{
	struct server *server = ctx->user_ip4 == LOOPBACK4 ? stood_in(ctx, 4) : 0;

	if (server)
		seem_from4(ctx, server);
	return 1;
}

static __always_inline int restore6(struct bpf_sock_addr *ctx)
{
	__u32 address[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};
	struct server *server = 0;

	if (is_mapped4(address) && address[3] == LOOPBACK4)
		server = stood_in(ctx, 4);
	else if (!address[0] && !address[1] && !address[2] && address[3] == bpf_htonl(1))
		server = stood_in(ctx, 6);
	if (server)
		seem_from6(ctx, server);
	return 1;
}

SEC("cgroup/connect4")
int faultd_redirect_connect4(struct bpf_sock_addr *ctx)
{
	return redirect4(ctx);
}

SEC("cgroup/connect6")
int faultd_redirect_connect6(struct bpf_sock_addr *ctx)
{
	return redirect6(ctx);
}

SEC("cgroup/sendmsg4")
int faultd_redirect_sendmsg4(struct bpf_sock_addr *ctx)
{
	return redirect4(ctx);
}

SEC("cgroup/sendmsg6")
int faultd_redirect_sendmsg6(struct bpf_sock_addr *ctx)
{
	return redirect6(ctx);
}

SEC("cgroup/recvmsg4")
int faultd_redirect_recvmsg4(struct bpf_sock_addr *ctx)
{
	return restore4(ctx);
}

SEC("cgroup/recvmsg6")
int faultd_redirect_recvmsg6(struct bpf_sock_addr *ctx)
{
	return restore6(ctx);
}

SEC("cgroup/getpeername4")
int faultd_redirect_getpeername4(struct bpf_sock_addr *ctx)
{
	return restore4(ctx);
}

SEC("cgroup/getpeername6")
int faultd_redirect_getpeername6(struct bpf_sock_addr *ctx)
{
	return restore6(ctx);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
