package bpf

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Exhausted says whether an error came of too few open files or too little memory. It tells nothing about what the kernel can do, so it is
// never a reason to take another mechanism, or not to try one again.
func Exhausted(err error) bool {
	return slices.ContainsFunc([]unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOMEM}, func(errno unix.Errno) bool { return errors.Is(err, errno) })
}

// loadNeeds is how many open files loading an object takes at most: for each map its copy, for each program itself and its types, and some
// that are open for a moment.
func loadNeeds(spec *ebpf.CollectionSpec) int { return 2*len(spec.Maps) + 2*len(spec.Programs) + 16 }

// attachNeeds is how many it takes to attach a program.
const attachNeeds = 4

// exhausting is the library's error with its reason, where that may be lost: it takes a try for which there is no open file left for a kernel
// that cannot, and tells some errors without their number.
func exhausting(err error, need int) error {
	if Exhausted(err) || filesLeft() >= need {
		return err
	}
	return fmt.Errorf("%w: %w", unix.EMFILE, err)
}

// filesLeft is how many more files this process may open.
func filesLeft() int {
	var limit unix.Rlimit
	open, err := os.ReadDir("/proc/self/fd")
	if err = errors.Join(err, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)); err != nil {
		return 0 // it cannot even be looked
	}
	return int(min(limit.Cur, 1<<30)) - len(open)
}
