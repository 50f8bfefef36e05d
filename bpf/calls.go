package bpf

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
)

// SyscallNumber is the number of a system call on this machine, by its name in the manual's tables (newfstatat, not stat64).
func SyscallNumber(name string) (int, bool) {
	n, ok := syscallNumbers()[name]
	return n, ok && n < maxSyscall
}

// untouchable says why a call is never touched, or "".
func untouchable(name string) string {
	switch name {
	case "exit", "exit_group":
		return "it does not return"
	case "rt_sigreturn":
		return "it does not return to its caller, and its result is a register of the interrupted program"
	case "restart_syscall":
		return "the kernel calls it in place of another call"
	}
	return ""
}

// CallNumbers translates the names of system calls. It refuses none at all, the unknown, and those that must never be touched.
func CallNumbers(calls []string) ([]int, error) {
	if len(calls) == 0 {
		return nil, errors.New("missing; give at least one, such as openat")
	}
	numbers := make([]int, 0, len(calls))
	for _, name := range calls {
		n, ok := SyscallNumber(name)
		if !ok {
			return nil, fmt.Errorf("%q is no system call of %s; write a name as syscalls(2) lists them", name, runtime.GOARCH)
		}
		if why := untouchable(name); why != "" {
			return nil, fmt.Errorf("%s is never touched: %s", name, why)
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

// Groups are names for calls that users think of as one thing. Where a call has the same name, the group is meant.
func Groups() map[string][]string {
	groups := map[string][]string{
		"open":     {"open", "openat", "openat2", "creat"},
		"read":     {"read", "pread64", "readv", "preadv", "preadv2"},
		"write":    {"write", "pwrite64", "writev", "pwritev", "pwritev2"},
		"fsync":    {"fsync", "fdatasync", "sync_file_range", "syncfs", "msync"},
		"close":    {"close", "close_range"},
		"stat":     {"stat", "lstat", "fstat", "newfstatat", "statx"},
		"unlink":   {"unlink", "unlinkat", "rmdir"},
		"rename":   {"rename", "renameat", "renameat2"},
		"mkdir":    {"mkdir", "mkdirat"},
		"truncate": {"truncate", "ftruncate", "fallocate"},
		"setattr":  slices.Concat([]string{"chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat"}, inodeCalls()),
		"connect":  {"connect"},
		"accept":   {"accept", "accept4"},
		"send":     {"sendto", "sendmsg", "sendmmsg"},
		"receive":  {"recvfrom", "recvmsg", "recvmmsg"},
		"poll":     {"poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait", "epoll_pwait2"},
		"memory":   {"mmap", "mremap", "mprotect", "madvise", "mlock", "mlock2"},
		"fork":     {"fork", "vfork", "clone", "clone3"},
		"exec":     {"execve", "execveat"},
	}
	groups["network"] = slices.Concat([]string{"socket", "bind", "listen", "shutdown"}, groups["connect"], groups["accept"], groups["send"], groups["receive"])
	groups["all-file"] = slices.Concat(groups["open"], groups["read"], groups["write"], groups["stat"], groups["unlink"], groups["rename"], groups["mkdir"], groups["truncate"],
		groups["setattr"],
		// Of fsync all but msync, which is about memory.
		[]string{"fsync", "fdatasync", "sync_file_range", "syncfs", "link", "linkat", "symlink", "symlinkat", "sendfile", "copy_file_range", "splice"})
	return groups
}

// inodeCalls are those whose security hook knows neither file nor path: they set times, extended attributes and access lists.
func inodeCalls() []string {
	return []string{"utime", "utimes", "futimesat", "utimensat",
		"setxattr", "lsetxattr", "fsetxattr", "setxattrat", "removexattr", "lremovexattr", "fremovexattr", "removexattrat"}
}

// ExpandCalls replaces the groups by the calls that this machine has of them. A name after "=" is the call of this name and
// not the group. It refuses what CallNumbers refuses.
func ExpandCalls(names []string) (calls Calls, err error) {
	groups := Groups()
	for _, name := range names {
		group, ok := groups[name]
		if !ok || len(group) == 1 {
			calls.Named = append(calls.Named, strings.TrimPrefix(name, "="))
			continue
		}
		for _, call := range group {
			if _, here := SyscallNumber(call); here {
				calls.Grouped = append(calls.Grouped, call)
			}
		}
	}
	slices.Sort(calls.Named)
	calls.Named = slices.Compact(calls.Named)
	slices.Sort(calls.Grouped)
	calls.Grouped = slices.DeleteFunc(slices.Compact(calls.Grouped), func(call string) bool { return slices.Contains(calls.Named, call) })
	_, err = CallNumbers(calls.All())
	return calls, err
}

// callBits is a set of calls as the kernel side has it.
func callBits(names []string) (bits [maxSyscall / 64]uint64) {
	for _, name := range names {
		if n, ok := SyscallNumber(name); ok {
			bits[n/64] |= 1 << (n % 64)
		}
	}
	return bits
}

// kernelName is what the kernel calls a call in its tracepoints and functions, where that is not the name of the table.
func kernelName(call string) string {
	switch call {
	case "stat", "lstat", "fstat", "uname":
		return "new" + call
	case "sendfile":
		return "sendfile64"
	case "umount2":
		return "umount"
	}
	return call
}

// entryPoint is the kernel function of a call.
func entryPoint(call string) string {
	prefix := "__x64_sys_"
	if runtime.GOARCH == "arm64" {
		prefix = "__arm64_sys_"
	}
	return prefix + kernelName(call)
}

// lsmHook is the security hook that runs once in a call, without locks, or "".
func lsmHook(call string) string {
	for hook, calls := range lsmHooks() {
		if slices.Contains(calls, call) {
			return hook
		}
	}
	return ""
}

// lsmHooks are the audited hooks (syscall_lsm.c) with their own calls. sendmmsg and recvmmsg run a hook per message.
func lsmHooks() map[string][]string {
	return map[string][]string{
		"file_open":           {"open", "openat", "openat2", "creat"},
		"socket_create":       {"socket"},
		"socket_socketpair":   {"socketpair"},
		"socket_bind":         {"bind"},
		"socket_connect":      {"connect"},
		"socket_listen":       {"listen"},
		"socket_accept":       {"accept", "accept4"},
		"socket_sendmsg":      {"sendto", "sendmsg"},
		"socket_recvmsg":      {"recvfrom", "recvmsg"},
		"socket_shutdown":     {"shutdown"},
		"bprm_creds_for_exec": {"execve", "execveat"},
	}
}
