package main

import (
	"errors"
	"fmt"
	"os"

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
	return errors.Join(bringUp("lo"), holdMorePackets())
}

// holdMorePackets makes room for what many threads send at once: an emulated processor comes to the packets so late that the
// kernel's 1000 are not enough, and it would lose some by itself.
func holdMorePackets() error {
	const backlog = "/proc/sys/net/core/netdev_max_backlog"
	err := os.WriteFile(backlog, []byte("100000"), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // a kernel without networks
	}
	return err
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
