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

#define FAULTD_ABI 6

#define MAX_RULES 1024       /* rules at once on a node */
#define MAX_RULES_PER_SET 16 /* rules that one target and its ancestors may have for one hook */
#define MAX_TARGETS 4096     /* (target, hook) pairs */
#define TARGET_BITS 65536    /* many more than targets, so that few others share a bit with one */
#define MAX_LEVEL 31         /* deepest cgroup level a target may have */
#define MAX_PORTS 8  /* ranges of one side's ports that a rule may have */
#define MAX_SPARED 3 /* ports of one peer that a rule may spare */
#define MAX_SYSCALL 512
#define MAX_SLEEPERS 1024
#define MAX_PARTS 4 /* rules that one delay is made of */
#define MAX_ERRORS 8
#define MAX_SERVERS 8 /* that one stand-in takes the place of, for each address family */
#define MAX_PREDICATES 4
#define COMM_SIZE 16
#define QUANTILES 256 /* steps of a distribution */
#define CHAIN_STATES 4
#define SLEEP_PAGE 4096

/* Families of hooks; a rule belongs to one. */
enum hook {
	HOOK_CONNECT = 1,
	HOOK_PACKET = 2,
	HOOK_SYSCALL = 3,  /* delays of system calls */
	HOOK_RESULT = 4,   /* results of system calls: errors, calls that are not made, short calls */
	HOOK_SECURITY = 5, /* errors of security hooks, on files and sockets */
	HOOK_BLOCK = 6,    /* errors of requests to block devices */
	HOOK_MEMORY = 7,   /* failed allocations of the kernel */
	HOOK_REDIRECT = 8, /* what is sent to a port goes to a stand-in of the daemon, which does the harm */
	HOOK_CONNECTION = 9, /* connections that there are; each fault has programs of its own */
	HOOK_DIVERT = 10,  /* connections go to a stand-in of the daemon, which does the harm */
};

enum action {
	ACTION_ERRNO = 1,   /* fail with one of rule.error */
	ACTION_LOSE = 2,    /* lose the packet */
	ACTION_DELAY = 3,   /* sleep rule.delay_ns */
	ACTION_PRETEND = 4, /* the call is not made and returns rule.result */
	ACTION_SHORT = 5,   /* the call is made with a smaller count, see rule.result */
	ACTION_QUEUE = 6,   /* the packet takes the queue rule.queue */
	ACTION_REDIRECT = 7, /* a stand-in answers */
	ACTION_RESET = 8,   /* reset the connection */
	ACTION_CHANGE = 9,  /* a bit of the packet's data is another, and its checksum is right */
};

/* How a system call is reached. Each object serves the rules of its own mechanism, so that two never serve one rule. */
enum mechanism {
	MECHANISM_LSM = 1,
	MECHANISM_TASK_WORK = 2,
	MECHANISM_CLONES = 3,
	MECHANISM_SPIN = 4,
	MECHANISM_FMOD_RET = 5,
	MECHANISM_OVERRIDE = 6,
	MECHANISM_UPROBE = 7,
	MECHANISM_SECURITY = 8,
};

/* What a security hook is about; a rule has a set of them (1 << op). */
enum op {
	OP_OPEN,
	OP_CREATE,
	OP_READ,
	OP_WRITE,
	OP_TRUNCATE,
	OP_UNLINK,
	OP_RENAME,
	OP_MKDIR,
	OP_RMDIR,
	OP_LINK,
	OP_STAT,
	OP_SETATTR,
	OP_MMAP,
	OP_EXEC,
	OP_LOCK,
	OP_IOCTL,
	OP_SOCKET,
	OP_BIND,
	OP_CONNECT,
	OP_LISTEN,
	OP_ACCEPT,
	OP_SEND,
	OP_RECEIVE,
	OP_SHUTDOWN,
	OP_FORK,
};

enum rule_flag {
	RULE_SEEDED = 2,       /* dice from (seed, match number) */
	RULE_PER_FLOW = 4,     /* dice from (seed, flow) */
	RULE_EGRESS = 8,
	RULE_INGRESS = 16,     /* at the target's sockets */
	RULE_INCOMING = 32,    /* at the devices that packets come in by */
	RULE_PER_THREAD = 64,  /* dice from (seed, thread) */
	RULE_PER_PROCESS = 128, /* dice from (seed, process) */
	RULE_QUANTILES = 256,  /* the delay is drawn from the rule's quantiles */
	RULE_COUNT = 512,      /* ACTION_PRETEND: a call that writes returns the count that its caller asked for */
	RULE_SHARE = 1024,     /* ACTION_SHORT: result is a share of the count in 1/65536; else it is a number of bytes */
	RULE_BEYOND = 2048,    /* of writes and truncations only those that make the file grow */
	RULE_WRITING = 4096,   /* of opens only those for writing */
	RULE_INET = 8192,      /* of HOOK_SECURITY: only IPv4 and IPv6 sockets, whose peer must fit */
};

