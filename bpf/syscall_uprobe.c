//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* uprobe (kernels that let such programs write registers, seen on 7.3; x86-64): a program on the instruction before the
 * `syscall` instructions of a file that the target runs. It does that instruction itself and moves on, so that nothing runs out of its
 * place; if the call shall not be made it moves on behind it. Who maps the same file comes through here too. */
#define MECHANISM MECHANISM_UPROBE
#include "result.h"

/* The kernel's struct pt_regs, which is the context. */
struct user_regs {
	__u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};

#define SYSCALL_LENGTH 2

enum step_kind {
	STEP_CONSTANT = 1,
	STEP_SUM = 2,
	STEP_LOAD = 3,
	STEP_SIGNED = 4,
};

/* By thread, the `syscall` instruction that it was last let go to: calls that come from elsewhere were not seen here. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u64);
} faultd_passed SEC(".maps");

/* A step as syscallstep.go writes it. */
#define STEP_LENGTH(step) ((step)&15)
#define STEP_KIND(step) (((step) >> 4) & 15)
#define STEP_GAP(step) (((step) >> 8) & 15)
#define STEP_TO(step) (((step) >> 12) & 15)
#define STEP_FROM(step) (((step) >> 16) & 31)
#define STEP_NARROW(step) (((step) >> 21) & 1)
#define STEP_PLACE(step) (((step) >> 24) & 0xff)
#define STEP_CONSTANT_OF(step) ((__s64)(step) >> 32)

/* The compiler must not join the accesses to one with a computed place, which the verifier refuses. */
#define CASES(DO) \
	DO(0, ax) DO(1, cx) DO(2, dx) DO(3, bx) DO(5, bp) DO(6, si) DO(7, di) \
	DO(8, r8) DO(9, r9) DO(10, r10) DO(11, r11) DO(12, r12) DO(13, r13) DO(14, r14) DO(15, r15)
#define READ(NUMBER, NAME)                                \
	case NUMBER: {                                    \
		__u64 value = *(volatile __u64 *)&regs->NAME; \
		asm volatile("" : "+r"(value));           \
		return value;                             \
	}
#define WRITE(NUMBER, NAME)                             \
	case NUMBER:                                    \
		*(volatile __u64 *)&regs->NAME = value; \
		asm volatile("");                       \
		return;

static __always_inline __u64 read_register(struct user_regs *regs, __u32 number, __u64 next)
{
	switch (number) {
	CASES(READ)
	READ(4, sp)
	}
	return next;
}

static __always_inline void write_register(struct user_regs *regs, __u32 number, __u64 value)
{
	switch (number) {
	CASES(WRITE)
	}
}

/* The value that the step brings; 0: memory cannot be read now. */
static __always_inline int step_value(struct user_regs *regs, __u64 step, __u64 next, __u64 *value)
{
	*value = STEP_CONSTANT_OF(step);
	if (STEP_KIND(step) != STEP_CONSTANT)
		*value += read_register(regs, STEP_FROM(step), next);
	if (STEP_KIND(step) == STEP_LOAD && bpf_probe_read_user(value, STEP_NARROW(step) ? 4 : 8, (void *)*value))
		return 0;
	if (STEP_KIND(step) == STEP_SIGNED)
		*value = (__s32)*value;
	else if (STEP_NARROW(step))
		*value = (__u32)*value;
	return 1;
}

/* Always empty. Newer kernels give programs of this type a stack for each processor, as they let no two threads into a kprobe at
 * once; into a uprobe they do, when the first is preempted, and what it keeps there (these registers' address) is then the other's
 * (seen on 7.3: programs crashed and hung). A program with a tail call runs on the stack of its thread. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} faultd_nowhere SEC(".maps");

SEC("uprobe.multi")
int faultd_uprobe(struct user_regs *regs)
{
	__u64 step = bpf_get_attach_cookie(regs), next = regs->ip + STEP_LENGTH(step), value;
	struct verdict verdict = {};

	if (!regs->ip) /* never, which the verifier does not know */
		bpf_tail_call(regs, &faultd_nowhere, 0);
	/* A file may be attached to for several calls and targets, and under several names. The first one to come here does
	 * it for all, and moves on. */
	if ((regs->ip & 0xff) != STEP_PLACE(step) || !step_value(regs, step, next, &value))
		return 0;
	write_register(regs, STEP_TO(step), value);
	regs->ip = next;
	struct rule_set *set = find_rule_set(HOOK_RESULT, ANCESTOR);

	if (!set)
		return 0;
	__u64 number = regs->ax;
	struct call call = {.number = number < MAX_SYSCALL ? number : NO_CALL};

	judge(set, &call, &verdict);
	__u64 behind = next + STEP_GAP(step) + SYSCALL_LENGTH;

	if (verdict.action && verdict.action != ACTION_SHORT) {
		regs->ax = verdict.result;
		regs->ip = behind;
		return 0;
	}
	__u32 tid = bpf_get_current_pid_tgid();

	if (verdict.action == ACTION_SHORT)
		regs->dx = verdict.result;
	bpf_map_update_elem(&faultd_passed, &tid, &behind, BPF_ANY);
	return 0;
}

struct pt_regs___ip {
	unsigned long ip;
} __attribute__((preserve_access_index));

const volatile __u32 call_number;
__u64 unseen;

LOOP_BODY int is_served(const struct rule_ref *ref, const struct permit *permit)
{
	if (!ref || !permit)
		return 0;
	struct rule *rule = rule_at(ref->slot, ref->serial, permit);

	return rule && rule->mechanism == MECHANISM && call_fits(rule, call_number);
}

/* On the call's function: counts what came from a place that has no program, or not yet. A call that is begun again after a
 * signal comes from where it came before. */
SEC("fentry")
int faultd_arrived(void *ctx)
{
	struct rule_set *set = find_rule_set(HOOK_RESULT, ANCESTOR);
	__u32 tid = bpf_get_current_pid_tgid(), served = 0;

	if (!set)
		return 0;
	__u64 *passed = bpf_map_lookup_elem(&faultd_passed, &tid);

	if (passed && *passed == ((struct pt_regs___ip *)current_regs())->ip)
		return 0;
	struct permit permit = permit_read();

	for (__u32 i = 0; i < MAX_RULES_PER_SET && i < set->count; i++)
		served |= is_served(&set->refs[i], &permit);
	if (served)
		atomic_inc(&unseen);
	return 0;
}

/* Processes of targets that have mapped code; the daemon attaches to what is new to it. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 << 10);
} faultd_mapped SEC(".maps");

__u64 mapped_lost;

#define PROT_EXEC 4

/* After vm_mmap_pgoff(file, addr, len, prot, flag, pgoff), through which programs and libraries are mapped alike. */
SEC("fexit/vm_mmap_pgoff")
int faultd_mmap(__u64 *ctx)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;

	if (!ctx[0] || !(ctx[3] & PROT_EXEC) || !find_rule_set(HOOK_RESULT, ANCESTOR))
		return 0;
	if (bpf_ringbuf_output(&faultd_mapped, &tgid, sizeof(tgid), 0))
		atomic_inc(&mapped_lost);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
