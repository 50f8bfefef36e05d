/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Stand-ins are on the loopback addresses: whose traffic can come there, and how addresses are exchanged. */
#ifndef FAULTD_LOOPBACK_H
#define FAULTD_LOOPBACK_H

#include "peer.h"

#define LOOPBACK_DEVICE 1
#define LOOPBACK4 bpf_htonl(0x7f000001)

static __always_inline int is_mapped4(const __u32 *address)
{
	return !address[0] && !address[1] && address[2] == bpf_htonl(0xffff);
}

/* Bound to another device it does not; the zone of a link-local address is not known here. */
static __always_inline int comes_to_loopback(struct bpf_sock *sk, const struct server *server)
{
	if (sk->bound_dev_if && sk->bound_dev_if != LOOPBACK_DEVICE)
		return 0;
	return (server->address[0] & bpf_htonl(0xffc00000)) != bpf_htonl(0xfe800000);
}

static __always_inline void send_to_loopback4(struct bpf_sock_addr *ctx, __u32 port)
{
	ctx->user_ip4 = LOOPBACK4;
	ctx->user_port = bpf_htons((__u16)port);
}

static __always_inline void send_to_loopback6(struct bpf_sock_addr *ctx, __u32 port, int mapped)
{
	ctx->user_ip6[0] = 0;
	ctx->user_ip6[1] = 0;
	ctx->user_ip6[2] = mapped ? bpf_htonl(0xffff) : 0;
	ctx->user_ip6[3] = mapped ? LOOPBACK4 : bpf_htonl(1);
	ctx->user_port = bpf_htons((__u16)port);
}

/* The port of the stand-in for a server, or 0: the server is asked itself. Each object has its own. */
static __always_inline __u32 stand_in_for(struct bpf_sock_addr *ctx, const struct server *server);

static __always_inline int redirect4(struct bpf_sock_addr *ctx)
{
	struct server server = {.port = bpf_ntohs((__u16)ctx->user_port)};

	server.address[2] = bpf_htonl(0xffff);
	server.address[3] = ctx->user_ip4;
	__u32 port = stand_in_for(ctx, &server);

	if (port)
		send_to_loopback4(ctx, port);
	return 1;
}

static __always_inline int redirect6(struct bpf_sock_addr *ctx)
{
	struct server server = {.port = bpf_ntohs((__u16)ctx->user_port)};

	server.address[0] = ctx->user_ip6[0];
	server.address[1] = ctx->user_ip6[1];
	server.address[2] = ctx->user_ip6[2];
	server.address[3] = ctx->user_ip6[3];
	int mapped = is_mapped4(server.address);
	__u32 port = stand_in_for(ctx, &server);

	if (port)
		send_to_loopback6(ctx, port, mapped);
	return 1;
}

static __always_inline void seem_from4(struct bpf_sock_addr *ctx, const struct server *server)
{
	ctx->user_ip4 = server->address[3];
	ctx->user_port = bpf_htons((__u16)server->port);
}

static __always_inline void seem_from6(struct bpf_sock_addr *ctx, const struct server *server)
{
	ctx->user_ip6[0] = server->address[0];
	ctx->user_ip6[1] = server->address[1];
	ctx->user_ip6[2] = server->address[2];
	ctx->user_ip6[3] = server->address[3];
	ctx->user_port = bpf_htons((__u16)server->port);
}

#endif
