/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The kernel's file objects, as far as faultd looks at them; CO-RE finds the fields. */
#ifndef FAULTD_VFS_H
#define FAULTD_VFS_H

#include "task.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct qstr {
	__u32 len;
	const unsigned char *name;
};

struct super_block {
	__u32 s_dev;
	unsigned long s_flags;
	unsigned long s_magic;
};

struct inode_operations {
	int (*atomic_open)(void);
};

struct inode {
	__u16 i_mode;
	__u32 i_rdev;
	__s64 i_size;
	const struct inode_operations *i_op;
	struct super_block *i_sb;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
};

struct vfsmount {
	struct dentry *mnt_root;
	struct super_block *mnt_sb;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	void *mnt_ns;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	__u32 f_flags;
	__u32 f_mode;
	__s64 f_pos;
	struct inode *f_inode;
	struct path f_path;
};

struct socket {
	struct file *file;
};

struct linux_binprm {
	struct file *file;
	char buf[8]; /* the program's first bytes, of which the kernel has more */
};

struct iattr {
	unsigned int ia_valid;
};

struct fs_struct {
	struct path root;
	struct path pwd;
};

struct fdtable {
	__u32 max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct mm_struct {
	struct file *exe_file;
};

struct task_struct___vfs {
	struct mm_struct *mm;
	struct fs_struct *fs;
	struct files_struct *files;
	const void *real_cred;
	const void *cred;
};

#pragma clang attribute pop

#define MNT_NS_INTERNAL ((void *)-22L) /* of mounts that the kernel made for itself */
#define SB_KERNMOUNT (1 << 22) /* mounted by the kernel for itself: pipes, sockets, memfds, anonymous inodes */
#define FMODE_WRITE 2
#define FMODE_EXEC 0x20 /* in f_flags: opened by execve */
#define FMODE_NOACCOUNT 0x20000000 /* files under an overlay: the overlay's own file is seen too */
#define O_APPEND 02000
#define ATTR_TIMES (1 << 4 | 1 << 5) /* in ia_valid: of access, of modification */
#define ATTR_OTHERS (1 << 0 | 1 << 1 | 1 << 2 | 1 << 3) /* mode, owner, group, size */

#endif
