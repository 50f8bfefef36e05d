package cgroup

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Watch gives a channel that is closed when the target is removed; at once, if it is gone already. When ctx ends, so
// does the watch, and the channel stays open. All watches of a Hierarchy share one inotify instance, which is open while
// there is one: a user has few of them (fs.inotify.max_user_instances).
func (h *Hierarchy) Watch(ctx context.Context, t Target) (<-chan struct{}, error) {
	w := &watch{target: t, gone: make(chan struct{})}
	h.removals.mu.Lock()
	defer h.removals.mu.Unlock()
	err := h.removals.add(h, w)
	if err != nil && !isGone(err) {
		return nil, fmt.Errorf("watch cgroup %q: %w", t.Path, err)
	}
	// Looked at after the watch is armed: no removal can fall between.
	if err != nil || !h.Alive(t) {
		h.removals.drop(w)
		close(w.gone)
		return w.gone, nil
	}
	w.stop = context.AfterFunc(ctx, func() {
		h.removals.mu.Lock()
		defer h.removals.mu.Unlock()
		h.removals.drop(w)
	})
	return w.gone, nil
}

// removals are the watches of a Hierarchy.
type removals struct {
	mu      sync.Mutex
	events  *os.File
	fd      int // of events: File.Fd could make it blocking
	watches []*watch
	dirs    map[string]*watchedDir
}

type watch struct {
	target Target
	gone   chan struct{}
	stop   func() bool // of the context's end
	dirs   []string    // whose events may mean the target's removal
}

// watchedDir is a directory with the number of watches that listen to it.
type watchedDir struct{ wd, users int }

// add listens for the removal of the target's directory. The news comes from its parent (IN_DELETE): the directory itself
// gives neither IN_DELETE_SELF nor IN_IGNORED (tried on 6.18), because kernfs does not lower the link count of what it
// removes. It is asked all the same, for kernels that do. Call with mu held.
func (r *removals) add(h *Hierarchy, w *watch) error {
	if r.events == nil {
		if err := r.open(h); err != nil {
			return err
		}
	}
	r.watches = append(r.watches, w)
	if err := r.listen(w, h.Dir(w.target), unix.IN_DELETE_SELF); err != nil || w.target.Path == "/" {
		return err
	}
	return r.listen(w, filepath.Dir(h.Dir(w.target)), unix.IN_DELETE)
}

func (r *removals) open(h *Hierarchy) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return noInstance(err)
	}
	// A file of the runtime's poller: closing it ends a Read.
	r.events, r.fd = os.NewFile(uintptr(fd), "inotify"), fd
	r.dirs = map[string]*watchedDir{}
	go r.read(h, r.events)
	return nil
}

// ErrNoInotify means that root has used up its inotify instances.
var ErrNoInotify = errors.New("no inotify instance left; raise the sysctl fs.inotify.max_user_instances")

// noInstance says why there is no inotify instance. The kernel says the same (EMFILE) if root has used up its instances, and if this process may
// open no more files; then it gets none of any other kind.
func noInstance(err error) error {
	if !errors.Is(err, unix.EMFILE) {
		return err
	}
	other, refused := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if refused != nil {
		return err
	}
	unix.Close(other)
	return ErrNoInotify
}

func (r *removals) listen(w *watch, dir string, event uint32) error {
	// A directory can be the one of a target and the parent of another's: with MASK_ADD it serves both.
	wd, err := unix.InotifyAddWatch(r.fd, dir, event|unix.IN_ONLYDIR|unix.IN_MASK_ADD)
	if err != nil {
		return err
	}
	// The name may have become another directory's meanwhile.
	if known := r.dirs[dir]; known == nil || known.wd != wd {
		r.dirs[dir] = &watchedDir{wd: wd}
	}
	r.dirs[dir].users++
	w.dirs = append(w.dirs, dir)
	return nil
}

// drop ends a watch; the last one closes the instance. Call with mu held; twice is fine.
func (r *removals) drop(w *watch) {
	i := slices.Index(r.watches, w)
	if i < 0 {
		return
	}
	if w.stop != nil {
		w.stop()
	}
	r.watches = slices.Delete(r.watches, i, i+1)
	for _, dir := range w.dirs {
		d := r.dirs[dir]
		if d.users--; d.users == 0 {
			delete(r.dirs, dir)
			// It fails for a directory that is gone, which the kernel has dropped by itself.
			_, _ = unix.InotifyRmWatch(r.fd, uint32(d.wd))
		}
	}
	if len(r.watches) == 0 {
		r.events.Close()
		r.events = nil
	}
}

// read asks after each event whether the targets of its directory are still there: events of siblings come as well.
func (r *removals) read(h *Hierarchy, events *os.File) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := events.Read(buffer)
		r.mu.Lock()
		if r.events != events {
			r.mu.Unlock()
			return
		}
		r.look(h, eventDirs(buffer[:n]), err != nil)
		r.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// look ends the watches of targets that are gone. Reading cannot go wrong; if it did, a target taken for gone is the safe side.
func (r *removals) look(h *Hierarchy, wds map[int]bool, broken bool) {
	for _, w := range slices.Clone(r.watches) {
		heard := wds[overflow] || slices.ContainsFunc(w.dirs, func(dir string) bool { return wds[r.dirs[dir].wd] })
		if broken || heard && !h.Alive(w.target) {
			r.drop(w)
			close(w.gone)
		}
	}
}

// overflow is the directory of the event that says that others were lost (inotify(7)).
const overflow = -1

// eventDirs are the watch descriptors in a buffer of struct inotify_event.
func eventDirs(b []byte) map[int]bool {
	wds := map[int]bool{}
	for len(b) >= unix.SizeofInotifyEvent {
		wds[int(int32(binary.NativeEndian.Uint32(b)))] = true
		name := int(binary.NativeEndian.Uint32(b[12:]))
		b = b[min(len(b), unix.SizeofInotifyEvent+name):]
	}
	return wds
}