/* What is asked of a block device, or of the allocators; a rule has a set of them. */
enum request {
	REQUEST_READ = 1,
	REQUEST_WRITE = 2,
	REQUEST_METADATA = 4, /* also metadata and journals of file systems */
	REQUEST_SWAP = 8,     /* also swapping */
	REQUEST_FLUSH = 16,   /* also requests without data, which empty the disk's cache */
	REQUEST_SLAB = 32,
	REQUEST_PAGE = 64,
};

/* An error and how likely it is: chosen when the dice, in [0, 2^32), is below; the last one is chosen in any case. */
struct weighted_error {
	__u32 below;
	__s32 error; /* -4095..-1 */
};

enum predicate_op {
	EQUAL = 1,
	NOT_EQUAL,
	LESS,
	LESS_EQUAL,
	GREATER,
	GREATER_EQUAL,
	ANY_BIT, /* argument & value */
	NO_BIT,  /* !(argument & value) */
};

/* A condition on an argument of the call, as unsigned numbers. */
struct predicate {
	__u64 value;
	__u64 mask; /* of the argument: all bits, or the low 32 for an int */
	__u32 argument; /* 0..5 */
	__u32 op;       /* enum predicate_op */
};

enum filter_flag {
	FILTER_COMM = 1,
	FILTER_UID = 2,
	FILTER_FD = 4,
	FILTER_FD_TYPE = 8,
	FILTER_EXECUTABLE = 16, /* the rule's second glob table */
	FILTER_PATH = 32,       /* the rule's first glob table */
};

/* What a descriptor is; a rule has a set of them. */
enum fd_type {
	FD_FILE = 1, /* regular files and directories */
	FD_SOCKET = 2,
	FD_PIPE = 4,
	FD_TTY = 8,
	FD_OTHER = 16,
};

/* Which of the target's calls are meant. Everything must fit. */
struct filter {
	__u32 flags; /* enum filter_flag */
	__u32 predicates;
	struct predicate predicate[MAX_PREDICATES];
	char comm[COMM_SIZE];
	__u32 uid;
	__u32 fd_types;
	__u32 fd_low;
	__u32 fd_high;
};

enum traffic_flag {
	TRAFFIC_PEERS = 1,       /* the peers trie decides; else every peer fits */
	TRAFFIC_OPENING = 2,     /* of TCP only the segments that open a connection: SYN without ACK */
	TRAFFIC_ESTABLISHED = 4, /* of TCP only the others */
	TRAFFIC_PAYLOAD = 8,     /* of TCP only segments that carry data */
	TRAFFIC_SPARE_SSH = 16,  /* not TCP whose local port is 22 */
};

/* Ports in host byte order, both ends included. */
struct port_range {
	__u16 low;
	__u16 high;
};

/* Which connections or packets are meant. Everything must fit. */
struct traffic {
	__u64 dscp; /* set of 1 << DSCP; 0: any */
	__u32 flags; /* enum traffic_flag */
	__u32 min_length; /* of the packet from its IP header on, in bytes */
	__u16 protocol;   /* IPPROTO_*, 0: any; IPPROTO_ICMP means ICMPv6 too */
	__u8 ports;       /* how many of port count; 0: any */
	__u8 local_ports; /* how many of local_port count; 0: any */
	__u8 tcp_mask;  /* flags of TCP that are looked at, as in its header */
	__u8 tcp_flags; /* and those of them that must be set; the others must not */
	__u16 pad;
	struct port_range port[MAX_PORTS]; /* of the peer */
	struct port_range local_port[MAX_PORTS];
};

/* A state of a chain, in chances of 1/2^32. */
struct chain_state {
	__u64 lose;                    /* a packet that finds the chain here */
	__u64 below[CHAIN_STATES - 1]; /* it goes on to the first state whose number is above the dice, else to the last */
};

/* How a rule loses packets that do not fall one by one: a Markov chain, which each packet moves on before it is decided. */
struct loss {
	struct chain_state state[CHAIN_STATES];
	__u32 burst; /* packets in a row that are lost with each that the chain loses, itself included; 0: there is no chain */
	__u32 pad;
};

/* Where the chain of a rule is, in one direction. */
struct chain {
	struct bpf_spin_lock lock;
	__u32 state;
	__u64 packets; /* that it has decided */
	__u32 left;    /* of a burst, still to be lost */
	__u32 pad;
};

