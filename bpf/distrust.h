/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The checksum of a packet that has come in is looked at again: a device may have looked at it already, or have said what it comes to, and the
 * kernel believes that. So nobody would notice a bit that is flipped afterwards. */
#ifndef FAULTD_DISTRUST_H
#define FAULTD_DISTRUST_H

#include "match.h"

#define CHECKSUM_COMPLETE 2 /* of linux/skbuff.h */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct sk_buff {
	__u8 ip_summed : 2;
};

#pragma clang attribute pop

/* The kernel's packet, which a program for tc is given as something else. */
static __always_inline struct sk_buff *kernels_packet(struct __sk_buff *skb)
{
	struct __sk_buff *volatile kept = skb;
	struct sk_buff *packet = 0;

	bpf_probe_read_kernel(&packet, sizeof(packet), (void *)&kept);
	return packet;
}

/* A packet to which a byte is added loses the sum of all its bytes (CHECKSUM_COMPLETE; linux/skbuff.h, __skb_grow_rcsum). */
static __always_inline int forget_sum(struct __sk_buff *skb)
{
	__u32 length = skb->len;

	return bpf_skb_change_tail(skb, length + 1, 0) || bpf_skb_change_tail(skb, length, 0);
}

/* Not 0: it could not be done, as there was no memory. Several packets in one (GSO) are cut up, and given checksums, before a bit of one is
 * flipped (net/sched/sch_netem.c, netem_segment), and so is one without a checksum (CHECKSUM_PARTIAL). The bit is flipped in the part of a
 * packet that is in one piece, so all is brought there: else it would often be one of the link layer's header, which is done with. */
LOOP_BODY int distrust(struct __sk_buff *skb)
{
	if (skb->gso_size)
		return 0;
	bpf_skb_pull_data(skb, skb->len);
	bpf_csum_level(skb, BPF_CSUM_LEVEL_RESET);
	return BPF_CORE_READ_BITFIELD_PROBED(kernels_packet(skb), ip_summed) == CHECKSUM_COMPLETE && forget_sum(skb);
}

#endif
