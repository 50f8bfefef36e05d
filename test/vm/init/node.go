package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// setUpNode does the rest that programs expect of a running node.
func setUpNode() error {
	if err := unix.Sethostname([]byte("faultd-vm")); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	// The kernel's defaults are small; systemd gives its services this much.
	files := unix.Rlimit{Cur: 524288, Max: 524288}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("raise limit of open files: %w", err)
	}
	return bringUp("lo")
}

func bringUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return nil // a kernel without IP has nothing to bring up
	}
	if err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	return nil
}