/* With the class of a queue: it may flip bits of what comes in. */
#define QUEUE_FLIPS 0x8000

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
	__u32 stat; /* slot of the counters: the parts of a fault share those of its first rule */
	struct traffic traffic; /* of all that is done to sockets and packets */
	__u64 calls[MAX_SYSCALL / 64]; /* of HOOK_SECURITY: all zero means any */
	__u64 interval_ns; /* at least so long between two injections; 0: no limit */
	__s64 result;      /* of ACTION_PRETEND and ACTION_SHORT */
	__u32 ops;         /* of HOOK_SECURITY and HOOK_CONNECT: set of enum op */
	__u32 errors;      /* how many of error count */
	struct weighted_error error[MAX_ERRORS];
	struct filter filter;
	__u64 low; /* of HOOK_BLOCK: sectors of 512 bytes from the start of the device; of HOOK_MEMORY: orders of pages */
	__u64 high; /* both ends included; of HOOK_CONNECTION: how many connections there may be */
	__u32 device;   /* of HOOK_BLOCK: dev_t of the kernel */
	__u32 requests; /* of HOOK_BLOCK and HOOK_MEMORY: what is meant (enum request) */
	__u32 mechanism; /* of calls: the one whose programs serve the rule (enum mechanism) */
	__u32 queue;     /* of HOOK_PACKET: the class of our queueing discipline that hurts the packet, with QUEUE_FLIPS; 0: none */
	struct loss loss; /* of ACTION_LOSE: instead of the threshold */
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
	__u64 next_ns;  /* not before this the next injection, with interval_ns */
	__u64 unknown;  /* calls that a filter could not judge: no path, no descriptor; they are not matched */
	__u64 programs; /* of 32 bits that were started in the target meanwhile; by the rule's own slot, as the next */
	__u64 rings;    /* of io_uring that were made there */
	__u64 pad[4];
};

/* What the arguments of a call are: number of the argument + 1, 0: there is none. */
struct call_shape {
	__u8 fd;    /* the descriptor it is about */
	__u8 count; /* how many bytes it shall move */
	__u8 iov;   /* or the vector of buffers, whose length follows */
	__u8 writes; /* 1: it returns how many bytes it wrote */
	__u32 ops;   /* what security hooks are about of which exactly one runs, once, in the call; set of enum op */
};

/* A distribution of delays: quantile i of QUANTILES, in ns. */
struct quantiles {
	__u64 ns[QUANTILES + 1];
};

#define GLOB_ENTRIES 32768
#define GLOB_SLACK 256 /* what a class may add to the last state */
#define GLOB_USES 2    /* tables that a rule may have */

/* The globs of a rule as one automaton over the bytes of a path (glob.go). A state is named by the offset in bytes of its row
 * in next; a row has a column for each class of bytes, from 1. */
struct glob_table {
	__u8 class_of[256];
	__u16 start;
	__u16 all; /* from here on everything fits; 0: there is no such state */
	__u16 pad[2];
	__u16 next[GLOB_ENTRIES + GLOB_SLACK]; /* column 0: 1 if the path fits that ends here. State 0: nothing fits any more */
};

/* Where there are targets for a hook. */
struct levels {
	__u8 plus_one[MAX_LEVEL + 1]; /* levels of the tree that have any: level + 1, deepest first, 0 ends the list */
	__u64 ids[TARGET_BITS / 64];  /* bit (id % TARGET_BITS) of a cgroup is set if it is one; of hardly any other cgroup it is set too */
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
	__u64 target; /* the cgroup that they are the rules of */
	struct rule_ref refs[MAX_RULES_PER_SET];
};

/* Key of the peers trie. An IPv4 address is in the first word, so that the kernel has done with it by comparing 64 bits. */
struct peer_key {
	__u32 prefix; /* 32 (space) + 0..32 or 0..128 */
	__u32 space;  /* slot << 1, + 1 for IPv6; big endian */
	__u32 address[4]; /* network order */
};

/* What the peers trie says of an address; the longest prefix decides. */
struct peer_verdict {
	__u16 hurt;
	__u16 spared[MAX_SPARED]; /* but not these ports of it; 0: none */
};

/* Where a target's traffic in a network namespace goes instead: ports of the loopback address, the first of which are in use, each
 * for one server. */
struct stand_in_key {
	__u64 netns; /* cookie */
	__u64 target;
	__u32 family; /* 4 or 6 */
	__u32 hook; /* HOOK_REDIRECT, or HOOK_DIVERT, which has one port */
};

struct stand_in {
	__u64 used;
	__u16 ports[MAX_SERVERS]; /* host order */
};

/* A server in whose place a stand-in answers, and by which of its ports. */
struct server {
	__u32 address[4]; /* network order; IPv4 as ::ffff:a.b.c.d */
	__u32 port; /* host order */
	__u32 pad;
};

struct server_key {
	__u64 netns;
	__u64 target;
	struct server server;
};

/* The same the other way round. */
struct stand_in_port {
	__u64 netns;
	__u32 family; /* 4 or 6 */
	__u32 port; /* host order */
};

/* A connection that comes to a stand-in, as that sees it. */
struct diverted {
	__u64 netns;
	__u32 address[4]; /* of the target; network order; IPv4 as ::ffff:a.b.c.d */
	__u32 port; /* host order */
	__u32 stand_in; /* its port */
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
	__u32 late_ns; /* how long it takes from when the guard should answer until the thread runs, at least */
};

#endif
