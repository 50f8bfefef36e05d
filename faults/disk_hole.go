package faults

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"faultd/undo"
)

// hole takes space with one file that never has a name: nobody can see or keep it, and it is gone with us, whether we are
// killed or the machine loses its power. The journal knows of it for the case that we are stopped: then the guard empties it.
type hole struct {
	place *place
	// writes: the file system has no fallocate.
	writes bool
	start  usage
	block  int64
	size   int64
	strike func() error

	// mu guards file, which is nil once it is given back.
	mu   sync.Mutex
	file *os.File
}

// newHole makes the file and writes it down before it takes anything.
func newHole(env Env, p *place, id string) (*hole, error) {
	file, err := nameless(p)
	if err != nil {
		return nil, err
	}
	h := &hole{place: p, file: file}
	if err := h.prepare(env, id); err != nil {
		return nil, errors.Join(err, h.file.Close())
	}
	return h, nil
}

// nameless makes a file without a name.
func nameless(p *place) (*os.File, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", p.dir.Fd()), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENOENT):
		return nil, unfit("path", "%s (%s) has no files without a name (O_TMPFILE), which go by themselves when faultd is gone; choose a directory of another file system",
			p.dir.Name(), p.mount.Type)
	case errors.Is(err, unix.EROFS):
		return nil, unfit("path", "%s is read-only", p.dir.Name())
	case err != nil:
		return nil, fmt.Errorf("make a file in %s: %w", p.dir.Name(), err)
	}
	return os.NewFile(uintptr(fd), p.dir.Name()), nil
}

func (h *hole) prepare(env Env, id string) error {
	var st unix.Statfs_t
	err := unix.Fstatfs(int(h.file.Fd()), &st)
	if err == nil {
		h.block = max(1, st.Frsize)
		h.start, err = h.usage()
	}
	if err != nil {
		return err
	}
	action, err := undo.EmptyFileAction(h.file)
	if err != nil {
		return err
	}
	c, err := begin(env, id, action)
	if err != nil {
		return err
	}
	h.strike = c.strike
	// One block, to see how it is done here.
	err = unix.Fallocate(int(h.file.Fd()), 0, 0, h.block)
	h.writes = errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)
	if err == nil || h.writes {
		err = h.file.Truncate(0)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("take space in %s: %w", h.file.Name(), err), h.strike())
	}
	return nil
}

// Steps of fallocate and write: as much as can be taken before looking around.
const (
	fallocateStep = 64 * mebibyte
	writeStep     = 4 * mebibyte
)

func (h *hole) unit() int64  { return h.block }
func (h *hole) scale() int64 { return mebibyte }
func (h *hole) most() int64 {
	if h.writes {
		return writeStep
	}
	return fallocateStep
}

func (h *hole) notes() []string { return nil }

func (h *hole) mechanism() string {
	if h.writes {
		return mechanismWrite
	}
	return mechanismFallocate
}

func (h *hole) usage() (usage, error) {
	u, err := Disk{}.usage(h.place.dir)
	if h.writes {
		// What was written may show late.
		late := max(0, u.free-(h.start.free-h.size))
		u.free, u.used = u.free-late, u.used+late
	}
	return u, err
}

// take asks for less and less if there is not enough: the file system needs room for its own lists, too.
func (h *hole) take(n int64) (int64, error) {
	for {
		err := h.extend(n)
		if err == nil {
			h.size += n
			return n, nil
		}
		// It may have taken a part.
		if err := errors.Join(err, h.file.Truncate(h.size)); !errors.Is(err, unix.ENOSPC) || n <= h.block {
			return 0, err
		}
		n = max(h.block, n/2/h.block*h.block)
	}
}

func (h *hole) extend(n int64) error {
	if !h.writes {
		for {
			if err := unix.Fallocate(int(h.file.Fd()), 0, h.size, n); !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	}
	// Random, for file systems that compress, and another each time, for those that find what is there twice.
	var seed [32]byte
	binary.NativeEndian.PutUint64(seed[:], uint64(h.size))
	data := make([]byte, n)
	_, _ = rand.NewChaCha8(seed).Read(data) // it never fails
	if _, err := h.file.WriteAt(data, h.size); err != nil {
		return err
	}
	// Only then do all file systems count it.
	return unix.Fdatasync(int(h.file.Fd()))
}

func (h *hole) giveBack(n int64) error {
	if err := h.file.Truncate(h.size - n); err != nil {
		return fmt.Errorf("give space back in %s: %w", h.file.Name(), err)
	}
	h.size -= n
	return nil
}

func (h *hole) release() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.file != nil {
		// Emptied, and not only closed: somebody may hold it through /proc.
		err := errors.Join(h.file.Truncate(0), h.file.Close(), h.place.close())
		h.file = nil
		if err != nil {
			return fmt.Errorf("give space back: %w", err)
		}
	}
	return h.strike()
}
