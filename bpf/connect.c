//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* connect: new sockets, their bindings, new connections, and datagrams sent with an address, fail with an error of choice.
 * The hooks run in the caller, before anything is sent; they are attached to the target's cgroup, so nobody else pays for
 * them. */
#include "match.h"
#include "peer.h"

/* The helper, taking 64 bits: passed as an int the compiler may zero-extend the errno, and newer verifiers (seen on 7.3)
 * want the whole register in -4095..0. */
static long (*const set_retval)(__s64 error) = (void *)BPF_FUNC_set_retval;

#define ANCESTOR(level) bpf_get_current_ancestor_cgroup_id(level)

/* What the caller is about to do. */
struct attempt {
	struct peer peer; /* of a bind or a new socket only the protocol */
	enum op op;
	int sends; /* a datagram, not a connection */
};

static __always_inline int attempt_fits(const struct rule *rule, __u32 slot, const struct attempt *attempt)
{
	if (attempt->op != OP_CONNECT)
		return protocol_fits(&rule->traffic, attempt->peer.protocol);
	return peer_fits(rule, slot, &attempt->peer);
}

/* Whether a rule is for what the hook is about. All sends are served by the security hook, these here too. */
static __always_inline int op_fits(const struct rule *rule, enum op op, int sends)
{
	return ((rule->ops >> op) & 1) && !(sends && ((rule->ops >> OP_SEND) & 1));
}

/* Tries a rule, or with done only counts that it was looked at. The errno (negative) the call shall fail with, or 0. */
LOOP_BODY long connect_rule(const struct rule_ref *ref, const struct permit *permit, const struct attempt *attempt, int done)
{
	if (!ref || !permit || !attempt)
		return 0;
	struct stat *stat;
	struct rule *rule = rule_of(ref, permit, &stat);

	if (!rule || !op_fits(rule, attempt->op, attempt->sends))
		return 0;
	atomic_inc(&stat->evaluated);
	if (done || rule->action != ACTION_ERRNO || !attempt_fits(rule, ref->slot, attempt))
		return 0;
	__u64 number = harm_due(rule, stat, scope_of(rule));

	return number ? fail_with(rule, stat, permit, number) : 0;
}

/* 0: the call goes on; else the errno (negative) it shall fail with. */
static __always_inline __s64 attempt_error(const struct attempt *attempt)
{
	struct rule_set *set = find_rule_set(HOOK_CONNECT, ANCESTOR);

	if (!set)
		return 0;
	struct permit permit = permit_read();
	__s64 error = 0;

	for (__u32 i = 0; i < MAX_RULES_PER_SET && i < set->count; i++) {
		long one = connect_rule(&set->refs[i], &permit, attempt, error != 0);

		if (!error)
			error = one;
	}
	return error;
}

static __always_inline int fail_if_due(const struct attempt *attempt)
{
	__s64 error = attempt_error(attempt);

	barrier_var(error); /* the verifier must see this check, on this register */
	if (error >= 0 || error < -4095)
		return 1;
	set_retval(error);
	return 0;
}

static __always_inline int hook4(struct bpf_sock_addr *ctx, int sends)
{
	struct attempt attempt = {.op = OP_CONNECT, .sends = sends};

	attempt.peer.protocol = ctx->protocol;
	attempt.peer.port = bpf_ntohs((__u16)ctx->user_port);
	peer_set4(&attempt.peer, ctx->user_ip4);
	return fail_if_due(&attempt);
}

static __always_inline int hook6(struct bpf_sock_addr *ctx, int sends)
{
	struct attempt attempt = {.op = OP_CONNECT, .sends = sends};

	attempt.peer.protocol = ctx->protocol;
	attempt.peer.port = bpf_ntohs((__u16)ctx->user_port);
	attempt.peer.address[0] = ctx->user_ip6[0];
	attempt.peer.address[1] = ctx->user_ip6[1];
	attempt.peer.address[2] = ctx->user_ip6[2];
	attempt.peer.address[3] = ctx->user_ip6[3];
	return fail_if_due(&attempt);
}

static __always_inline int without_peer(enum op op, __u32 protocol)
{
	struct attempt attempt = {.op = op};

	attempt.peer.protocol = protocol;
	return fail_if_due(&attempt);
}

SEC("cgroup/connect4")
int faultd_connect4(struct bpf_sock_addr *ctx)
{
	return hook4(ctx, 0);
}

SEC("cgroup/connect6")
int faultd_connect6(struct bpf_sock_addr *ctx)
{
	return hook6(ctx, 0);
}

SEC("cgroup/sendmsg4")
int faultd_sendmsg4(struct bpf_sock_addr *ctx)
{
	return hook4(ctx, 1);
}

SEC("cgroup/sendmsg6")
int faultd_sendmsg6(struct bpf_sock_addr *ctx)
{
	return hook6(ctx, 1);
}

SEC("cgroup/bind4")
int faultd_bind4(struct bpf_sock_addr *ctx)
{
	return without_peer(OP_BIND, ctx->protocol);
}

SEC("cgroup/bind6")
int faultd_bind6(struct bpf_sock_addr *ctx)
{
	return without_peer(OP_BIND, ctx->protocol);
}

SEC("cgroup/sock_create")
int faultd_socket(struct bpf_sock *ctx)
{
	return without_peer(OP_SOCKET, ctx->protocol);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
