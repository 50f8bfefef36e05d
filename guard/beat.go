package guard

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The beat: a guard counts at least every beatInterval; it is dead to others when missedBeats of their looks in a row
// found the same number. Looks are counted, not time, so that whoever was stopped itself does not blame the guard.
const (
	beatInterval = 200 * time.Millisecond
	lookInterval = 250 * time.Millisecond
	missedBeats  = 4
)

// beat is a counter in memory that guard, holder and daemon share.
type beat struct{ bytes []byte }

// newBeat makes the memory; the caller closes the file once everybody has it.
func newBeat() (beat, *os.File, error) {
	fd, err := unix.MemfdCreate("faultd-guard-beat", unix.MFD_CLOEXEC)
	if err != nil {
		return beat{}, nil, fmt.Errorf("make the beat's memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "beat")
	if err := f.Truncate(int64(os.Getpagesize())); err != nil {
		f.Close()
		return beat{}, nil, fmt.Errorf("size the beat's memory: %w", err)
	}
	b, err := openBeat(fd)
	if err != nil {
		f.Close()
		return beat{}, nil, err
	}
	return b, f, nil
}

func openBeat(fd int) (beat, error) {
	bytes, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return beat{}, fmt.Errorf("map the beat: %w", err)
	}
	return beat{bytes}, nil
}

func (b beat) counter() *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&b.bytes[0])) }

func (b beat) close() error { return unix.Munmap(b.bytes) }

// watch judges a beat by repeated looks.
type watch struct {
	beat   beat
	last   uint64
	misses int
}

// look says whether the guard still beats. Call it every lookInterval.
func (w *watch) look() bool {
	now := w.beat.counter().Load()
	if now != w.last {
		w.last, w.misses = now, 0
		return true
	}
	w.misses++
	return w.misses < missedBeats
}
