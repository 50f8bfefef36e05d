/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The path of a file as the current task sees it: from its dentry up to the task's root, over mount points. What is between
 * is read without locks: a walk during a rename or a move of a mount may see either place. Renamed files have their new
 * name, deleted ones their last. */
#ifndef FAULTD_PATH_H
#define FAULTD_PATH_H

#include "match.h"
#include "vfs.h"

#define PATH_SIZE 4096  /* longest path */
#define PATH_DEPTH 64   /* most components and mounts together */
#define PATH_NAME 255   /* longest component */
#define PATH_BUFFERS 4  /* by CPU */

/* A struct of the kernel's that begins with four words, as which names are read. */
struct pt_regs___words {
	__u64 word[4];
};

#define SHORT_NAME sizeof(struct pt_regs___words)

enum path_state {
	PATH_KNOWN = 1,
	PATH_NONE = 2,        /* pipes, sockets, memfds and other files of file systems that the kernel mounts for itself */
	PATH_UNREACHABLE = 3, /* not below the task's root: another mount namespace, outside a chroot, a detached mount */
	PATH_UNKNOWN = 4,     /* too long or too deep, or no buffer is free */
};

/* A path: text[start] to text[PATH_SIZE - 1] of a buffer, which is this program's until path_release. */
struct path_text {
	__u64 dentry; /* what it is the path of */
	__u64 mount;  /* struct vfsmount */
	__u32 state;  /* enum path_state */
	__u32 start;
	__u32 buffer;
	__u32 taken; /* the buffer is to be released */
};

struct path_buffer {
	__u32 taken;
	__u32 pad;
	char before[SHORT_NAME];
	char text[PATH_SIZE + PATH_NAME + 1]; /* more than is used: the verifier adds the bounds of place and length */
};

/* Programs on security hooks may be preempted by others on their CPU, so that one buffer each would not do. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PATH_BUFFERS);
	__type(key, __u32);
	__type(value, struct path_buffer);
} faultd_paths SEC(".maps");

static __always_inline struct path_buffer *path_buffer_at(__u32 index)
{
	return bpf_map_lookup_elem(&faultd_paths, &index);
}

static __always_inline struct path_buffer *take_path_buffer(struct path_text *path)
{
	for (__u32 i = 0; i < PATH_BUFFERS; i++) {
		struct path_buffer *buffer = path_buffer_at(i);

		if (buffer && __sync_val_compare_and_swap(&buffer->taken, 0, 1) == 0) {
			path->buffer = i;
			path->taken = 1;
			return buffer;
		}
	}
	return 0;
}

/* Gives the buffer back; to be called for each path_text, on the same CPU, before the program ends. Twice is fine. */
static __always_inline void path_release(struct path_text *path)
{
	struct path_buffer *buffer = path->taken ? path_buffer_at(path->buffer) : 0;

	if (buffer)
		buffer->taken = 0;
	path->taken = 0;
}

/* From 6.2 on: loads from any address, which are many times faster than a helper's; what cannot be read is 0. */
extern void *bpf_rdonly_cast(const void *address, __u32 type) __ksym __weak;

#ifndef bpf_ksym_exists
#define bpf_ksym_exists(symbol) (!!(symbol))
#endif

/* A field of the type at an address. */
#define read_field(type, address, field)                                                                      \
	({                                                                                                    \
		type *at = (void *)(address);                                                                 \
		bpf_ksym_exists(bpf_rdonly_cast)                                                              \
			? ((type *)bpf_rdonly_cast(at, bpf_core_type_id_kernel(type)))->field                 \
			: BPF_CORE_READ(at, field);                                                           \
	})

#ifndef barrier_var
#define barrier_var(var) asm volatile("" : "+r"(var))
#endif

struct path_walk {
	struct path_buffer *buffer;
	__u64 dentry;
	__u64 mount; /* struct vfsmount */
	__u64 top;   /* of the mount */
	__u64 root_dentry;
	__u64 root_mount;
	__u32 at;
	__u32 state; /* 0: going on */
};

/* Neither the task's root nor anything above. */
static __always_inline void end_outside(struct path_walk *walk)
{
	struct super_block *sb = read_field(struct vfsmount, walk->mount, mnt_sb);

	walk->state = read_field(struct super_block, sb, s_flags) & SB_KERNMOUNT ? PATH_NONE : PATH_UNREACHABLE;
}

