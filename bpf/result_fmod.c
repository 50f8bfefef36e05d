//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* fmod_ret (error injection on, or kernels that let programs on system calls): a program before the call's function, whose
 * result other than 0 becomes the call's. It returns long: an int would reach user space without its sign. */
#define MECHANISM MECHANISM_FMOD_RET
#include "result.h"
#include "twin.h"

SEC("fmod_ret")
long faultd_fmod(void *ctx)
{
	struct rule_set *set = find_rule_set(HOOK_RESULT, ANCESTOR);
	struct verdict verdict = {};

	if (!set)
		return 0;
	struct call call = {.number = current_call()};

	judge(set, &call, &verdict);
	return verdict.result;
}

SEC("fmod_ret")
long faultd_fmod_twin(void *ctx)
{
	struct rule_set *set = find_rule_set(HOOK_RESULT, ANCESTOR);
	struct verdict verdict = {};

	if (!set)
		return 0;
	struct call call = TWIN_CALL;

	judge(set, &call, &verdict);
	return verdict.result;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
