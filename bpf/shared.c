//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* No program: the shared maps and the ABI, from which Go's types are generated. */
#include "maps.h"

const volatile struct {
	struct rule rule;
	struct stat stat;
	struct target_key target_key;
	struct rule_set rule_set;
	struct levels levels;
	struct peer_key peer_key;
	struct peer_verdict peer_verdict;
	struct sleeper sleeper;
	struct sleep_config sleep_config;
	struct call_shape call_shape;
	struct quantiles quantiles;
	struct stand_in_key stand_in_key;
	struct stand_in stand_in;
	struct server server;
	struct server_key server_key;
	struct stand_in_port stand_in_port;
} faultd_abi_types SEC(".rodata.abi");

char LICENSE[] SEC("license") = "Dual BSD/GPL";
