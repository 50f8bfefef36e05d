/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The ABI between the kernel side and Go: every struct and map that both touch. bpf2go generates the Go side from it.
 * Change anything here and raise FAULTD_ABI, and abiVersion in kernel.go: the loader refuses objects of another version.
 */
#ifndef FAULTD_H
#define FAULTD_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#define FAULTD_ABI 1

#define MAX_RULES 1024       /* rules at once on a node */
#define MAX_RULES_PER_SET 16 /* rules that one target and its ancestors may have for one hook */
#define MAX_TARGETS 4096     /* (target, hook) pairs */
#define MAX_LEVEL 31         /* deepest cgroup level a target may have */
#define MAX_PORTS 8
#define MAX_SYSCALL 512
#define MAX_SLEEPERS 1024
#define MAX_PARTS 4 /* rules that one delay is made of */
#define SLEEP_PAGE 4096

/* Families of hooks; a rule belongs to one. */
enum hook {
	HOOK_CONNECT = 1,
	HOOK_PACKET = 2,
	HOOK_SYSCALL = 3,
};

enum action {
	ACTION_ERRNO = 1, /* fail with rule.error */
	ACTION_LOSE = 2,  /* lose the packet */
	ACTION_DELAY = 3, /* sleep rule.delay_ns */
};

/* How a system call is reached. Each object serves the rules of its own mechanism, so that two never serve one rule. */
enum mechanism {
	MECHANISM_LSM = 1,
	MECHANISM_TASK_WORK = 2,
	MECHANISM_CLONES = 3,
	MECHANISM_SPIN = 4,
};

enum rule_flag {
	RULE_PEERS = 1,    /* the peers trie decides; else every peer fits */
	RULE_SEEDED = 2,   /* dice from (seed, match number) */
	RULE_PER_FLOW = 4, /* dice from (seed, flow) */
	RULE_EGRESS = 8,
	RULE_INGRESS = 16,
	RULE_OPENING = 32, /* of TCP only the segments that open a connection */
};

/* One fault as the kernel sees it. A slot of the rules array; serial tells its users apart. */
struct rule {
	__u64 generation; /* of the kill switch; any other value and the rule is inert */
	__u64 until_ns;   /* CLOCK_MONOTONIC; 0: the slot is free, or the rule has ended */
	__u64 threshold;  /* chance in 1/2^32: 2^32 is always */
	__u64 seed;
	__u64 every_nth; /* 0 or 1: every match */
	__u64 skip_first;
	__u64 max_hits; /* 0: no limit */
	__u64 delay_ns;
	__u64 jitter_ns;
	__u32 serial;
	__u32 flags;
	__u32 action;
	__s32 error; /* -4095..-1 */
	__u16 protocol; /* IPPROTO_*, 0: any */
	__u16 ports;    /* how many of port_lo/hi count; 0: any */
	__u32 mechanism; /* of HOOK_SYSCALL: the one whose programs serve the rule (enum mechanism) */
	__u16 port_lo[MAX_PORTS]; /* of the peer, host byte order */
	__u16 port_hi[MAX_PORTS];
	__u64 calls[MAX_SYSCALL / 64];
};

/* What happened to a rule, by slot. matched = injected + not_applied + spared + those asleep now. A rule that was not
 * reached, because an older one had done its harm, counts as evaluated. */
struct stat {
	__u64 evaluated;
	__u64 matched;
	__u64 injected;
	__u64 not_applied;
	__u64 spared;
	__u64 cut_short;
	__u64 hits; /* max_hits tickets taken */
	__u64 first_ns; /* when harm was first done, CLOCK_MONOTONIC */
};

/* The levels of the tree at which there are targets for a hook: level + 1, deepest first, 0 ends the list. */
struct levels {
	__u8 plus_one[MAX_LEVEL + 1];
};

/* The rules of a target and of its ancestors for one hook, oldest first. */
struct target_key {
	__u64 cgroup;
	__u32 hook;
	__u32 pad;
};

struct rule_ref {
	__u32 slot;
	__u32 serial;
};

struct rule_set {
	__u32 count;
	__u32 pad;
	struct rule_ref refs[MAX_RULES_PER_SET];
};

/* Key of the peers trie: the slot is part of the prefix, addresses are IPv6 (IPv4 mapped). */
struct peer_key {
	__u32 prefix; /* 32 (slot) + 0..128 */
	__u32 slot;   /* big endian */
	__u8 address[16];
};

/* A thread asleep in a delay; its slot number is the page of the guard's file. */
struct sleeper {
	__u32 taken; /* 0: free */
	__u32 held;  /* set by the guard when it holds the thread */
	__u64 until_ns;
	__u64 generation;
	__u32 tid;
	__u32 rules; /* how many of rule_slots count */
	__u32 rule_slots[MAX_PARTS];
	__u32 early_ns; /* set by the guard: so much before until_ns it answers */
	__u32 pad[3];
};

/* How threads are put to sleep: a process whose page they touch. Written by the daemon for each guard. */
struct sleep_config {
	__u64 address; /* of page 0 in the holder */
	__u32 holder;  /* tgid in the initial pid namespace; 0: nobody holds, delays are not applied */
	__u32 late_ns; /* how long it takes from when the guard should answer until the thread runs; smoothed */
};

#endif
