package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Watch gives a channel that is closed when the target is removed; at once, if it is gone already. When ctx ends, so
// does the watch, and the channel stays open. Each watch is one inotify instance (fs.inotify.max_user_instances).
func (h *Hierarchy) Watch(ctx context.Context, t Target) (<-chan struct{}, error) {
	events, err := h.armRemoval(t)
	if err != nil && !isGone(err) {
		return nil, fmt.Errorf("watch cgroup %q: %w", t.Path, err)
	}
	gone := make(chan struct{})
	// Looked at after the watch is armed: no removal can fall between.
	if err != nil || !h.Alive(t) {
		if events != nil {
			events.Close()
		}
		close(gone)
		return gone, nil
	}
	stop := context.AfterFunc(ctx, func() { events.Close() })
	go func() {
		defer events.Close()
		defer stop()
		h.awaitRemoval(ctx, events, t, gone)
	}()
	return gone, nil
}

// awaitRemoval asks after each event whether the target is still there: events of its siblings come as well, and a
// queue that overflowed names nobody.
func (h *Hierarchy) awaitRemoval(ctx context.Context, events *os.File, t Target, gone chan<- struct{}) {
	buffer := make([]byte, 4096)
	for {
		_, err := events.Read(buffer)
		if ctx.Err() != nil {
			return
		}
		// Reading cannot go wrong otherwise; if it did, a target taken for gone is the safe side.
		if err != nil || !h.Alive(t) {
			close(gone)
			return
		}
	}
}

// armRemoval starts to listen for the removal of the target's directory. The news comes from its parent (IN_DELETE): the
// directory itself gives neither IN_DELETE_SELF nor IN_IGNORED (tried on 6.18), because kernfs does not lower the link
// count of what it removes. It is asked all the same, for kernels that do.
func (h *Hierarchy) armRemoval(t Target) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if errors.Is(err, unix.EMFILE) {
		return nil, fmt.Errorf("no inotify instance left; raise the sysctl fs.inotify.max_user_instances: %w", err)
	}
	if err != nil {
		return nil, err
	}
	// A file of the runtime's poller: closing it ends a Read.
	events := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, h.Dir(t), unix.IN_DELETE_SELF|unix.IN_ONLYDIR); err != nil {
		events.Close()
		return nil, err
	}
	if t.Path == "/" {
		return events, nil
	}
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(h.Dir(t)), unix.IN_DELETE|unix.IN_ONLYDIR); err != nil {
		events.Close()
		return nil, err
	}
	return events, nil
}
