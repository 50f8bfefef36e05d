//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* override (CONFIG_BPF_KPROBE_OVERRIDE): a kprobe at the start of the call's function, which is then not run; the result may
 * be anything, 0 too. It costs more than fmod_ret. */
#define MECHANISM MECHANISM_OVERRIDE
#include "result.h"
#include "twin.h"

struct pt_regs;

FOR_TARGETS int override(struct pt_regs *ctx, const struct levels *levels, const struct call *call)
{
	struct rule_set *set = rule_set_in(levels, HOOK_RESULT, ANCESTOR);
	struct verdict verdict = {};

	if (set)
		judge(set, call, &verdict);
	if (verdict.action)
		bpf_override_return(ctx, verdict.result);
	return 0;
}

FOR_TARGETS int override_own(struct pt_regs *ctx, const struct levels *levels)
{
	struct call call = {.number = current_call()};

	return override(ctx, levels, &call);
}

SEC("kprobe")
int faultd_override(struct pt_regs *ctx)
{
	struct levels *levels = levels_if_target(HOOK_RESULT);

	return levels ? override_own(ctx, levels) : 0;
}

SEC("kprobe")
int faultd_override_twin(struct pt_regs *ctx)
{
	struct levels *levels = levels_if_target(HOOK_RESULT);

	if (!levels)
		return 0;
	struct call call = TWIN_CALL;

	return override(ctx, levels, &call);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
