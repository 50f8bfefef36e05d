/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A bit of a packet's data is changed, and its checksum with it, as by a broken memory on the way: nobody below the program notices. */
#ifndef FAULTD_CHANGE_H
#define FAULTD_CHANGE_H

#include "packet.h"

#define SALT_CHANGE 0xd1342543de82ef95ULL

/* The bit is in the first words, so that the kernel need not copy more of a large segment. */
#define CHANGED_WORDS 512

/* Words of two bytes, as checksums count them; the headers of TCP and UDP have an even length. */
static __always_inline __u32 words_of_data(const struct packet *packet)
{
	if (!packet->data || packet->end <= packet->data)
		return 0;
	__u32 words = (packet->end - packet->data) / 2;

	return words < CHANGED_WORDS ? words : CHANGED_WORDS;
}

/* Changes the bit that thrown chooses. 0: it could not be done. If only the checksum could not be, the receiver drops the packet. */
static __always_inline int change_bit(struct __sk_buff *skb, const struct packet *packet, __u32 thrown)
{
	__u32 words = words_of_data(packet);
	__u16 was, is;

	if (!words)
		return 0;
	__u32 at = packet->data + thrown / 16 % words * 2;

	if (bpf_skb_load_bytes(skb, at, &was, sizeof(was)))
		return 0;
	is = was ^ 1 << thrown % 16;
	if (bpf_skb_store_bytes(skb, at, &is, sizeof(is), 0))
		return 0;
	/* A datagram without a checksum keeps none. */
	__u64 flags = sizeof(is) | (packet->peer.protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0);

	return !bpf_l4_csum_replace(skb, packet->checksum, was, is, flags);
}

/* Does what a rule has decided, and counts it. */
LOOP_BODY int change(struct __sk_buff *skb, const struct packet *packet, const struct rule_ref *ref, const struct permit *permit)
{
	if (!packet || !ref || !permit)
		return 0;
	struct stat *stat;
	struct rule *rule = rule_of(ref, permit, &stat);

	if (!rule)
		return 0;
	if (change_bit(skb, packet, dice(rule, READ_ONCE(stat->matched), SALT_CHANGE)))
		count_injected(stat, permit->now);
	else
		count_not_applied(rule, stat);
	return 0;
}

#endif
