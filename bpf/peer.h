/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The other end of a connection or packet, and whether a rule means it. */
#ifndef FAULTD_PEER_H
#define FAULTD_PEER_H

#include "match.h"
#include <bpf/bpf_endian.h>

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

static __always_inline int port_fits(const struct rule *rule, __u32 port)
{
	if (!rule->ports)
		return 1;
	for (__u32 i = 0; i < MAX_PORTS; i++)
		if (i < rule->ports && port >= rule->port_lo[i] && port <= rule->port_hi[i])
			return 1;
	return 0;
}

static __always_inline int peer_fits(const struct rule *rule, __u32 slot, const struct peer *peer)
{
	if (rule->protocol && rule->protocol != peer->protocol)
		return 0;
	if (!port_fits(rule, peer->port))
		return 0;
	if (!(rule->flags & RULE_PEERS))
		return 1;
	struct peer_key key = {.prefix = 32 + 128, .slot = bpf_htonl(slot)};

	__builtin_memcpy(key.address, peer->address, sizeof(key.address));
	__u32 *hurt = bpf_map_lookup_elem(&faultd_peers, &key);

	return hurt && *hurt;
}

#endif
