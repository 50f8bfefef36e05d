package faults

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"faultd/cgroup"
)

// writeControl writes into a control file of the target's cgroup, if it still is that cgroup.
func writeControl(tree *cgroup.Hierarchy, target cgroup.Target, name, text string) error {
	if !tree.Alive(target) {
		return fmt.Errorf("cgroup %s: %w", target.Path, cgroup.ErrNotFound)
	}
	// Neither O_CREAT nor O_TRUNC: this is a file of the kernel. O_NONBLOCK keeps newer ones (6.16) from reclaiming memory in the
	// write when a limit is below what is used; the target does that then.
	fd, err := unix.Open(filepath.Join(tree.Dir(target), name), unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	defer unix.Close(fd)
	for {
		if _, err := unix.Write(fd, []byte(text)); err != unix.EINTR {
			return os.NewSyscallError("write", err)
		}
	}
}
