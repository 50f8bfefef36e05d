//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* packet: loss that looks like a wire's. Egress runs at tc inside the target's network namespace and drops by a redirect
 * to no device, which the sender cannot see (net/core/filter.c, skb_do_redirect); ingress runs at the target's sockets. */
#include "match.h"
#include "packet.h"
#include <linux/pkt_cls.h>

#define ANCESTOR(level) bpf_skb_ancestor_cgroup_id(skb, level)

/* Tries a rule, or with done only counts that it was looked at. 1: the packet shall be lost. */
LOOP_BODY int packet_rule(const struct rule_ref *ref, const struct permit *permit, const struct packet *packet, __u32 direction, int done)
{
	if (!ref || !permit || !packet)
		return 0;
	struct stat *stat;
	struct rule *rule = rule_of(ref, permit, &stat);

	if (!rule)
		return 0;
	atomic_inc(&stat->evaluated);
	if (done || !(rule->flags & direction) || !packet_fits(rule, ref->slot, packet))
		return 0;
	if (!harm_due(rule, stat, rule->flags & RULE_PER_FLOW ? flow_of(packet) : 0))
		return 0;
	count_injected(stat, permit->now);
	return 1;
}

/* 1: the packet shall be lost. */
static __always_inline int lose(struct __sk_buff *skb, __u32 offset, int egress)
{
	struct rule_set *set = find_rule_set(HOOK_PACKET, ANCESTOR);
	struct packet packet = {};

	if (!set || !read_packet(skb, offset, egress, &packet))
		return 0;
	struct permit permit = permit_read();
	int lost = 0;

	for (__u32 i = 0; i < MAX_RULES_PER_SET && i < set->count; i++)
		if (packet_rule(&set->refs[i], &permit, &packet, egress ? RULE_EGRESS : RULE_INGRESS, lost))
			lost = 1;
	return lost;
}

/* Devices with and without a link-layer header need their own offset; the loader picks the program by device. */
SEC("tc")
int faultd_egress(struct __sk_buff *skb)
{
	return lose(skb, ETH_HLEN, 1) ? bpf_redirect(0, 0) : TC_ACT_UNSPEC;
}

SEC("tc")
int faultd_egress_l3(struct __sk_buff *skb)
{
	return lose(skb, 0, 1) ? bpf_redirect(0, 0) : TC_ACT_UNSPEC;
}

SEC("cgroup_skb/ingress")
int faultd_ingress(struct __sk_buff *skb)
{
	return !lose(skb, 0, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
