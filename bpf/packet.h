/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A packet as a rule sees it: who the peer is, and what is in its headers. */
#ifndef FAULTD_PACKET_H
#define FAULTD_PACKET_H

#include "peer.h"
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#define IP_OFFSET_MASK 0x1fff
#define MAX_EXTENSIONS 6
#define NEIGHBOUR_FIRST 133 /* types of ICMPv6: router solicitation to redirect (RFC 4861) */
#define NEIGHBOUR_LAST 137
#define TCP_SYN 0x02
#define TCP_ACK 0x10

struct packet {
	struct peer peer;
	__u32 local_port;
	__u32 length;  /* from the IP header on */
	__u32 end;     /* of the packet, counted as data and checksum are */
	__u32 payload; /* bytes of data in a TCP segment */
	__u32 data;     /* where the data of TCP or UDP begins; 0: it is neither, or a later fragment */
	__u32 checksum; /* where their checksum is */
	__u8 tcp_flags;
	__u8 dscp;
	__u8 neighbour; /* it is of IPv6's neighbour discovery, which is to it what ARP is to IPv4 */
};

/* No header begins later. */
#define MAX_OFFSET 0x3fff

/* Copies the header at an offset out of the packet; 1: it ends before. Headers nearly always lie in the linear part, where they can be
 * read without the kernel's help, which costs several times as much. */
#define read_header(skb, offset, header)                                                    \
	({                                                                                  \
		__u64 from = (offset);                                                      \
		typeof(header) at = (void *)(long)(skb)->data + (from & MAX_OFFSET);       \
		int missing = 0;                                                            \
		if (from <= MAX_OFFSET && (void *)(at + 1) <= (void *)(long)(skb)->data_end) \
			*(header) = *at;                                                    \
		else                                                                        \
			missing = !!bpf_skb_load_bytes(skb, from, header, sizeof(*(header)));\
		missing;                                                                    \
	})

/* Flags and length of data of a TCP segment that begins at offset. */
static __always_inline void read_tcp(struct __sk_buff *skb, __u32 offset, struct packet *packet)
{
	struct {
		__u8 words, flags; /* its length, in the upper half, and what it is */
	} header;

	if (read_header(skb, offset + 12, &header))
		return;
	packet->tcp_flags = header.flags;
	packet->checksum = offset + 16;
	packet->data = offset + (header.words >> 4) * 4;
	if (skb->len > packet->data)
		packet->payload = skb->len - packet->data;
}

/* Ports and the like, where the transport has them in its first four bytes. A later fragment has none. */
static __always_inline void read_ports(struct __sk_buff *skb, __u32 offset, int egress, struct packet *packet)
{
	__u32 protocol = packet->peer.protocol;
	struct {
		__be16 source, destination;
	} ports;

	if (protocol == IPPROTO_ICMPV6) {
		__u8 type;

		if (!read_header(skb, offset, &type))
			packet->neighbour = type >= NEIGHBOUR_FIRST && type <= NEIGHBOUR_LAST;
		return;
	}
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && protocol != IPPROTO_SCTP)
		return;
	if (read_header(skb, offset, &ports))
		return;
	packet->peer.port = bpf_ntohs(egress ? ports.destination : ports.source);
	packet->local_port = bpf_ntohs(egress ? ports.source : ports.destination);
	if (protocol == IPPROTO_TCP)
		read_tcp(skb, offset, packet);
	if (protocol == IPPROTO_UDP) {
		packet->checksum = offset + 6;
		packet->data = offset + 8;
	}
}

static __always_inline int read4(struct __sk_buff *skb, __u32 offset, int egress, struct packet *packet)
{
	struct iphdr ip;

	if (read_header(skb, offset, &ip))
		return 0;
	packet->dscp = ip.tos >> 2;
	packet->peer.protocol = ip.protocol;
	peer_set4(&packet->peer, egress ? ip.daddr : ip.saddr);
	if (!(bpf_ntohs(ip.frag_off) & IP_OFFSET_MASK))
		read_ports(skb, offset + ip.ihl * 4, egress, packet);
	return 1;
}

/* Not inline, as read4 is: what is said of LOOP_BODY holds for its loop, and a call and a return cost some 5 ns. */
LOOP_BODY int read6(struct __sk_buff *skb, __u32 offset, int egress, struct packet *packet)
{
	struct ipv6hdr ip;

	if (!packet || read_header(skb, offset, &ip))
		return 0;
	packet->dscp = ip.priority << 2 | ip.flow_lbl[0] >> 6;
	__builtin_memcpy(packet->peer.address, egress ? &ip.daddr : &ip.saddr, 16);
	__u8 next = ip.nexthdr;

	offset += sizeof(ip);
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		struct {
			__u8 next, words; /* its length beyond the first 8 bytes, in 8 bytes */
			__be16 fragment; /* of a fragment's header: its offset, and three bits */
		} header;

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
		    next != IPPROTO_FRAGMENT)
			break;
		if (read_header(skb, offset, &header))
			return 0;
		if (next == IPPROTO_FRAGMENT) {
			if (bpf_ntohs(header.fragment) & 0xfff8) {
				packet->peer.protocol = header.next;
				return 1;
			}
			offset += 8;
		} else {
			offset += (header.words + 1) * 8;
		}
		next = header.next;
	}
	packet->peer.protocol = next;
	read_ports(skb, offset, egress, packet);
	return 1;
}

/* Reads a packet whose IP header begins at offset. 0: it is no IP, or too short. */
static __always_inline int read_packet(struct __sk_buff *skb, __u32 offset, int egress, struct packet *packet)
{
	packet->length = skb->len - offset;
	packet->end = skb->len;
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

static __always_inline int tcp_fits(const struct traffic *traffic, const struct packet *packet)
{
	int opening = (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;

	if ((traffic->flags & TRAFFIC_OPENING) && !opening)
		return 0;
	if ((traffic->flags & TRAFFIC_ESTABLISHED) && opening)
		return 0;
	if ((traffic->flags & TRAFFIC_PAYLOAD) && !packet->payload)
		return 0;
	if ((traffic->flags & TRAFFIC_SPARE_SSH) && packet->local_port == SSH_PORT)
		return 0;
	return (packet->tcp_flags & traffic->tcp_mask) == traffic->tcp_flags;
}

/* Whether a rule means the packet. The peer comes last: looking it up costs most. */
static __always_inline int packet_fits(const struct rule *rule, __u32 slot, const struct packet *packet)
{
	const struct traffic *traffic = &rule->traffic;

	if (packet->length < traffic->min_length)
		return 0;
	if (traffic->dscp && !(traffic->dscp >> (packet->dscp & 63) & 1))
		return 0;
	if (!port_fits(traffic->local_port, traffic->local_ports, packet->local_port))
		return 0;
	if (packet->peer.protocol == IPPROTO_TCP && !tcp_fits(traffic, packet))
		return 0;
	return peer_fits(rule, slot, &packet->peer);
}

#endif
