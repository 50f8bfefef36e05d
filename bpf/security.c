//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Errors of security hooks, on files and sockets: as LSM programs, or with the same instructions as fmod_ret on the
 * security_* functions where LSM programs do not run. They never sleep. io_uring goes through these hooks as well. */
#include "filter.h"
#include "grow.h"
#include "socket.h"

#define ANCESTOR(level) bpf_get_current_ancestor_cgroup_id(level)
#define MAY_WRITE 2
#define MAY_READ 4

/* Whether the rule is for what the hook is about, or for the calls whose own hook it is. */
static __always_inline int hook_fits(const struct rule *rule, const struct call *call)
{
	const struct call_shape *shape;
	__u64 calls = 0;

	if (!((rule->ops >> call->op) & 1))
		return 0;
	for (__u32 i = 0; i < MAX_SYSCALL / 64; i++)
		calls |= rule->calls[i];
	if (!calls)
		return call->file || call->path || call->inode || call->op >= OP_SOCKET;
	if (!call_fits(rule, call->number))
		return 0;
	shape = shape_of(call->number);
	return shape && (shape->ops >> call->op) & 1;
}

/* Whether an IPv4 or IPv6 socket and its peer are meant. Where datagrams come from is not known before they do. */
LOOP_BODY int inet_fits(const struct rule *rule, __u32 slot, const struct call *call)
{
	if (!rule || !call)
		return FITS_NOT;
	struct socket___inet *socket = (void *)call->socket;
	struct msghdr *message = (void *)call->message;
	struct sock *sk = BPF_CORE_READ(socket, sk);
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);
	struct peer peer = {};

	if (family != AF_INET && family != AF_INET6)
		return FITS_NOT;
	peer_of_sock(sk, &peer);
	if (call->op != OP_SEND && call->op != OP_RECEIVE)
		return protocol_fits(&rule->traffic, peer.protocol);
	if (!rule->traffic.ports && !(rule->traffic.flags & TRAFFIC_PEERS))
		return protocol_fits(&rule->traffic, peer.protocol);
	if (message && peer.protocol != IPPROTO_TCP) {
		void *name = BPF_CORE_READ(message, msg_name);

		if (name && !peer_of_name(name, &peer))
			return FIT_UNKNOWN;
	}
	if (!peer.port)
		return FIT_UNKNOWN;
	return peer_fits(rule, slot, &peer);
}

static __always_inline enum fit conditions_fit(const struct rule *rule, __u32 slot, const struct call *call)
{
	struct file *file = (struct file *)call->file;

	if (rule->flags & RULE_INET)
		return call->socket ? inet_fits(rule, slot, call) : FITS_NOT;

	if ((rule->flags & RULE_WRITING) && call->op == OP_OPEN && !(BPF_CORE_READ(file, f_mode) & FMODE_WRITE))
		return FITS_NOT;
	if ((rule->flags & RULE_BEYOND) && (call->op == OP_WRITE || call->op == OP_TRUNCATE))
		return grows(call);
	return FITS;
}

/* Tries a rule; once there is an error, it only counts that the rule was looked at. */
LOOP_BODY int security_rule(const struct rule_ref *ref, const struct permit *permit, const struct call *call, __s64 *error)
{
	if (!ref || !permit || !call || !error)
		return 0;
	struct stat *stat;
	struct rule *rule = rule_of(ref, permit, &stat);

	if (!rule)
		return 0;
	atomic_inc(&stat->evaluated);
	if (*error || !hook_fits(rule, call) || !call_is_meant(rule, ref->slot, stat, call))
		return 0;
	enum fit fit = conditions_fit(rule, ref->slot, call);

	if (fit == FIT_UNKNOWN)
		atomic_inc(&stat->unknown);
	if (fit != FITS)
		return 0;
	__u64 number = harm_due(rule, stat, scope_of(rule));

	if (number)
		*error = fail_with(rule, stat, permit, number);
	return 0;
}

/* The error that a hook shall return, or 0; from 6.12 on the verifier wants to see that it is one. */
static __always_inline long judge(struct rule_set *set, const struct call *call)
{
	struct permit permit = permit_read();
	__s64 error = 0;

	for (__u32 i = 0; i < MAX_RULES_PER_SET && i < set->count; i++)
		security_rule(&set->refs[i], &permit, call, &error);
	if (error > 0)
		return 0;
	barrier_var(error);
	if (error < -4095)
		return 0;
	return error;
}

/* Files and directories under an overlay, of which the overlay's own are seen too, lie on mounts that the kernel made for
 * itself; so do pipes and the like, which are nobody else's. */
static __always_inline int is_under_overlay(struct vfsmount *mnt)
{
	struct mount *mount = (void *)mnt - bpf_core_field_offset(struct mount, mnt);

	return BPF_CORE_READ(mount, mnt_ns) == MNT_NS_INTERNAL && !(BPF_CORE_READ(mnt, mnt_sb, s_flags) & SB_KERNMOUNT);
}

