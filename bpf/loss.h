/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which packets are lost: one by one by the rule's dice, or by its chain, which remembers. */
#ifndef FAULTD_LOSS_H
#define FAULTD_LOSS_H

#include "match.h"

/* Tells the dice of the two directions apart. */
#define SALT_INGRESS 0x2545f4914f6cdd1dULL

/* Decides about one packet; 1: it is lost. Half of a number of 64 bits moves the chain on, the other half decides. */
static __always_inline int chain_step(struct chain *chain, const struct loss *loss, __u64 seed)
{
	__u64 thrown = mix(seed + ++chain->packets * 0x9e3779b97f4a7c15ULL);
	__u32 moves = thrown >> 32, decides = thrown, next = 0;
	const struct chain_state *state = &loss->state[chain->state % CHAIN_STATES];

	if (chain->left) {
		chain->left--;
		return 1;
	}
	while (next < CHAIN_STATES - 1 && moves >= state->below[next])
		next++;
	chain->state = next;
	if (decides >= loss->state[next].lose)
		return 0;
	chain->left = loss->burst - 1;
	return 1;
}

/* Whether the rule's chain loses a packet. The lock makes each packet one step of the chain, whichever processor it is on: so
 * what n packets come to depends on the seed alone. */
static __always_inline int chain_loses(const struct rule *rule, __u32 slot, int egress)
{
	__u32 key = slot * 2 + !!egress;
	struct chain *chain = bpf_map_lookup_elem(&faultd_chains, &key);
	__u64 seed = egress ? rule->seed : rule->seed ^ SALT_INGRESS;

	if (!chain)
		return 0;
	bpf_spin_lock(&chain->lock);
	int lost = chain_step(chain, &rule->loss, seed);

	bpf_spin_unlock(&chain->lock);
	return lost;
}

/* harm_due for packets; scope is the flow, of rules that decide by flow. */
static __always_inline __u64 loss_due(const struct rule *rule, struct stat *stat, __u32 slot, int egress, __u64 scope)
{
	if (!rule->loss.burst)
		return harm_due(rule, stat, scope);
	__u64 n = count_match(rule, stat);

	if (n && chain_loses(rule, slot, egress) && has_room(rule, stat))
		return n;
	atomic_inc(&stat->spared);
	return 0;
}

#endif
