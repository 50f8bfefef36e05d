package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Births gives a value soon after cgroups were made, anywhere in the tree, until ctx is over; several may be one value. It has an inotify
// instance of its own, which watches every directory.
func (h *Hierarchy) Births(ctx context.Context) (<-chan struct{}, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch for new cgroups: %w", noInstance(err))
	}
	events := os.NewFile(uintptr(fd), "inotify") // of the runtime's poller: closing it ends a Read
	if err := h.watchBirths(fd); err != nil {
		events.Close()
		return nil, err
	}
	born := make(chan struct{}, 1)
	closing := context.AfterFunc(ctx, func() { events.Close() })
	go func() {
		defer func() {
			if closing() {
				events.Close()
			}
		}()
		buffer := make([]byte, 16<<10)
		for {
			if _, err := events.Read(buffer); err != nil {
				return
			}
			// What was made in a new directory before it was watched is there by now. That it cannot be watched is told to nobody: whoever
			// waits looks every so often anyway.
			_ = h.watchBirths(fd)
			select {
			case born <- struct{}{}:
			default: // it will be looked anyway
			}
		}
	}()
	return born, nil
}

// watchBirths watches all directories of the tree: each before it is read, so that none is missed. Those that are watched stay so.
func (h *Hierarchy) watchBirths(fd int) error {
	err := filepath.WalkDir(h.mount, func(dir string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return skipGone(err)
		}
		_, err = unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_ONLYDIR)
		return skipGone(err)
	})
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("watch for new cgroups: no inotify watch left; raise the sysctl fs.inotify.max_user_watches: %w", err)
	}
	if err != nil {
		return fmt.Errorf("watch for new cgroups: %w", err)
	}
	return nil
}

// skipGone passes over what was removed meanwhile.
func skipGone(err error) error {
	if err == nil || isGone(err) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
