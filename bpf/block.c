//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* fmod_ret on should_fail_bio, which the kernel asks before each request to a block device: any result but 0 and the request
 * ends with EIO. A request that the kernel splits is asked about again for its rest. */
#include "match.h"
#include "block.h"

/* The bit of bi_flags that says that the sector counts from the start of the disk, not of the partition (BIO_REMAPPED). */
const volatile __u32 bio_remapped;

/* What rules look at. */
struct block_request {
	__u64 low; /* sectors from the start of the device */
	__u64 high;
	__u32 device;
	__u32 requests; /* enum request: all of them must be meant; 0: it is nothing that fails */
};

static __always_inline __u32 requests_of(__u32 opf, __u32 size)
{
	__u32 requests;

	if ((opf & REQ_OP_MASK) == REQ_OP_READ)
		requests = REQUEST_READ;
	else if ((opf & REQ_OP_MASK) == REQ_OP_WRITE)
		requests = REQUEST_WRITE;
	else
		return 0;
	if (opf & (request_flag(META) | request_flag(PRIO)))
		requests |= REQUEST_METADATA;
	if (opf & request_flag(SWAP))
		requests |= REQUEST_SWAP;
	if (!size)
		requests |= REQUEST_FLUSH;
	return requests;
}

static __always_inline void read_request(struct bio *bio, struct block_request *request)
{
	struct block_device *device = BPF_CORE_READ(bio, bi_bdev);
	__u32 size = BPF_CORE_READ(bio, bi_iter.bi_size);

	request->device = BPF_CORE_READ(device, bd_dev);
	request->low = BPF_CORE_READ(bio, bi_iter.bi_sector);
	if ((BPF_CORE_READ(bio, bi_flags) >> bio_remapped) & 1)
		request->low -= BPF_CORE_READ(device, bd_start_sect);
	request->high = request->low + (size ? (size - 1) >> 9 : 0);
	request->requests = requests_of(BPF_CORE_READ(bio, bi_opf), size);
}

static __always_inline int request_is_meant(const struct rule *rule, const struct block_request *request)
{
	if (request->device != rule->device || !request->requests || (request->requests & ~rule->requests))
		return 0;
	return request->low <= rule->high && request->high >= rule->low;
}

/* Tries a rule; once the request fails, it only counts that the rule was looked at. */
LOOP_BODY int block_rule(const struct rule_ref *ref, const struct permit *permit, const struct block_request *request, __s64 *error)
{
	if (!ref || !permit || !request || !error)
		return 0;
	struct stat *stat;
	struct rule *rule = rule_of(ref, permit, &stat);

	if (!rule)
		return 0;
	atomic_inc(&stat->evaluated);
	if (*error || !request_is_meant(rule, request))
		return 0;
	__u64 number = harm_due(rule, stat, 0);

	if (number)
		*error = fail_with(rule, stat, permit, number);
	return 0;
}

SEC("fmod_ret")
long faultd_block(__u64 *ctx)
{
	struct bio *bio = (void *)ctx[0];
	struct cgroup *group = group_of(bio);
	__s64 error = 0;

	if (!group)
		return 0;
#define ANCESTOR(level) ancestor_of(group, level)
	struct rule_set *set = find_rule_set(HOOK_BLOCK, ANCESTOR);

	if (!set)
		return 0;
	struct permit permit = permit_read();
	struct block_request request = {};

	read_request(bio, &request);
	for (__u32 i = 0; i < MAX_RULES_PER_SET && i < set->count; i++)
		block_rule(&set->refs[i], &permit, &request, &error);
	return error;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
