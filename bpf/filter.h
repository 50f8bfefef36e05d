/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which of the target's calls a rule means. */
#ifndef FAULTD_FILTER_H
#define FAULTD_FILTER_H

#include "call.h"
#include "glob.h"

enum fit {
	FITS_NOT = 0,
	FITS = 1,
	FIT_UNKNOWN = 2, /* it cannot be judged: harm is not done, and it is counted */
};

static __always_inline int call_fits(const struct rule *rule, __u32 call)
{
	return call < MAX_SYSCALL && (rule->calls[(call / 64) % (MAX_SYSCALL / 64)] >> (call % 64)) & 1;
}

static __always_inline int predicate_holds(const struct predicate *predicate, __u64 argument)
{
	__u64 value = predicate->value, is = argument & predicate->mask;

	switch (predicate->op) {
	case EQUAL: return is == value;
	case NOT_EQUAL: return is != value;
	case LESS: return is < value;
	case LESS_EQUAL: return is <= value;
	case GREATER: return is > value;
	case GREATER_EQUAL: return is >= value;
	case ANY_BIT: return (is & value) != 0;
	case NO_BIT: return (is & value) == 0;
	}
	return 0;
}

LOOP_BODY int predicate_fits(const struct predicate *predicate, const struct call *call)
{
	if (!predicate || !call)
		return FITS_NOT;
	if (!has_argument(call, predicate->argument))
		return FIT_UNKNOWN;
	return predicate_holds(predicate, argument(call, predicate->argument)) ? FITS : FITS_NOT;
}

/* A program's own name, as in /proc/PID/comm of the thread. */
static __always_inline int comm_is(const char *want)
{
	char comm[COMM_SIZE] = {};

	bpf_get_current_comm(comm, sizeof(comm));
	for (int i = 0; i < COMM_SIZE / 8; i++)
		if (((__u64 *)comm)[i] != ((const __u64 *)want)[i])
			return 0;
	return 1;
}

#define S_IFMT 0170000
#define S_IFREG 0100000
#define S_IFDIR 0040000
#define S_IFCHR 0020000
#define S_IFIFO 0010000
#define S_IFSOCK 0140000

/* Terminals by their major numbers (Documentation/admin-guide/devices.txt): 4 consoles, 5 /dev/tty, 136.. pseudo-terminals, 204 serial. */
static __always_inline int is_tty(__u32 device)
{
	__u32 major = device >> 20;

	return major == 4 || major == 5 || (major >= 136 && major <= 143) || major == 204;
}

static __always_inline __u32 type_of(struct inode *inode)
{
	switch (BPF_CORE_READ(inode, i_mode) & S_IFMT) {
	case S_IFREG:
	case S_IFDIR: return FD_FILE;
	case S_IFSOCK: return FD_SOCKET;
	case S_IFIFO: return FD_PIPE;
	case S_IFCHR: return is_tty(BPF_CORE_READ(inode, i_rdev)) ? FD_TTY : FD_OTHER;
	}
	return FD_OTHER;
}

/* The file that the call is about, or 0. */
static __always_inline struct file *file_of_call(const struct call *call)
{
	__u32 fd;

	if (call->file)
		return (struct file *)call->file;
	return fd_of_call(call, &fd) ? file_of(fd) : 0;
}

/* The inode that the call is about, or 0. */
static __always_inline struct inode *inode_of_call(const struct call *call)
{
	struct path *path = (struct path *)call->path;
	struct file *file;

	if (call->inode)
		return (struct inode *)call->inode;
	if (path)
		return BPF_CORE_READ(path, dentry, d_inode);
	file = file_of_call(call);
	return file ? BPF_CORE_READ(file, f_inode) : 0;
}

static __always_inline enum fit descriptor_fits(const struct filter *filter, const struct call *call)
{
	__u32 fd;

	if (filter->flags & FILTER_FD) {
		if (!fd_of_call(call, &fd))
			return FIT_UNKNOWN;
		if (fd < filter->fd_low || fd > filter->fd_high)
			return FITS_NOT;
	}
	if (filter->flags & FILTER_FD_TYPE) {
		struct inode *inode = inode_of_call(call); /* of an entry of a directory: the directory's */

		if (!inode)
			return FIT_UNKNOWN;
		if (!(type_of(inode) & filter->fd_types))
			return FITS_NOT;
	}
	return FITS;
}