/* On the top of a mount: to where it is mounted. */
static __always_inline void leave_mount(struct path_walk *walk)
{
	__u64 offset = bpf_core_field_offset(struct mount, mnt), mount = walk->mount - offset;
	__u64 parent = (__u64)read_field(struct mount, mount, mnt_parent);

	if (!parent || parent == mount) {
		end_outside(walk);
		return;
	}
	walk->dentry = (__u64)read_field(struct mount, mount, mnt_mountpoint);
	walk->mount = parent + offset;
	walk->top = (__u64)read_field(struct vfsmount, walk->mount, mnt_root);
}

struct name {
	__u64 text;
	__u64 parent;
	__u32 length;
};

static __always_inline int read_name(__u64 dentry, struct name *name)
{
	name->parent = (__u64)read_field(struct dentry, dentry, d_parent);
	name->length = read_field(struct dentry, dentry, d_name.len);
	name->text = (__u64)read_field(struct dentry, dentry, d_name.name);
	return name->parent && name->length <= PATH_NAME;
}

/* Writes a name to text[at] up to text[end - 1]. A short one is copied in whole words from its end on: what stands before it
 * in the kernel's memory comes along, and is overwritten by what stands before it in the path. */
static __always_inline long write_name(struct path_buffer *buffer, __u32 at, __u32 end, const struct name *name)
{
	if (bpf_ksym_exists(bpf_rdonly_cast) && name->length <= SHORT_NAME) {
		const struct pt_regs___words *from = bpf_rdonly_cast((void *)(name->text + name->length - SHORT_NAME),
								     bpf_core_type_id_kernel(struct pt_regs___words));
		struct pt_regs___words *to = (void *)&buffer->before[end]; /* SHORT_NAME before text[end] */

		for (int i = 0; i < 4; i++)
			to->word[i] = from->word[i];
		return 0;
	}
	return bpf_probe_read_kernel(&buffer->text[at], name->length, (void *)name->text);
}

/* One component, or the way out of one mount. */
static long path_step(__u64 turn, struct path_walk *walk)
{
	struct name name;

	if (walk->dentry == walk->root_dentry && walk->mount == walk->root_mount) {
		walk->state = PATH_KNOWN;
		return 1;
	}
	if (walk->dentry == walk->top) {
		leave_mount(walk);
		return walk->state != 0;
	}
	if (!read_name(walk->dentry, &name))
		return 1;
	if (name.parent == walk->dentry) { /* of no directory, or moved out of what is mounted */
		end_outside(walk);
		return 1;
	}
	__u32 end = walk->at, at = end - name.length - 1;

	barrier_var(at); /* else the compiler bounds one by the other, which the verifier does not follow */
	if (end > PATH_SIZE || at >= PATH_SIZE || write_name(walk->buffer, at + 1, end, &name))
		return 1;
	walk->buffer->text[at] = '/';
	walk->at = at;
	walk->dentry = name.parent;
	return 0;
}

/* Finds the path of path->dentry. Pointers are in there, and not arguments, as the verifier wants those of global functions
 * to be numbers. */
LOOP_BODY int path_find(struct path_text *path)
{
	struct task_struct___vfs *task = (void *)bpf_get_current_task_btf();
	struct fs_struct *fs = task->fs;
	struct path_walk walk = {.at = PATH_SIZE};

	if (!path)
		return 0;
	path->state = PATH_UNKNOWN;
	if (!fs)
		return 0;
	walk.buffer = take_path_buffer(path);
	if (!walk.buffer)
		return 0;
	walk.dentry = path->dentry;
	walk.mount = path->mount;
	walk.root_dentry = (__u64)fs->root.dentry;
	walk.root_mount = (__u64)fs->root.mnt;
	walk.top = (__u64)read_field(struct vfsmount, walk.mount, mnt_root);
	bpf_loop(PATH_DEPTH, path_step, &walk, 0);
	if (walk.state)
		path->state = walk.state;
	if (walk.state == PATH_KNOWN && walk.at == PATH_SIZE) /* the root itself */
		walk.buffer->text[--walk.at] = '/';
	path->start = walk.at;
	return 0;
}

/* Where to find the path that a struct path is. */
static __always_inline void at_path(struct path *of, struct path_text *path)
{
	path->dentry = (__u64)read_field(struct path, of, dentry);
	path->mount = (__u64)read_field(struct path, of, mnt);
}

/* That of an open file. */
static __always_inline void at_file(struct file *file, struct path_text *path)
{
	path->dentry = (__u64)read_field(struct file, file, f_path.dentry);
	path->mount = (__u64)read_field(struct file, file, f_path.mnt);
}

/* That of an entry, which may not exist yet, of a directory. */
static __always_inline void at_entry(struct path *directory, struct dentry *entry, struct path_text *path)
{
	path->dentry = (__u64)entry;
	path->mount = (__u64)read_field(struct path, directory, mnt);
}

#endif
