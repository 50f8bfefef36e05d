package faults

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"faultd/mounts"
	"faultd/undo"
)

// files takes inodes with empty files in a directory of ours. They need names: without one, each would need a descriptor
// and memory of the kernel. The directory is written down before it is made, by a path that the guard and the next daemon can follow.
type files struct {
	place  *place
	dir    int
	n      int64
	spare  int64
	remove func(context.Context) (undo.Outcome, error)
	strike func() error
	path   string

	// mu guards what follows.
	mu       sync.Mutex
	released bool
	foreign  bool
}

// filesPrefix begins the name of the directory.
const filesPrefix = ".faultd-"

func newFiles(env Env, p *place, id string) (*files, error) {
	if p.mount.Type == "overlay" {
		return nil, unfit("path", "%s is an overlay, whose inodes are those of the file system under it; choose a volume", p.dir.Name())
	}
	parent, err := p.ownPath()
	if err != nil {
		return nil, err
	}
	f := &files{place: p, path: filepath.Join(parent, filesPrefix+strings.ToLower(rand.Text()[:16]))}
	space, err := Disk{}.usage(p.dir)
	if err != nil {
		return nil, err
	}
	f.spare = min(64*mebibyte, (space.used+space.free)/20)
	action, err := undo.RemoveFilesAction(f.path)
	if err != nil {
		return nil, err
	}
	c, err := begin(env, id, action)
	if err != nil {
		return nil, err
	}
	f.remove, f.strike = action.Undo, c.strike
	if err := f.makeDir(); err != nil {
		_, undoErr := f.remove(context.Background())
		if undoErr == nil {
			undoErr = f.strike()
		}
		return nil, errors.Join(err, undoErr)
	}
	return f, nil
}

func (f *files) makeDir() error {
	name := filepath.Base(f.path)
	err := unix.Mkdirat(int(f.place.dir.Fd()), name, 0o700)
	if errors.Is(err, unix.EROFS) {
		return unfit("path", "%s is read-only", f.place.dir.Name())
	}
	if err == nil {
		f.dir, err = unix.Openat(int(f.place.dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return fmt.Errorf("make a directory in %s: %w", f.place.dir.Name(), err)
	}
	return nil
}

// filesStep is as many as are made before looking around.
const filesStep = 1000

func (f *files) unit() int64       { return 1 }
func (f *files) most() int64       { return filesStep }
func (f *files) scale() int64      { return 1 }
func (f *files) mechanism() string { return mechanismFiles }

func (f *files) usage() (usage, error) { return Disk{Inodes: true}.usage(f.place.dir) }

// errNoSpace: files need space too (the directory grows, and XFS makes inodes of it).
var errNoSpace = fmt.Errorf("the space for more inodes is used up: %w", unix.ENOSPC)

func (f *files) take(n int64) (int64, error) {
	space, err := Disk{}.usage(f.place.dir)
	if err != nil {
		return 0, err
	}
	if space.free < f.spare {
		return 0, errNoSpace
	}
	for i := range n {
		if err := unix.Mknodat(f.dir, strconv.FormatInt(f.n, 10), unix.S_IFREG|0o600, 0); err != nil {
			return i, fmt.Errorf("make a file in %s: %w", f.path, err)
		}
		f.n++
	}
	return n, nil
}

func (f *files) giveBack(n int64) error {
	for range n {
		err := unix.Unlinkat(f.dir, strconv.FormatInt(f.n-1, 10), 0)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove a file in %s: %w", f.path, err)
		}
		f.n--
	}
	return nil
}

func (f *files) release() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.released {
		outcome, err := f.remove(context.Background())
		if err != nil {
			return err
		}
		f.released, f.foreign = true, outcome == undo.Changed
		if err := errors.Join(unix.Close(f.dir), f.place.close()); err != nil {
			return fmt.Errorf("close %s: %w", f.path, err)
		}
	}
	return f.strike()
}

// notes says if something of somebody else was left in our directory.
func (f *files) notes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.foreign {
		return nil
	}
	return []string{f.path + " holds something of somebody else and was left"}
}

// ownPath is the path by which faultd itself sees the directory, whatever it is mounted as for the target.
func (p *place) ownPath() (string, error) {
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", p.dir.Fd()))
	if err != nil {
		return "", fmt.Errorf("find the path of %s: %w", p.dir.Name(), err)
	}
	inside, ok := below(p.mount.Point, path)
	if !ok {
		return "", fmt.Errorf("find the path of %s: %s is not below its mount point %s", p.dir.Name(), path, p.mount.Point)
	}
	inside = filepath.Join(p.mount.Root, inside)
	seen, err := mounts.Of("self")
	if err != nil {
		return "", err
	}
	for _, m := range seen {
		rest, ok := below(m.Root, inside)
		if m.Device != p.mount.Device || !ok {
			continue
		}
		if path := filepath.Join(m.Point, rest); p.isAt(path) {
			return path, nil
		}
	}
	return "", unfit("path", "faultd does not see %s itself, so nobody could remove the files if it were killed; choose a directory of a volume that is mounted on the node", p.dir.Name())
}

// isAt says whether the directory is what is at a path.
func (p *place) isAt(path string) bool {
	var there, here unix.Stat_t
	return unix.Lstat(path, &there) == nil && unix.Fstat(int(p.dir.Fd()), &here) == nil && there.Dev == here.Dev && there.Ino == here.Ino
}
