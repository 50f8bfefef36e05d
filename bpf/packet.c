//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* packet: loss that looks like a wire's. Egress runs at tc inside the target's network namespace and drops by a redirect
 * to no device, which the sender cannot see (net/core/filter.c, skb_do_redirect); ingress runs at the target's sockets.
 * What shall be late, or otherwise hurt by a queue of ours (wire.go), is sent there by its priority, which a prio qdisc
 * takes for a class if it is the qdisc's own (net/sched/sch_prio.c, prio_classify). */
#include "arrive.h"
#include "change.h"
#include "distrust.h"
#include "loss.h"
#include "match.h"
#include "packet.h"
#include <linux/pkt_cls.h>

#define ANCESTOR(level) bpf_skb_ancestor_cgroup_id(skb, level)

/* What shall become of a packet; anything else is the class of a queue. */
#define PASS 0
#define LOSE 1
#define CHANGE 2

/* Our root qdisc, and its class that loses what comes there (wire_qdisc.go). */
#define QUEUE_ROOT 0x7a170000
#define QUEUE_LOST (QUEUE_ROOT | 3)

/* A rule that loses and queues: what its dice have spared takes the queue. */
static __always_inline __u32 queue_spared(const struct rule *rule, struct stat *stat, const struct permit *permit)
{
	if (rule->action != ACTION_LOSE || !rule->queue)
		return PASS;
	__sync_fetch_and_add(&stat->spared, -1ULL);
	count_injected(stat, permit->now);
	return rule->queue;
}

/* Counts that a rule is looked at, and says whether it means the packet. said is what older ones have said: what they lose is meant
 * by none, and what has a queue takes no other, but may be lost or changed. */
static __always_inline int rule_means(const struct rule_ref *ref, __u64 generation, const struct packet *packet, __u32 direction, __u32 said)
{
	struct rule *rule = rule_armed(ref->slot, ref->serial, generation);
	struct stat *stat = rule ? stat_of(rule) : 0;

	if (!stat)
		return 0;
	atomic_inc(&stat->evaluated);
	if (said == LOSE || (said != PASS && rule->action == ACTION_QUEUE))
		return 0;
	return (rule->flags & direction) && packet_fits(rule, ref->slot, packet);
}

/* Tries a rule. Of the permit only the generation is known at first: the clock costs as much as all the rest, and most packets of a
 * target are none that a rule means. */
LOOP_BODY __u32 packet_rule(const struct rule_ref *ref, struct permit *permit, const struct packet *packet, __u32 direction, __u32 said)
{
	if (!ref || !permit || !packet || !rule_means(ref, permit->generation, packet, direction, said))
		return 0;
	if (!permit->now)
		*permit = permit_read();
	struct stat *stat;
	struct rule *rule = rule_of(ref, permit, &stat);

	if (!rule)
		return 0;
	__u64 scope = rule->flags & RULE_PER_FLOW ? flow_of(packet) : 0;

	if (rule->action == ACTION_CHANGE)
		return words_of_data(packet) && harm_due(rule, stat, scope) ? CHANGE : PASS;
	if (!loss_due(rule, stat, ref->slot, direction == RULE_EGRESS, scope))
		return said == PASS ? queue_spared(rule, stat, permit) : PASS;
	count_injected(stat, permit->now);
	return rule->action == ACTION_QUEUE ? rule->queue : LOSE;
}

/* The first rule that loses the packet decides, and of those with a queue the first; one whose data was changed goes on to the next rule. */
static __always_inline __u32 judge_packet(struct __sk_buff *skb, struct rule_set *set, const struct packet *packet, __u32 direction)
{
	struct permit permit = {.generation = switch_read()};
	__u32 verdict = PASS;

	for (__u32 i = 0; i < MAX_RULES_PER_SET && i < set->count; i++) {
		__u32 said = packet_rule(&set->refs[i], &permit, packet, direction, verdict);

		if (said == CHANGE && direction != RULE_INGRESS)
			change(skb, packet, &set->refs[i], &permit);
		else if (said != PASS)
			verdict = said;
	}
	return verdict;
}

static __always_inline __u32 judge(struct __sk_buff *skb, struct rule_set *set, __u32 offset, __u32 direction)
{
	struct packet packet = {};

	if (!set || !read_packet(skb, offset, direction == RULE_EGRESS, &packet))
		return 0;
	return judge_packet(skb, set, &packet, direction);
}

static __always_inline int leave(struct __sk_buff *skb, __u32 offset)
{
	__u32 verdict = judge(skb, find_rule_set(HOOK_PACKET, ANCESTOR), offset, RULE_EGRESS);

	if (verdict == LOSE)
		return bpf_redirect(0, 0);
	if (verdict != PASS)
		skb->priority = verdict & ~QUEUE_FLIPS;
	return TC_ACT_UNSPEC;
}

/* Devices with and without a link-layer header need their own offset; the loader picks the program by device. */
SEC("tc")
int faultd_egress(struct __sk_buff *skb)
{
	return leave(skb, ETH_HLEN);
}

SEC("tc")
int faultd_egress_l3(struct __sk_buff *skb)
{
	return leave(skb, 0);
}

SEC("cgroup_skb/ingress")
int faultd_ingress(struct __sk_buff *skb)
{
	return judge(skb, find_rule_set(HOOK_PACKET, ANCESTOR), 0, RULE_INGRESS) != LOSE;
}

/* Whether a filter's action, which sends the packet through a device with a queue of ours (incoming.go), is meant for it: -1, or 0. A packet
 * that comes out of a queue is seen again where it is unwrapped, and goes on. */
static __always_inline int arrive(struct __sk_buff *skb, __u32 offset)
{
	struct packet packet = {};
	__u32 verdict;

	if (skb->priority >> 16 == QUEUE_ROOT >> 16 || !switch_read())
		return 0;
	if (!read_packet(skb, offset, 0, &packet) || packet.neighbour)
		return 0;
	struct rule_set *set = rules_of_arrival(skb, offset, &packet);

	verdict = set ? judge_packet(skb, set, &packet, RULE_INCOMING) : PASS;
	if (verdict == PASS)
		return 0;
	if (verdict & QUEUE_FLIPS && distrust(skb))
		verdict = LOSE;
	skb->priority = verdict == LOSE ? QUEUE_LOST : verdict & ~QUEUE_FLIPS;
	return -1;
}

SEC("tc")
int faultd_incoming(struct __sk_buff *skb)
{
	return arrive(skb, ETH_HLEN);
}

SEC("tc")
int faultd_incoming_l3(struct __sk_buff *skb)
{
	return arrive(skb, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
