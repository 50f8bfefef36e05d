package burn

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"faultd/bpf"
)

// chunk is taken, or touched again, without looking around.
const chunk = int64(1 << 20)

// touchAgain is how often everything is touched, so that it stays in memory. It costs some 40 us per MiB each time.
const touchAgain = 5 * time.Second

// holding is the memory of a burner: of its bytes the first held ones are there.
type holding struct {
	bytes                 []byte
	held                  int64
	shared, locked, cache bool
}

// holdMemory has as much memory as the board wants, until it may not any more.
func (b *burner) holdMemory(words []string) error {
	size, err := strconv.ParseInt(words[0], 10, 64)
	if err != nil {
		return fmt.Errorf("read the burner's arguments: %w", err)
	}
	h := &holding{shared: words[1] == "true", locked: words[2] == "true", cache: words[3] == "true"}
	if err := h.reserve(size); err != nil {
		return err
	}
	if err := ready(); err != nil {
		return err
	}
	touched := int64(0)
	next := bpf.Monotonic() + touchAgain.Nanoseconds()
	for b.may() {
		wanted := min(b.board.wanted().Load(), size)
		switch {
		case h.held < wanted:
			err = h.grow(min(wanted-h.held, chunk))
		case h.held > wanted:
			err = h.shrink(h.held - wanted)
		case touched < h.held:
			n := min(h.held-touched, chunk)
			h.touch(touched, n)
			touched += n
		case bpf.Monotonic() >= next:
			touched, next = 0, bpf.Monotonic()+touchAgain.Nanoseconds()
		default:
			rest(pause)
		}
		if err != nil {
			return err
		}
		b.board.done().Store(h.held)
	}
	return nil
}

// reserve takes addresses, and no memory yet.
func (h *holding) reserve(size int64) (err error) {
	fd, access, flags := -1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS
	switch {
	case h.cache:
		fd, access, flags = fileWork, unix.PROT_READ, unix.MAP_SHARED
	case h.shared:
		flags = unix.MAP_SHARED | unix.MAP_ANONYMOUS
	}
	if h.bytes, err = unix.Mmap(fd, 0, int(size), access, flags|unix.MAP_NORESERVE); err != nil {
		return fmt.Errorf("reserve %d bytes of addresses: %w", size, err)
	}
	return nil
}

func (h *holding) grow(n int64) error {
	h.touch(h.held, n)
	if h.locked {
		if err := unix.Mlock(h.bytes[h.held : h.held+n]); err != nil {
			return fmt.Errorf("lock memory: %w", err)
		}
	}
	h.held += n
	return nil
}

func (h *holding) shrink(n int64) error {
	part := h.bytes[h.held-n : h.held]
	if h.locked {
		if err := unix.Munlock(part); err != nil {
			return fmt.Errorf("unlock memory: %w", err)
		}
	}
	advice := unix.MADV_DONTNEED
	if h.shared {
		advice = unix.MADV_REMOVE
	}
	if err := unix.Madvise(part, advice); err != nil {
		return fmt.Errorf("give memory back: %w", err)
	}
	h.held -= n
	if !h.cache {
		return nil
	}
	// What nobody has mapped any more is still in the cache.
	if err := unix.Fadvise(fileWork, h.held, n, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("give page cache back: %w", err)
	}
	return nil
}

// touch writes into each page, into each another word, so that none is like another. Pages of a file are read, and so come into the cache, or
// come back.
func (h *holding) touch(from, n int64) {
	page := int64(unix.Getpagesize())
	for at := from; at < from+n; at += page {
		word := (*int64)(unsafe.Pointer(&h.bytes[at]))
		if h.cache {
			atomic.LoadInt64(word) // which no compiler leaves out
		} else {
			*word = at + 1
		}
	}
}