/* What execve opens is its own op. */
static __always_inline int is_opened_to_run(const struct file *file, enum op op)
{
	return op == OP_OPEN && BPF_CORE_READ(file, f_flags) & FMODE_EXEC;
}

/* Nothing is read of a file before it is known that the caller may be a target: what others pay is the look-up alone. */
#define IF_TARGET(JUDGE, ...)                                                     \
	({                                                                        \
		const struct levels *levels = levels_if_target(HOOK_SECURITY);    \
		levels ? JUDGE(levels, __VA_ARGS__) : 0;                          \
	})

FOR_TARGETS long judge_file(const struct levels *levels, struct file *file, enum op op)
{
	struct rule_set *set = rule_set_in(levels, HOOK_SECURITY, ANCESTOR);

	if (!set || is_opened_to_run(file, op))
		return 0;
	if (file && ((BPF_CORE_READ(file, f_mode) & FMODE_NOACCOUNT) || is_under_overlay(BPF_CORE_READ(file, f_path.mnt))))
		return 0;
	struct call call = {.number = current_call(), .op = op, .file = (__u64)file};

	return judge(set, &call);
}

FOR_TARGETS long judge_path(const struct levels *levels, struct path *path, enum op op)
{
	struct rule_set *set = rule_set_in(levels, HOOK_SECURITY, ANCESTOR);

	if (!set || is_under_overlay(BPF_CORE_READ(path, mnt)))
		return 0;
	struct call call = {.number = current_call(), .op = op, .path = (__u64)path};

	return judge(set, &call);
}

FOR_TARGETS long judge_entry(const struct levels *levels, __u64 path, __u64 dentry, enum op op)
{
	struct rule_set *set = rule_set_in(levels, HOOK_SECURITY, ANCESTOR);

	if (!set)
		return 0;
	struct call call = {.number = current_call(), .op = op, .path = path, .dentry = dentry};

	return judge(set, &call);
}

FOR_TARGETS long judge_message(const struct levels *levels, struct socket *socket, __u64 message, enum op op)
{
	struct rule_set *set = rule_set_in(levels, HOOK_SECURITY, ANCESTOR);

	if (!set)
		return 0;
	struct call call = {.number = current_call(), .op = op, .socket = (__u64)socket, .message = message};

	if (socket)
		call.file = (__u64)BPF_CORE_READ(socket, file);
	return judge(set, &call);
}

static __always_inline long judge_socket(const struct levels *levels, struct socket *socket, enum op op)
{
	return judge_message(levels, socket, 0, op);
}

/* Where the dentry is among the hook's arguments. */
const volatile __u32 dentry_at;

/* The argument so many places after the dentry. The compiler must not join the accesses to one with a computed place, which the
 * verifier refuses. */
static __always_inline void *from_dentry(__u64 *ctx, __u32 places)
{
	__u64 value;

	if (dentry_at) {
		value = *(volatile __u64 *)&ctx[1 + places];
		barrier_var(value);
	} else {
		value = *(volatile __u64 *)&ctx[places];
		barrier_var(value);
	}
	return (void *)value;
}

/* A file system that does something for the caller to files of another one, as overlays do, takes its own credentials for it. */
static __always_inline int is_done_for_another(void)
{
	struct task_struct___vfs *task = (void *)bpf_get_current_task_btf();

	return BPF_CORE_READ(task, cred) != BPF_CORE_READ(task, real_cred);
}

/* A change of attributes about which the kernel tells neither file nor path. */
FOR_TARGETS long judge_inode(const struct levels *levels, struct dentry *dentry)
{
	struct rule_set *set = rule_set_in(levels, HOOK_SECURITY, ANCESTOR);

	if (!set || is_done_for_another())
		return 0;
	struct call call = {.number = current_call(), .op = OP_SETATTR, .inode = (__u64)BPF_CORE_READ(dentry, d_inode)};

	return judge(set, &call);
}

