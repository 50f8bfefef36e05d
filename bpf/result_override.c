//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* override (CONFIG_BPF_KPROBE_OVERRIDE): a kprobe at the start of the call's function, which is then not run; the result may
 * be anything, 0 too. It costs more than fmod_ret. */
#define MECHANISM MECHANISM_OVERRIDE
#include "result.h"
#include "twin.h"

struct pt_regs;

SEC("kprobe")
int faultd_override(struct pt_regs *ctx)
{
	struct rule_set *set = find_rule_set(HOOK_RESULT, ANCESTOR);
	struct verdict verdict = {};

	if (!set)
		return 0;
	struct call call = {.number = current_call()};

	judge(set, &call, &verdict);
	if (verdict.action)
		bpf_override_return(ctx, verdict.result);
	return 0;
}

SEC("kprobe")
int faultd_override_twin(struct pt_regs *ctx)
{
	struct rule_set *set = find_rule_set(HOOK_RESULT, ANCESTOR);
	struct verdict verdict = {};

	if (!set)
		return 0;
	struct call call = TWIN_CALL;

	judge(set, &call, &verdict);
	if (verdict.action)
		bpf_override_return(ctx, verdict.result);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
