package bpf

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// securityHook is a hook of security.c.
type securityHook struct {
	name string
	ops  Ops
	// since is the kernel that has it; older ones go through another hook. Empty: all have it.
	since string
}

func securityHooks() []securityHook {
	return []securityHook{
		{"file_open", OpOpen, ""},
		{"file_permission", OpRead | OpWrite, ""},
		{"path_mknod", OpCreate, ""},
		{"path_truncate", OpTruncate, ""},
		{"file_truncate", OpTruncate, "6.2"},
		{"path_unlink", OpUnlink, ""},
		{"path_rename", OpRename, ""},
		{"path_mkdir", OpMkdir, ""},
		{"path_rmdir", OpRmdir, ""},
		{"path_link", OpLink, ""},
		{"path_symlink", OpLink, ""},
		{"inode_getattr", OpStat, ""},
		{"path_chmod", OpSetattr, ""},
		{"path_chown", OpSetattr, ""},
		{"inode_setattr", OpSetattr, ""},
		{"inode_setxattr", OpSetattr, ""},
		{"inode_removexattr", OpSetattr, ""},
		{"inode_set_acl", OpSetattr, "6.2"},
		{"inode_remove_acl", OpSetattr, "6.2"},
		{"mmap_file", OpMmap, ""},
		{"bprm_creds_for_exec", OpExec, ""},
		{"file_lock", OpLock, ""},
		{"file_ioctl", OpIoctl, ""},
		{"socket_create", OpSocket, ""},
		{"socket_bind", OpBind, ""},
		{"socket_connect", OpConnect, ""},
		{"socket_listen", OpListen, ""},
		{"socket_accept", OpAccept, ""},
		{"socket_sendmsg", OpSend, ""},
		{"socket_recvmsg", OpReceive, ""},
		{"socket_shutdown", OpShutdown, ""},
		{"task_alloc", OpFork, ""},
	}
}

// socketOps have no file with a path.
const socketOps = OpSocket | OpBind | OpConnect | OpListen | OpAccept | OpSend | OpReceive | OpShutdown | OpFork

// hookOps are what security hooks are about of which exactly one runs, once, in a call that gets so far; 0: there are none.
// Others run hooks several times or not each time: sendfile, copy_file_range, sendmmsg, socketpair, fcntl.
func hookOps(call string) Ops {
	for ops, calls := range map[Ops][]string{
		OpOpen:             {"open", "openat", "openat2", "creat"},
		OpRead:             {"read", "pread64", "readv", "preadv", "preadv2", "getdents", "getdents64"},
		OpWrite:            {"write", "pwrite64", "writev", "pwritev", "pwritev2", "fallocate"},
		OpCreate:           {"mknod", "mknodat"},
		OpTruncate:         {"truncate", "ftruncate"},
		OpUnlink:           {"unlink"},
		OpUnlink | OpRmdir: {"unlinkat"},
		OpRmdir:            {"rmdir"},
		OpRename:           {"rename", "renameat", "renameat2"},
		OpMkdir:            {"mkdir", "mkdirat"},
		OpLink:             {"link", "linkat", "symlink", "symlinkat"},
		OpStat:             {"stat", "lstat", "fstat", "newfstatat", "statx"},
		OpSetattr:          Groups()["setattr"],
		OpMmap:             {"mmap"},
		OpExec:             {"execve", "execveat"},
		OpLock:             {"flock"},
		OpIoctl:            {"ioctl"},
		OpSocket:           {"socket"},
		OpBind:             {"bind"},
		OpConnect:          {"connect"},
		OpListen:           {"listen"},
		OpAccept:           {"accept", "accept4"},
		OpSend:             {"sendto", "sendmsg"},
		OpReceive:          {"recvfrom", "recvmsg"},
		OpShutdown:         {"shutdown"},
		OpFork:             {"fork", "vfork", "clone", "clone3"},
	} {
		if slices.Contains(calls, call) {
			return ops
		}
	}
	return 0
}

func hooksOf(ops Ops) (hooks []securityHook) {
	for _, h := range securityHooks() {
		if h.ops&ops != 0 {
			hooks = append(hooks, h)
		}
	}
	return hooks
}

