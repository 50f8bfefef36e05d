package burn

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"faultd/bpf"
)

// holdAgain is how soon what the kernel refused is tried again.
const holdAgain = 50 * time.Millisecond

// hold takes one thing after another, as many as the board wants, until it may not any more. It never has fewer again. take says whether the
// kernel gave one.
func (b *burner) hold(most int64, take func() (bool, error)) error {
	again := int64(0)
	for held := int64(0); b.may(); {
		wanted := b.board.wanted().Load()
		b.board.asked().Store(wanted)
		if held >= min(most, wanted) || bpf.Monotonic() < again {
			rest(pause)
			continue
		}
		got, err := take()
		if err != nil {
			return err
		}
		if !got {
			b.board.failed().Add(1)
			again = bpf.Monotonic() + holdAgain.Nanoseconds()
			continue
		}
		held++
		b.board.done().Store(held)
	}
	return nil
}

// OwnFiles is how many descriptors a burner may have beside those that it holds.
const OwnFiles = 64

// letHold raises what this process may hold open.
func letHold(files int64) error {
	most := uint64(files + OwnFiles)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read how many descriptors there may be: %w", err)
	}
	limit = unix.Rlimit{Cur: max(limit.Cur, most), Max: max(limit.Max, most)}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("allow itself %d descriptors: %w", most, err)
	}
	return nil
}
