package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

type mount struct {
	fstype, at, data string
	optional         bool // a kernel may have been built without it
}

var mounts = []mount{
	{fstype: "proc", at: "/proc"},
	{fstype: "sysfs", at: "/sys"},
	{fstype: "devpts", at: "/dev/pts", data: "ptmxmode=0666,mode=0620"},
	{fstype: "tmpfs", at: "/dev/shm", data: "mode=1777"},
	{fstype: "mqueue", at: "/dev/mqueue", optional: true},
	{fstype: "tmpfs", at: "/run", data: "mode=0755"},
	{fstype: "cgroup2", at: "/sys/fs/cgroup"},
	{fstype: "bpf", at: "/sys/fs/bpf", data: "mode=0700"},
	{fstype: "tracefs", at: "/sys/kernel/tracing"},
	{fstype: "debugfs", at: "/sys/kernel/debug", optional: true},
	{fstype: "securityfs", at: "/sys/kernel/security", optional: true},
}

// mountEarly mounts what is needed to talk to the runner, on a root that programs can pivot away
// from: the initramfs itself cannot be pivoted, a mount of it over itself can.
func mountEarly() error {
	const over = "/.root"
	if err := os.Mkdir(over, 0o755); err != nil {
		return fmt.Errorf("mount root over itself: %w", err)
	}
	if err := unix.Mount("/", over, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount root over itself: %w", err)
	}
	if err := errors.Join(os.Chdir(over), unix.Mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), os.Chdir("/")); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	os.Remove(over)
	return mount{fstype: "devtmpfs", at: "/dev", data: "mode=0755"}.do()
}

func mountAll() error {
	for _, m := range mounts {
		if err := m.do(); err != nil && !m.optional {
			return err
		}
	}
	// Distributions share their mounts; tests that unshare must cope with it here as well.
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("share mounts: %w", err)
	}
	return mountTmp()
}

func (m mount) do() error {
	if err := os.MkdirAll(m.at, 0o755); err != nil {
		return fmt.Errorf("mount %s: %w", m.at, err)
	}
	if err := unix.Mount(m.fstype, m.at, m.fstype, 0, m.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.fstype, m.at, err)
	}
	return nil
}

// mountTmp gives /tmp a file system of its own and moves into it what the initramfs brought there:
// a test's directory may lie below /tmp on the host.
func mountTmp() error {
	const staging = "/run/tmp"
	if err := (mount{fstype: "tmpfs", at: staging, data: "mode=1777"}).do(); err != nil {
		return err
	}
	if err := os.MkdirAll("/tmp", 0o755); err != nil {
		return fmt.Errorf("mount /tmp: %w", err)
	}
	if err := os.CopyFS(staging, os.DirFS("/tmp")); err != nil {
		return fmt.Errorf("fill /tmp: %w", err)
	}
	if err := errors.Join(os.RemoveAll("/tmp"), os.Mkdir("/tmp", 0o755)); err != nil {
		return fmt.Errorf("mount /tmp: %w", err)
	}
	// A bind, because a mount below a shared one cannot be moved.
	if err := unix.Mount(staging, "/tmp", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount /tmp: %w", err)
	}
	if err := errors.Join(unix.Unmount(staging, 0), os.Remove(staging)); err != nil {
		return fmt.Errorf("mount /tmp: %w", err)
	}
	return nil
}