// chooseHooks attaches what ops need by the first mechanism that can.
func (k *Kernel) chooseHooks(ops Ops) (SyscallMechanism, closerFunc, error) {
	m, release, err := firstOf(hookMechanisms(), func(m SyscallMechanism) (io.Closer, error) {
		if err := k.precheckHooks(m); err != nil {
			return nil, err
		}
		return k.attachHooks(m, ops)
	})
	if Exhausted(err) {
		return "", nil, fmt.Errorf("attach to security hooks: %w", err)
	}
	if err != nil {
		return "", nil, fmt.Errorf("%w: security hooks: %w. What would work: a kernel with CONFIG_BPF_LSM, and bpf among the active LSMs", ErrNotSupported, err)
	}
	return m, release, nil
}

// hookMechanisms are the ways to fail security hooks, best first: LSM programs are never skipped.
func hookMechanisms() Mechanisms { return Mechanisms{MechanismLSM, MechanismSecurity} }

func (k *Kernel) precheckHooks(m SyscallMechanism) error {
	if k.disabled[string(m)] {
		return errors.New("switched off")
	}
	if m == MechanismLSM {
		return k.precheckRuns()
	}
	return nil
}

func hookKey(m SyscallMechanism, hook string) string { return "hook/" + string(m) + "/" + hook }

// hookKeys are the shared attachments of the hooks of ops that this kernel has.
func (k *Kernel) hookKeys(m SyscallMechanism, ops Ops) (keys []string) {
	for _, h := range hooksOf(ops) {
		if h.since == "" || k.hasHook(h.name) {
			keys = append(keys, hookKey(m, h.name))
		}
	}
	return keys
}

// attachHooks is attachAll of the hooks of ops.
func (k *Kernel) attachHooks(m SyscallMechanism, ops Ops) (io.Closer, error) {
	prefix := hookKey(m, "")
	return k.attachAll(k.hookKeys(m, ops), func(key string, s *syscallPrograms) error {
		return k.openHook(m, strings.TrimPrefix(key, prefix), s)
	})
}

// hasHook looks for the type of a hook's function.
func (k *Kernel) hasHook(hook string) bool {
	found, err := k.hasFunction("security_" + hook)
	return found && err == nil
}

func (k *Kernel) openHook(m SyscallMechanism, hook string, s *syscallPrograms) error {
	name := "faultd_" + hook
	spec, err := k.object("security", loadSecurity, name)
	if err != nil {
		return err
	}
	if err := errors.Join(spec.Variables["growing_calls"].Set(growingCalls()), spec.Variables["opening_calls"].Set(callBits(Groups()["open"]))); err != nil {
		return fmt.Errorf("set up the program: %w", err)
	}
	function := "bpf_lsm_" + hook
	if m == MechanismSecurity {
		function = "security_" + hook
		p := spec.Programs[name]
		p.Type, p.AttachType, p.AttachTo = ebpf.Tracing, ebpf.AttachModifyReturn, function
	}
	if err := k.placeDentry(spec, function); err != nil {
		return err
	}
	c, err := k.own(spec, s)
	if err != nil {
		return err
	}
	l, err := attachHook(m, c.Programs[name])
	if err != nil {
		return fmt.Errorf("attach to security hook %s: %w", hook, err)
	}
	s.links = append(s.links, l)
	return nil
}

// placeDentry tells a program where the dentry is among the arguments of its function: kernels have moved it.
func (k *Kernel) placeDentry(spec *ebpf.CollectionSpec, function string) error {
	names, err := k.parameters(function)
	if err != nil {
		return err
	}
	if err := spec.Variables["dentry_at"].Set(uint32(max(0, slices.Index(names, "dentry")))); err != nil {
		return fmt.Errorf("set up the program: %w", err)
	}
	return nil
}

func attachHook(m SyscallMechanism, p *ebpf.Program) (link.Link, error) {
	if m == MechanismSecurity {
		return link.AttachTracing(link.TracingOptions{Program: p})
	}
	return link.AttachLSM(link.LSMOptions{Program: p})
}

// growingCalls are the numbers of struct growing_calls (grow.h).
func growingCalls() (numbers [10]uint32) {
	for i, call := range []string{"write", "pwrite64", "writev", "pwritev", "pwritev2", "fallocate", "truncate", "ftruncate", "copy_file_range", "sendfile"} {
		numbers[i] = ^uint32(0) // NO_CALL
		if n, ok := SyscallNumber(call); ok {
			numbers[i] = uint32(n)
		}
	}
	return numbers
}
