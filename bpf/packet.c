//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* packet: loss that looks like a wire's. Egress runs at tc inside the target's network namespace and drops by a redirect
 * to no device, which the sender cannot see (net/core/filter.c, skb_do_redirect); ingress runs at the target's sockets. */
#include "match.h"
#include "peer.h"
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#define ANCESTOR(level) bpf_skb_ancestor_cgroup_id(skb, level)
#define IP_OFFSET_MASK 0x1fff
#define MAX_EXTENSIONS 6

/* A packet as a rule sees it. */
struct packet {
	struct peer peer;
	__u32 local_port;
	__u32 syn; /* a TCP segment that opens a connection */
};

/* Ports, where the transport has them in its first four bytes. A later fragment has none. */
static __always_inline void read_ports(struct __sk_buff *skb, __u32 offset, int egress, struct packet *packet)
{
	__be16 ports[2];

	if (packet->peer.protocol != IPPROTO_TCP && packet->peer.protocol != IPPROTO_UDP)
		return;
	if (bpf_skb_load_bytes(skb, offset, ports, sizeof(ports)))
		return;
	packet->peer.port = bpf_ntohs(egress ? ports[1] : ports[0]);
	packet->local_port = bpf_ntohs(egress ? ports[0] : ports[1]);
	__u8 flags = 0;

	if (packet->peer.protocol == IPPROTO_TCP && !bpf_skb_load_bytes(skb, offset + 13, &flags, 1))
		packet->syn = (flags & 0x12) == 0x02; /* SYN without ACK */
}

static __always_inline int read4(struct __sk_buff *skb, __u32 offset, int egress, struct packet *packet)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)))
		return 0;
	packet->peer.protocol = ip.protocol;
	peer_set4(&packet->peer, egress ? ip.daddr : ip.saddr);
	if (!(bpf_ntohs(ip.frag_off) & IP_OFFSET_MASK))
		read_ports(skb, offset + ip.ihl * 4, egress, packet);
	return 1;
}

static __always_inline int read6(struct __sk_buff *skb, __u32 offset, int egress, struct packet *packet)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)))
		return 0;
	__builtin_memcpy(packet->peer.address, egress ? &ip.daddr : &ip.saddr, 16);
	__u8 next = ip.nexthdr;

	offset += sizeof(ip);
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		__u8 header[8];

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
		    next != IPPROTO_FRAGMENT)
			break;
		if (bpf_skb_load_bytes(skb, offset, header, sizeof(header)))
			return 0;
		if (next == IPPROTO_FRAGMENT) {
			if ((header[2] << 8 | header[3]) & 0xfff8) {
				packet->peer.protocol = header[0];
				return 1;
			}
			offset += 8;
		} else {
			offset += (header[1] + 1) * 8;
		}
		next = header[0];
	}
	packet->peer.protocol = next;
	read_ports(skb, offset, egress, packet);
	return 1;
}

LOOP_BODY int read_packet(struct __sk_buff *skb, __u32 offset, int egress, struct packet *packet)
{
	if (!packet)
		return 0;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return read4(skb, offset, egress, packet);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return read6(skb, offset, egress, packet);
	return 0;
}

/* The same number for both directions of a flow. */
static __always_inline __u64 flow_of(const struct packet *packet)
{
	__u64 h = mix((__u64)packet->peer.address[0] << 32 | packet->peer.address[1]);

	h = mix(h + ((__u64)packet->peer.address[2] << 32 | packet->peer.address[3]));
	return mix(h + ((__u64)packet->peer.protocol << 32 | packet->peer.port << 16 | packet->local_port));
}

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
	if (done || !(rule->flags & direction) || !peer_fits(rule, ref->slot, &packet->peer))
		return 0;
	if ((rule->flags & RULE_OPENING) && packet->peer.protocol == IPPROTO_TCP && !packet->syn)
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
