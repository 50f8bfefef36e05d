package burn

import (
	"fmt"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// threadFlags make a thread, and nothing but a thread, of this process.
const threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM

// parkThread starts a thread that waits until the process ends, and gives its number, or less than 0. It has no stack, so no signal may reach
// it: all are blocked before. Such a thread costs what the kernel needs for it; one of the Go runtime has stacks, too, and if the kernel
// refuses it the runtime ends the process.
func parkThread(flags uintptr) (result uintptr)

// holdThreads has as many threads as the board wants, beside its own few, until it may not any more. It never has fewer again.
func (b *burner) holdThreads(words []string) error {
	most, err := strconv.ParseInt(words[0], 10, 64)
	if err != nil {
		return fmt.Errorf("read the burner's arguments: %w", err)
	}
	// A goroutine that is locked to its thread has the runtime start another one for its own work, and end the process where that is
	// refused. From here on no call tells the runtime that it may take long, for the same reason.
	runtime.UnlockOSThread()
	if err := ready(); err != nil {
		return err
	}
	return b.hold(most, func() (bool, error) {
		if err := blockSignals(); err != nil {
			return false, err
		}
		return int64(parkThread(threadFlags)) >= 0, nil
	})
}

// blockSignals is for the calling thread, and those that it starts.
func blockSignals() error {
	all := unix.Sigset_t{}
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, nil); err != nil {
		return fmt.Errorf("block signals: %w", err)
	}
	return nil
}
