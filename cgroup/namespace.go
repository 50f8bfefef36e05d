package cgroup

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// hostNamespace is the inode of the cgroup namespace that a machine boots with (PROC_CGROUP_INIT_INO).
const hostNamespace = 0xEFFFFFFB

// EnterHostNamespace has this program run in the cgroup namespace of the host, if it is in another one and may look at a process 1 that is
// in the host's. Where the tree is mounted with nsdelegate, as systemd does, the kernel lets nobody be born in, or move to, a cgroup outside
// the namespace of whoever asks for it (ENOENT), and runtimes give each container a namespace of its own. A namespace is a thread's, and
// this process has several: so it becomes the same program anew (execve), with the same arguments, and does not return then.
func EnterHostNamespace() error { return enterHostNamespace("1") }

// enterHostNamespace enters that of a process, if it is the host's.
func enterHostNamespace(process string) error {
	if ours, err := namespaceOf("self"); err != nil || ours == hostNamespace {
		return err
	}
	theirs, err := namespaceOf(process)
	if errors.Is(err, unix.EACCES) || err == nil && theirs != hostNamespace {
		return nil // elsewhere than with nsdelegate this is no hindrance
	}
	if err != nil {
		return err
	}
	file, err := os.Open("/proc/" + process + "/ns/cgroup")
	if err != nil {
		return fmt.Errorf("open the host's cgroup namespace: %w", err)
	}
	defer file.Close()
	runtime.LockOSThread()
	if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("enter the host's cgroup namespace: %w", err)
	}
	if err := syscall.Exec("/proc/self/exe", os.Args, os.Environ()); err != nil {
		return fmt.Errorf("run in the host's cgroup namespace: %w", err)
	}
	return nil
}

func namespaceOf(process string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/"+process+"/ns/cgroup", &st); err != nil {
		return 0, fmt.Errorf("find the cgroup namespace of process %s: %w", process, err)
	}
	return st.Ino, nil
}
