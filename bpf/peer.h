/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The other end of a connection or packet, and whether a rule means it. */
#ifndef FAULTD_PEER_H
#define FAULTD_PEER_H

#include "match.h"
#include <bpf/bpf_endian.h>
#include <linux/in.h>
#include <linux/in6.h>

#define SSH_PORT 22

struct peer {
	__u32 address[4]; /* network order; IPv4 as ::ffff:a.b.c.d */
	__u32 protocol;
	__u32 port; /* host order; 0: unknown */
};

static __always_inline void peer_set4(struct peer *peer, __u32 address)
{
	peer->address[0] = 0;
	peer->address[1] = 0;
	peer->address[2] = bpf_htonl(0xffff);
	peer->address[3] = address;
}

/* Whether a port is in one of count ranges; none means any. */
static __always_inline int port_fits(const struct port_range *ranges, __u32 count, __u32 port)
{
	if (!count)
		return 1;
	for (__u32 i = 0; i < MAX_PORTS; i++)
		if (i < count && port >= ranges[i].low && port <= ranges[i].high)
			return 1;
	return 0;
}

static __always_inline int protocol_fits(const struct traffic *traffic, __u32 protocol)
{
	if (!traffic->protocol || traffic->protocol == protocol)
		return 1;
	return traffic->protocol == IPPROTO_ICMP && protocol == IPPROTO_ICMPV6;
}

/* What the trie says of the peer of the rule in a slot. */
static __always_inline int peer_hurt(__u32 slot, const struct peer *peer)
{
	struct peer_key key = {};

	if (!peer->address[0] && !peer->address[1] && peer->address[2] == bpf_htonl(0xffff)) {
		key.prefix = 32 + 32;
		key.space = bpf_htonl(slot << 1);
		key.address[0] = peer->address[3];
	} else {
		key.prefix = 32 + 128;
		key.space = bpf_htonl(slot << 1 | 1);
		__builtin_memcpy(key.address, peer->address, sizeof(key.address));
	}
	struct peer_verdict *verdict = bpf_map_lookup_elem(&faultd_peers, &key);

	if (!verdict || !verdict->hurt)
		return 0;
	for (__u32 i = 0; i < MAX_SPARED; i++)
		if (verdict->spared[i] && verdict->spared[i] == peer->port)
			return 0;
	return 1;
}

/* Whether a rule means the peer: its protocol, port and address. */
static __always_inline int peer_fits(const struct rule *rule, __u32 slot, const struct peer *peer)
{
	const struct traffic *traffic = &rule->traffic;

	if (!protocol_fits(traffic, peer->protocol) || !port_fits(traffic->port, traffic->ports, peer->port))
		return 0;
	return !(traffic->flags & TRAFFIC_PEERS) || peer_hurt(slot, peer);
}

#endif
