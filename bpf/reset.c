//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Established TCP connections of a target are reset: this is run for each socket of a network namespace, round by round, and
 * decides which one is due. Where the kernel lets programs destroy sockets (6.5+) that is done here; else the sockets are
 * listed, and user space does it. */
#include "connection.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct tcp_sock {
	__u64 bytes_received;
	__u64 bytes_acked;
};

#pragma clang attribute pop

extern int bpf_sock_destroy(struct sock_common *sock) __ksym __weak;

/* From when on a connection is due; both 0: always. */
const volatile __u64 due_age_ns;
const volatile __u64 due_bytes;

struct note {
	__u64 seen_ns; /* for the first time */
	__u64 decided; /* the dice were thrown */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct note);
} faultd_notes SEC(".maps");

/* As netlink names a connection (struct inet_diag_sockid), after its family. */
struct listed {
	__u32 family;
	__be16 local_port;
	__be16 peer_port;
	__be32 local[4];
	__be32 peer[4];
	__u32 device;
	__u32 cookie[2];
};

static __always_inline int is_old_or_big(struct sock *sk, const struct note *note, __u64 now)
{
	if (due_age_ns && now - note->seen_ns >= due_age_ns)
		return 1;
	return due_bytes && BPF_CORE_READ((struct tcp_sock *)sk, bytes_received) + BPF_CORE_READ((struct tcp_sock *)sk, bytes_acked) >= due_bytes;
}

/* Whether a connection may be reset now: always, or once when it has come so far. */
static __always_inline int comes_due(struct sock_common *common, __u64 now)
{
	struct note new = {.seen_ns = now};

	if (!due_age_ns && !due_bytes)
		return 1;
	struct note *note = bpf_sk_storage_get(&faultd_notes, common, &new, BPF_SK_STORAGE_GET_F_CREATE);

	if (!note || note->decided || !is_old_or_big((struct sock *)common, note, now))
		return 0;
	note->decided = 1;
	return 1;
}

/* The rule, with its counters, if the connection shall be reset. The caller counts what comes of it. */
static __always_inline struct rule *rule_for(struct sock_common *common, const struct permit *permit, struct stat **stat)
{
	struct peer peer = {};

	if (common->skc_state != TCP_ESTABLISHED && common->skc_state != TCP_CLOSE_WAIT)
		return 0;
	struct rule *rule = own_rule(permit, stat);

	if (!rule || !is_of_target(common) || !comes_due(common, permit->now))
		return 0;
	if ((rule->traffic.flags & TRAFFIC_SPARE_SSH) && common->skc_num == SSH_PORT)
		return 0;
	atomic_inc(&(*stat)->evaluated);
	peer_of_sock((struct sock *)common, &peer);
	if (!peer_fits(rule, fault.slot, &peer) || !harm_due(rule, *stat, 0))
		return 0;
	return rule;
}

SEC("iter/tcp")
int faultd_reset(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct stat *stat;

	if (!common)
		return 0;
	struct permit permit = permit_read();
	struct rule *rule = rule_for(common, &permit, &stat);

	if (!rule)
		return 0;
	if (bpf_sock_destroy(common))
		count_not_applied(rule, stat);
	else
		count_injected(stat, permit.now);
	return 0;
}

static __always_inline void describe(struct sock_common *common, struct listed *listed)
{
	__u64 cookie = bpf_get_socket_cookie(common);

	listed->family = common->skc_family;
	listed->local_port = bpf_htons(common->skc_num);
	listed->peer_port = common->skc_dport;
	listed->device = common->skc_bound_dev_if;
	listed->cookie[0] = cookie;
	listed->cookie[1] = cookie >> 32;
	if (listed->family == AF_INET) {
		listed->local[0] = common->skc_rcv_saddr;
		listed->peer[0] = common->skc_daddr;
	} else {
		BPF_CORE_READ_INTO(&listed->local, common, skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&listed->peer, common, skc_v6_daddr);
	}
}

SEC("iter/tcp")
int faultd_list(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct listed listed = {};
	struct stat *stat;

	if (!common)
		return 0;
	struct permit permit = permit_read();
	struct rule *rule = rule_for(common, &permit, &stat);

	if (!rule)
		return 0;
	describe(common, &listed);
	if (bpf_seq_write(ctx->meta->seq, &listed, sizeof(listed)))
		count_not_applied(rule, stat);
	return 0;
}
