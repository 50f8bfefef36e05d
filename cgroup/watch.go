package cgroup

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Watch gives a channel that is closed when the target is removed, or at once if it is gone already. It ends with ctx.
func (h *Hierarchy) Watch(ctx context.Context, t Target) (<-chan struct{}, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch cgroup %s: %w", t.Path, err)
	}
	// A file of the runtime's poller: closing it ends a Read.
	events := os.NewFile(uintptr(fd), "inotify")
	gone := make(chan struct{})
	_, err = unix.InotifyAddWatch(fd, h.Dir(t), unix.IN_DELETE_SELF|unix.IN_ONLYDIR)
	// Looked at after the watch is set: no removal can fall between.
	if err != nil || !h.Alive(t) {
		events.Close()
		close(gone)
		return gone, nil
	}
	stop := context.AfterFunc(ctx, func() { events.Close() })
	go func() {
		defer stop()
		defer events.Close()
		buffer := make([]byte, 4096)
		for {
			if _, err := events.Read(buffer); err != nil {
				return
			}
			if !h.Alive(t) {
				close(gone)
				return
			}
		}
	}()
	return gone, nil
}
