package bpf

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// readDetached reads a file of a kernel file system (tracefs, securityfs) that may be mounted nowhere; nothing of the
// mount made for it is left, and nobody else sees it.
func readDetached(fsType, path string) (string, error) {
	fs, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return "", fmt.Errorf("open file system %s: %w", fsType, err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return "", fmt.Errorf("create file system %s: %w", fsType, err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return "", fmt.Errorf("mount %s detached: %w", fsType, err)
	}
	defer unix.Close(mount)
	fd, err := unix.Openat(mount, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open %s of %s: %w", path, fsType, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return "", fmt.Errorf("read %s of %s: %w", path, fsType, err)
	}
	return strings.TrimSpace(string(text)), nil
}

// tracepointID is the number that perf_event_open wants.
func tracepointID(group, name string) (uint64, error) {
	text, err := readDetached("tracefs", "events/"+group+"/"+name+"/id")
	if err != nil {
		return 0, err
	}
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("read the id of tracepoint %s/%s: %w", group, name, err)
	}
	return id, nil
}
