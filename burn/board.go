package burn

import (
	"os"
	"sync/atomic"
	"time"

	"faultd/bpf"
)

// board is memory that daemon and burner share: one writes what is wanted, the other what became of it.
type board struct{ bpf.Shared }

// newBoard makes the memory; the caller closes the file once the burner has it.
func newBoard() (board, *os.File, error) {
	s, f, err := bpf.NewShared("burner's board")
	return board{s}, f, err
}

func openBoard(fd int) (board, error) {
	s, err := bpf.OpenShared(fd, "burner's board")
	return board{s}, err
}

// until is the deadline on the clock of bpf.Monotonic. The daemon writes it, as it does wanted.
func (b board) until() *atomic.Int64 { return b.Word(0) }

// wanted is, of what is held, how many bytes, threads, files or ports to hold; of processor time the part that each thread burns, in millionths; of a disk the time
// from one operation to the next, in ns. 0: no harm.
func (b board) wanted() *atomic.Int64 { return b.Word(1) }

// done is, of what is held, how many are; of processor time how much was got, in ns; of a disk how many
// operations.
func (b board) done() *atomic.Int64 { return b.Word(2) }

// asked is how much of what done counts there should be by now, of processor time and of a disk.
func (b board) asked() *atomic.Int64 { return b.Word(3) }

// failed is how many operations of a disk failed, or how often the kernel refused what was to be held.
func (b board) failed() *atomic.Int64 { return b.Word(4) }

func (b board) setUntil(t time.Time) {
	b.until().Store(bpf.Monotonic() + int64(time.Until(t)))
}
