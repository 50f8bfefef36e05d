/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The shared maps. The loader makes each once and gives it to every object. */
#ifndef FAULTD_MAPS_H
#define FAULTD_MAPS_H

#include "faultd.h"

/* In every object, for the loader. */
const volatile __u32 faultd_abi __attribute__((used)) = FAULTD_ABI;

/* The kill switch. Frozen for ever: 0 is harmless, anything else is the armed generation. Pinned. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} faultd_kill SEC(".maps");

/* Until when the daemon is believed alive, CLOCK_MONOTONIC ns. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} faultd_lease SEC(".maps");

/* Where to look for targets, by hook. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, struct levels);
} faultd_levels SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC); /* an update replaces the value whole */
	__uint(max_entries, MAX_TARGETS);
	__type(key, struct target_key);
	__type(value, struct rule_set);
} faultd_targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_RULES);
	__type(key, __u32);
	__type(value, struct rule);
} faultd_rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_RULES);
	__type(key, __u32);
	__type(value, struct stat);
} faultd_stats SEC(".maps");

/* Peers of all rules; the longest prefix decides. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144); /* memory is taken as they come */
	__type(key, struct peer_key);
	__type(value, struct peer_verdict);
} faultd_peers SEC(".maps");

/* Of rules with a chain, by slot * 2 + egress: the two directions are two wires. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_RULES * 2);
	__type(key, __u32);
	__type(value, struct chain);
} faultd_chains SEC(".maps");

/* By number. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_SYSCALL);
	__type(key, __u32);
	__type(value, struct call_shape);
} faultd_calls SEC(".maps");

/* Of rules with RULE_QUANTILES, by slot. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_RULES);
	__type(key, __u32);
	__type(value, struct quantiles);
} faultd_quantiles SEC(".maps");

/* The tables of rules that have globs, by slot * GLOB_USES + use. A rule's are put before it may do harm and stay until it has ended. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MAX_RULES * GLOB_USES);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(max_entries, 1);
		__uint(key_size, sizeof(__u32));
		__uint(value_size, sizeof(struct glob_table));
	});
} faultd_globs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_TARGETS);
	__type(key, struct stand_in_key);
	__type(value, struct stand_in);
} faultd_stand_ins SEC(".maps");

/* The ports of stand-ins by the servers, and the servers by the ports. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_TARGETS);
	__type(key, struct server_key);
	__type(value, __u32);
} faultd_servers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_TARGETS);
	__type(key, struct stand_in_port);
	__type(value, struct server);
} faultd_stood_in SEC(".maps");

/* Whom connections were meant for that come to stand-ins; an entry goes when its connection is accepted. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct diverted);
	__type(value, struct server);
} faultd_diverted SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_SLEEPERS);
	__type(key, __u32);
	__type(value, struct sleeper);
} faultd_sleepers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sleep_config);
} faultd_sleep SEC(".maps");

#endif
