package burn

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"faultd/bpf"
)

// board is memory that daemon and burner share: one writes what is wanted, the other what became of it.
type board struct{ bytes []byte }

// newBoard makes the memory; the caller closes the file once the burner has it.
func newBoard() (board, *os.File, error) {
	fd, err := unix.MemfdCreate("faultd-burn", unix.MFD_CLOEXEC)
	if err != nil {
		return board{}, nil, fmt.Errorf("make the burner's board: %w", err)
	}
	f := os.NewFile(uintptr(fd), "board")
	if err := f.Truncate(int64(os.Getpagesize())); err != nil {
		f.Close()
		return board{}, nil, fmt.Errorf("size the burner's board: %w", err)
	}
	b, err := openBoard(fd)
	if err != nil {
		f.Close()
	}
	return b, f, err
}

func openBoard(fd int) (board, error) {
	bytes, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return board{}, fmt.Errorf("map the burner's board: %w", err)
	}
	return board{bytes}, nil
}

func (b board) word(n int) *atomic.Int64 { return (*atomic.Int64)(unsafe.Pointer(&b.bytes[8*n])) }

// until is the deadline on the clock of bpf.Monotonic. The daemon writes it, as it does wanted.
func (b board) until() *atomic.Int64 { return b.word(0) }

// wanted is, of memory, how many bytes to hold; of processor time the part that each thread burns, in millionths. 0: no harm.
func (b board) wanted() *atomic.Int64 { return b.word(1) }

// done is, of memory, how many bytes are held; of processor time how much was got, in ns.
func (b board) done() *atomic.Int64 { return b.word(2) }

// asked is how much processor time there should be by now, in ns.
func (b board) asked() *atomic.Int64 { return b.word(3) }

func (b board) setUntil(t time.Time) {
	b.until().Store(bpf.Monotonic() + int64(time.Until(t)))
}

func (b board) close() error { return unix.Munmap(b.bytes) }
