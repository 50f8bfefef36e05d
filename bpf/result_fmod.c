//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* fmod_ret (error injection on, or kernels that let programs on system calls): a program before the call's function, whose
 * result other than 0 becomes the call's. It returns long: an int would reach user space without its sign. */
#define MECHANISM MECHANISM_FMOD_RET
#include "result.h"
#include "targets_only.h"
#include "twin.h"

FOR_TARGETS long result_of(const struct levels *levels, const struct call *call)
{
	struct rule_set *set = rule_set_in(levels, HOOK_RESULT, ANCESTOR);
	struct verdict verdict = {};

	if (set)
		judge(set, call, &verdict);
	return verdict.result;
}

FOR_TARGETS long result_of_own(const struct levels *levels)
{
	struct call call = {.number = current_call()};

	return result_of(levels, &call);
}

SEC("fmod_ret")
long faultd_fmod(void *ctx)
{
	targets_go_on(ctx, HOOK_RESULT);
	return 0;
}

SEC("fmod_ret")
long faultd_fmod_target(void *ctx)
{
	struct levels *levels = levels_if_target(HOOK_RESULT);

	on_stack_of_thread(ctx);
	return levels ? result_of_own(levels) : 0;
}

SEC("fmod_ret")
long faultd_fmod_twin(void *ctx)
{
	struct levels *levels = levels_if_target(HOOK_RESULT);

	if (!levels)
		return 0;
	struct call call = TWIN_CALL;

	return result_of(levels, &call);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
