//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* connect: new connections, and datagrams sent with an address, fail with an error of choice. The hooks run in the
 * caller, before anything is sent; they are attached to the target's cgroup, so nobody else pays for them. */
#include "match.h"
#include "peer.h"

/* The helper, taking 64 bits: passed as an int the compiler may zero-extend the errno, and newer verifiers (seen on 7.3)
 * want the whole register in -4095..0. */
static long (*const set_retval)(__s64 error) = (void *)BPF_FUNC_set_retval;

#define ANCESTOR(level) bpf_get_current_ancestor_cgroup_id(level)

/* 0: the call goes on; else the errno (negative) it shall fail with. */
static __always_inline __s64 connect_error(struct bpf_sock_addr *ctx, const struct peer *peer)
{
	struct rule_set *set = find_rule_set(HOOK_CONNECT, ANCESTOR);

	if (!set)
		return 0;
	struct permit permit = permit_read();
	__s64 error = 0;

	for (__u32 i = 0; i < MAX_RULES_PER_SET && i < set->count; i++) {
		__u32 slot;
		struct rule *rule = rule_at(set, i, &permit, &slot);

		if (!rule)
			continue;
		struct stat *stat = stat_of(slot);

		if (!stat)
			continue;
		atomic_inc(&stat->evaluated);
		if (error || rule->action != ACTION_ERRNO || !peer_fits(rule, slot, peer) || !harm_due(rule, stat, 0))
			continue;
		if (rule->error >= 0 || rule->error < -4095) {
			count_not_applied(rule, stat);
			continue;
		}
		count_injected(stat, permit.now);
		error = rule->error;
	}
	return error;
}

static __always_inline int fail_if_due(struct bpf_sock_addr *ctx, const struct peer *peer)
{
	__s64 error = connect_error(ctx, peer);

	barrier_var(error); /* the verifier must see this check, on this register */
	if (error >= 0 || error < -4095)
		return 1;
	set_retval(error);
	return 0;
}

static __always_inline int hook4(struct bpf_sock_addr *ctx)
{
	struct peer peer = {.protocol = ctx->protocol, .port = bpf_ntohs((__u16)ctx->user_port)};

	peer_set4(&peer, ctx->user_ip4);
	return fail_if_due(ctx, &peer);
}

static __always_inline int hook6(struct bpf_sock_addr *ctx)
{
	struct peer peer = {.protocol = ctx->protocol, .port = bpf_ntohs((__u16)ctx->user_port)};

	peer.address[0] = ctx->user_ip6[0];
	peer.address[1] = ctx->user_ip6[1];
	peer.address[2] = ctx->user_ip6[2];
	peer.address[3] = ctx->user_ip6[3];
	return fail_if_due(ctx, &peer);
}

SEC("cgroup/connect4")
int faultd_connect4(struct bpf_sock_addr *ctx)
{
	return hook4(ctx);
}

SEC("cgroup/connect6")
int faultd_connect6(struct bpf_sock_addr *ctx)
{
	return hook6(ctx);
}

SEC("cgroup/sendmsg4")
int faultd_sendmsg4(struct bpf_sock_addr *ctx)
{
	return hook4(ctx);
}

SEC("cgroup/sendmsg6")
int faultd_sendmsg6(struct bpf_sock_addr *ctx)
{
	return hook6(ctx);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
