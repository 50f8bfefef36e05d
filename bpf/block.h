/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The kernel's block requests, as far as faultd looks at them, and whose they are. */
#ifndef FAULTD_BLOCK_H
#define FAULTD_BLOCK_H

#include "task.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node {
	__u64 id;
};

struct cgroup_root;

struct cgroup {
	struct kernfs_node *kn;
	int level;
	struct cgroup_root *root;
	struct cgroup *ancestors[];
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
};

struct css_set {
	struct cgroup_subsys_state *subsys[1];
	struct cgroup *dfl_cgrp;
};

struct task_struct___cgroups {
	struct css_set *cgroups;
};

struct blkcg {
	struct cgroup_subsys_state css;
};

struct blkcg_gq {
	struct blkcg *blkcg;
};

struct block_device {
	__u32 bd_dev;
	__u64 bd_start_sect;
};

struct bvec_iter {
	__u64 bi_sector;
	__u32 bi_size;
};

struct bio {
	struct block_device *bi_bdev;
	__u32 bi_opf;
	__u16 bi_flags;
	struct blkcg_gq *bi_blkg;
	struct bvec_iter bi_iter;
};

#pragma clang attribute pop

enum cgroup_subsys_id {
	io_cgrp_id___here = 1,
};

enum req_flag_bits {
	__REQ_META___here = 1,
	__REQ_PRIO___here,
	__REQ_PREFLUSH___here,
	__REQ_SWAP___here,
};

/* include/linux/blk_types.h: the low byte; the numbers of these two are as old as the flags beside them. */
#define REQ_OP_MASK 0xff
#define REQ_OP_READ 0
#define REQ_OP_WRITE 1

#define request_flag(name) (1u << bpf_core_enum_value(enum req_flag_bits, __REQ_##name##___here))

/* The group to which the kernel charges I/O of the current task: its own, or the nearest above it that has the io controller. */
static __always_inline struct cgroup *charged_group(struct css_set *set)
{
	struct cgroup_subsys_state **of_controllers = (void *)&set->subsys, *css = 0;

	if (bpf_probe_read_kernel(&css, sizeof(css), of_controllers + bpf_core_enum_value(enum cgroup_subsys_id, io_cgrp_id___here)))
		return 0;
	return BPF_CORE_READ(css, cgroup);
}

/* The group whose request it is, or 0. What is charged as the current task's I/O is its own: without the io controller that is
 * the root's, which tells nothing. Anything else (writeback by a kernel thread) is that of the group it is charged to, if that
 * is of the same tree as our targets. */
static __always_inline struct cgroup *group_of(struct bio *bio)
{
	struct task_struct___cgroups *task = (void *)bpf_get_current_task_btf();
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	struct cgroup *own = BPF_CORE_READ(set, dfl_cgrp);
	struct blkcg_gq *charge = BPF_CORE_READ(bio, bi_blkg);
	struct cgroup *charged = charge ? BPF_CORE_READ(charge, blkcg, css.cgroup) : 0;

	if (!charged || charged == charged_group(set))
		return own;
	return BPF_CORE_READ(charged, root) == BPF_CORE_READ(own, root) ? charged : 0;
}

/* The id of the group's ancestor at a level; 0 if it is not so deep. */
static __always_inline __u64 ancestor_of(struct cgroup *group, __u32 level)
{
	struct cgroup **ancestors = (void *)&group->ancestors, *ancestor = 0;

	if ((int)level > BPF_CORE_READ(group, level) || bpf_probe_read_kernel(&ancestor, sizeof(ancestor), ancestors + level))
		return 0;
	return BPF_CORE_READ(ancestor, kn, id);
}

#endif
