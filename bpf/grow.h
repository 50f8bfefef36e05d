/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Whether a write or a truncation makes its file grow, from the call's arguments. */
#ifndef FAULTD_GROW_H
#define FAULTD_GROW_H

#include "filter.h"

#define RWF_APPEND 0x10
#define FREEING_MODES (2 | 8) /* FALLOC_FL_PUNCH_HOLE, FALLOC_FL_COLLAPSE_RANGE */

/* The numbers of the calls that move a file's end, on this machine; NO_CALL: there is none. */
const volatile struct growing_calls {
	__u32 write, pwrite64, writev, pwritev, pwritev2, fallocate, truncate, ftruncate, copy_file_range, sendfile;
} growing_calls = {};

/* Calls that open files; their O_TRUNC makes no file grow. */
const volatile __u64 opening_calls[MAX_SYSCALL / 64];

static __always_inline int opens(__u32 number)
{
	return number < MAX_SYSCALL && (opening_calls[(number / 64) % (MAX_SYSCALL / 64)] >> (number % 64)) & 1;
}

/* Whether the call's own arguments are about the file: io_uring goes on with requests inside other calls. */
static __always_inline int is_of_call(const struct call *call, struct file *file)
{
	return file_of(argument(call, call->number == growing_calls.copy_file_range ? 2 : 0)) == file;
}

/* The position in out to which the call writes; -1: it cannot be told. */
static __always_inline __s64 position_of(const struct call *call, struct file *file)
{
	__u32 number = call->number;
	__s64 position = -1;
	__u64 at;

	if (number == growing_calls.write || number == growing_calls.writev || number == growing_calls.sendfile)
		return BPF_CORE_READ(file, f_pos);
	if (number == growing_calls.pwrite64 || number == growing_calls.pwritev)
		return argument(call, 3);
	if (number == growing_calls.pwritev2) {
		position = argument(call, 3);
		return position == -1 ? BPF_CORE_READ(file, f_pos) : position;
	}
	if (number == growing_calls.copy_file_range) {
		at = argument(call, 3);
		if (!at)
			return BPF_CORE_READ(file, f_pos);
		if (bpf_probe_read_user(&position, sizeof(position), (void *)at))
			return -1;
	}
	return position;
}

/* What is left to read of the file that the call copies from; -1: it cannot be told. */
static __always_inline __s64 left_to_copy(struct file *from, __u64 offset)
{
	struct inode *inode = BPF_CORE_READ(from, f_inode);
	__s64 position = BPF_CORE_READ(from, f_pos), size = BPF_CORE_READ(inode, i_size);

	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) != S_IFREG)
		return -1;
	if (offset && bpf_probe_read_user(&position, sizeof(position), (void *)offset))
		return -1;
	return size > position ? size - position : 0;
}

/* How many bytes the call writes at most; -1: it cannot be told. */
static __always_inline __s64 count_written(const struct call *call)
{
	__u32 number = call->number;
	struct file *from;
	__s64 count, left;

	if (number == growing_calls.write || number == growing_calls.pwrite64)
		return argument(call, 2);
	if (number == growing_calls.writev || number == growing_calls.pwritev || number == growing_calls.pwritev2)
		return iov_sum(argument(call, 1), argument(call, 2), word_of(call));
	if (number == growing_calls.copy_file_range) {
		from = file_of(argument(call, 0));
		count = argument(call, 4);
		left = from ? left_to_copy(from, argument(call, 1)) : -1;
	} else if (number == growing_calls.sendfile) {
		from = file_of(argument(call, 1));
		count = argument(call, 3);
		left = from ? left_to_copy(from, argument(call, 2)) : -1;
	} else {
		return -1;
	}
	return left >= 0 && left < count ? left : count;
}

static __always_inline int appends(const struct call *call, struct file *file)
{
	return (BPF_CORE_READ(file, f_flags) & O_APPEND) ||
	       (call->number == growing_calls.pwritev2 && (argument(call, 5) & RWF_APPEND));
}

static __always_inline enum fit write_grows(const struct call *call, struct file *file, __s64 size)
{
	__s64 count = count_written(call), position = appends(call, file) ? size : position_of(call, file);

	if (count < 0 || position < 0)
		return FIT_UNKNOWN;
	return count > 0 && position + count > size ? FITS : FITS_NOT;
}

static __always_inline enum fit truncation_grows(const struct call *call, struct file *file, __s64 size)
{
	if (opens(call->number))
		return FITS_NOT;
	if (call->number != growing_calls.truncate && (call->number != growing_calls.ftruncate || (file && !is_of_call(call, file))))
		return FIT_UNKNOWN;
	return (__s64)argument(call, 1) > size ? FITS : FITS_NOT;
}

/* Whether a write or truncation needs more of the disk. Calls whose arguments do not tell (io_uring, io_submit, splice)
 * cannot be judged. fallocate does, unless it gives back. */
LOOP_BODY int grows(const struct call *call)
{
	struct file *file;
	struct path *path;
	struct inode *inode;
	__s64 size;

	if (!call)
		return FITS_NOT;
	file = (struct file *)call->file;
	path = (struct path *)call->path;
	inode = file ? BPF_CORE_READ(file, f_inode) : BPF_CORE_READ(path, dentry, d_inode);
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) != S_IFREG)
		return FITS_NOT;
	size = BPF_CORE_READ(inode, i_size);
	if (call->op == OP_TRUNCATE)
		return truncation_grows(call, file, size);
	if (!file || !is_of_call(call, file))
		return FIT_UNKNOWN;
	if (call->number == growing_calls.fallocate)
		return argument(call, 1) & FREEING_MODES ? FITS_NOT : FITS;
	return write_grows(call, file, size);
}

#endif