/* Everything but the globs, cheapest first. */
LOOP_BODY int plain_filter_fits(const struct filter *filter, const struct call *call)
{
	if (!filter || !call)
		return FITS_NOT;
	for (__u32 i = 0; i < MAX_PREDICATES && i < filter->predicates; i++) {
		enum fit fit = predicate_fits(&filter->predicate[i], call);

		if (fit != FITS)
			return fit;
	}
	if ((filter->flags & FILTER_UID) && (__u32)bpf_get_current_uid_gid() != filter->uid)
		return FITS_NOT;
	if ((filter->flags & FILTER_COMM) && !comm_is(filter->comm))
		return FITS_NOT;
	return descriptor_fits(filter, call);
}

/* Whether a path that was found fits the rule's globs; gives the path back. What is in no directory of the target fits none. */
static __always_inline enum fit path_fits(__u32 slot, enum glob_use use, struct path_text *path)
{
	enum fit fit = path->state == PATH_UNKNOWN ? FIT_UNKNOWN : FITS_NOT;

	if (path->state == PATH_KNOWN && globs_fit(slot, use, path))
		fit = FITS;
	path_release(path);
	return fit;
}

/* Which path is looked at, in this order. */
enum whose_path {
	OF_EXECUTABLE, /* the caller's program */
	OF_FILE,       /* that the call is about */
	OF_NEW_PLACE,  /* where a renamed file goes */
};

static __always_inline int place_of_file(const struct call *call, struct path_text *path)
{
	struct file *file;

	if (call->dentry) {
		at_entry((struct path *)call->path, (struct dentry *)call->dentry, path);
		return 1;
	}
	if (call->path) {
		at_path((struct path *)call->path, path);
		return 1;
	}
	file = file_of_call(call);
	if (file)
		at_file(file, path);
	return file != 0;
}

static __always_inline int place_of_executable(struct path_text *path)
{
	struct task_struct___vfs *task = (void *)bpf_get_current_task_btf();
	struct file *file = BPF_CORE_READ(task, mm, exe_file);

	if (file)
		at_file(file, path);
	return file != 0;
}

/* Where that path is; 0 if it cannot be told. */
static __always_inline int place_of(enum whose_path whose, const struct call *call, struct path_text *path)
{
	switch (whose) {
	case OF_EXECUTABLE: return place_of_executable(path);
	case OF_NEW_PLACE: at_entry((struct path *)call->new_path, (struct dentry *)call->new_dentry, path); return 1;
	default: return place_of_file(call, path);
	}
}

/* One function, called in one place, for all of them: the verifier of newer kernels (seen on 7.3) follows each way to a function that is given
 * something on the stack, and from there on to those that it calls. */
LOOP_BODY int glob_of_path_fits(__u32 slot, __u32 whose, const struct call *call)
{
	struct path_text path = {};

	if (!call)
		return FITS_NOT;
	if (!place_of(whose, call, &path))
		return FIT_UNKNOWN;
	path_find(&path);
	return path_fits(slot, whose == OF_EXECUTABLE ? GLOB_EXECUTABLE : GLOB_PATH, &path);
}

/* Whether that path is asked for, after what was found of the one before. */
static __always_inline int asks_for(enum whose_path whose, __u32 flags, const struct call *call, enum fit before)
{
	switch (whose) {
	case OF_EXECUTABLE: return flags & FILTER_EXECUTABLE;
	case OF_FILE: return flags & FILTER_PATH;
	default: return (flags & FILTER_PATH) && before != FITS && call->new_dentry;
	}
}

LOOP_BODY int globs_of_filter_fit(__u32 flags, __u32 slot, const struct call *call)
{
	enum fit fit = FITS;

	if (!call)
		return FITS_NOT;
#pragma clang loop unroll(disable)
	for (__u32 whose = OF_EXECUTABLE; whose <= OF_NEW_PLACE; whose++) {
		if (!asks_for(whose, flags, call, fit))
			continue;
		fit = glob_of_path_fits(slot, whose, call);
		if (whose == OF_EXECUTABLE && fit != FITS)
			break;
	}
	return fit;
}

static __always_inline enum fit filter_fits(const struct rule *rule, __u32 slot, const struct call *call)
{
	enum fit fit;

	if (!rule->filter.flags && !rule->filter.predicates)
		return FITS;
	fit = plain_filter_fits(&rule->filter, call);
	if (fit != FITS || !(rule->filter.flags & (FILTER_PATH | FILTER_EXECUTABLE)))
		return fit;
	return globs_of_filter_fit(rule->filter.flags, slot, call);
}

/* Whether the rule, in that slot, means the call; what cannot be judged is counted, and not meant. */
static __always_inline int call_is_meant(const struct rule *rule, __u32 slot, struct stat *stat, const struct call *call)
{
	enum fit fit = filter_fits(rule, slot, call);

	if (fit == FIT_UNKNOWN)
		atomic_inc(&stat->unknown);
	return fit == FITS;
}

#endif