#define FILE_HOOK(HOOK, OP)                                       \
	SEC("lsm/" #HOOK)                                         \
	long faultd_##HOOK(__u64 *ctx)                            \
	{                                                         \
		return IF_TARGET(judge_file, (struct file *)ctx[0], OP); \
	}

#define PATH_HOOK(HOOK, OP)                                       \
	SEC("lsm/" #HOOK)                                         \
	long faultd_##HOOK(__u64 *ctx)                            \
	{                                                         \
		return IF_TARGET(judge_path, (struct path *)ctx[0], OP); \
	}

/* An entry, which may not exist yet, of a directory. */
#define ENTRY_HOOK(HOOK, OP)                                      \
	SEC("lsm/" #HOOK)                                         \
	long faultd_##HOOK(__u64 *ctx)                            \
	{                                                         \
		return IF_TARGET(judge_entry, ctx[0], ctx[1], OP); \
	}

#define INODE_HOOK(HOOK)                             \
	SEC("lsm/" #HOOK)                            \
	long faultd_##HOOK(__u64 *ctx)               \
	{                                            \
		return IF_TARGET(judge_inode, from_dentry(ctx, 0)); \
	}

#define SOCKET_HOOK(HOOK, OP)                                     \
	SEC("lsm/" #HOOK)                                         \
	long faultd_##HOOK(__u64 *ctx)                            \
	{                                                         \
		return IF_TARGET(judge_socket, (struct socket *)ctx[0], OP); \
	}

FILE_HOOK(file_open, OP_OPEN)
FILE_HOOK(file_truncate, OP_TRUNCATE)
FILE_HOOK(mmap_file, OP_MMAP)
FILE_HOOK(file_lock, OP_LOCK)
FILE_HOOK(file_ioctl, OP_IOCTL)
PATH_HOOK(path_truncate, OP_TRUNCATE)
PATH_HOOK(inode_getattr, OP_STAT)
PATH_HOOK(path_chmod, OP_SETATTR)
PATH_HOOK(path_chown, OP_SETATTR)
INODE_HOOK(inode_setxattr)
INODE_HOOK(inode_removexattr)
INODE_HOOK(inode_set_acl)
INODE_HOOK(inode_remove_acl)
ENTRY_HOOK(path_mknod, OP_CREATE)
ENTRY_HOOK(path_unlink, OP_UNLINK)
ENTRY_HOOK(path_rmdir, OP_RMDIR)
ENTRY_HOOK(path_mkdir, OP_MKDIR)
ENTRY_HOOK(path_symlink, OP_LINK)
SOCKET_HOOK(socket_bind, OP_BIND)
SOCKET_HOOK(socket_connect, OP_CONNECT)
SOCKET_HOOK(socket_listen, OP_LISTEN)
SOCKET_HOOK(socket_accept, OP_ACCEPT)
SOCKET_HOOK(socket_recvmsg, OP_RECEIVE)
SOCKET_HOOK(socket_shutdown, OP_SHUTDOWN)

_Static_assert(OP_WRITE == OP_READ + 1, "faultd_file_permission counts on it");

SEC("lsm/file_permission")
long faultd_file_permission(__u64 *ctx)
{
	__u32 mask = ctx[1];

	if (!(mask & (MAY_WRITE | MAY_READ)))
		return 0;
	/* One way for both: the verifier would look at all that follows once for each. */
	return IF_TARGET(judge_file, (struct file *)ctx[0], OP_READ + (mask & MAY_WRITE) / MAY_WRITE);
}

/* About the other attributes other hooks are asked. */
FOR_TARGETS long judge_times(const struct levels *levels, struct dentry *dentry, struct iattr *change)
{
	__u32 what = BPF_CORE_READ(change, ia_valid);

	if (!(what & ATTR_TIMES) || what & ATTR_OTHERS)
		return 0;
	return judge_inode(levels, dentry);
}

/* utimes and the like. */
SEC("lsm/inode_setattr")
long faultd_inode_setattr(__u64 *ctx)
{
	return IF_TARGET(judge_times, from_dentry(ctx, 0), from_dentry(ctx, 1));
}

FOR_TARGETS long judge_rename(const struct levels *levels, __u64 path, __u64 dentry, __u64 new_path, __u64 new_dentry)
{
	struct rule_set *set = rule_set_in(levels, HOOK_SECURITY, ANCESTOR);

	if (!set)
		return 0;
	struct call call = {
		.number = current_call(), .op = OP_RENAME, .path = path, .dentry = dentry, .new_path = new_path, .new_dentry = new_dentry,
	};

	return judge(set, &call);
}

SEC("lsm/path_rename")
long faultd_path_rename(__u64 *ctx)
{
	return IF_TARGET(judge_rename, ctx[0], ctx[1], ctx[2], ctx[3]);
}

/* A hard link; its place is the new entry. */
SEC("lsm/path_link")
long faultd_path_link(__u64 *ctx)
{
	return IF_TARGET(judge_entry, ctx[1], ctx[2], OP_LINK);
}

SEC("lsm/bprm_creds_for_exec")
long faultd_bprm_creds_for_exec(__u64 *ctx)
{
	struct linux_binprm *program = (struct linux_binprm *)ctx[0];

	return IF_TARGET(judge_file, BPF_CORE_READ(program, file), OP_EXEC);
}

SEC("lsm/socket_sendmsg")
long faultd_socket_sendmsg(__u64 *ctx)
{
	return IF_TARGET(judge_message, (struct socket *)ctx[0], ctx[1], OP_SEND);
}

/* The fourth argument: a socket of the kernel's own. */
SEC("lsm/socket_create")
long faultd_socket_create(__u64 *ctx)
{
	return ctx[3] ? 0 : IF_TARGET(judge_socket, 0, OP_SOCKET);
}

SEC("lsm/task_alloc")
long faultd_task_alloc(__u64 *ctx)
{
	return IF_TARGET(judge_socket, 0, OP_FORK);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
