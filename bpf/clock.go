package bpf

import (
	"time"

	"golang.org/x/sys/unix"
)

// Monotonic is CLOCK_MONOTONIC in ns, the clock of bpf_ktime_get_ns. It stands still while the machine is suspended.
func Monotonic() int64 {
	var ts unix.Timespec
	// It cannot fail for this clock (clock_gettime(2)).
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// monotonicAt is when a wall-clock time will be, on the monotonic clock.
func monotonicAt(t time.Time) uint64 {
	at := Monotonic() + int64(time.Until(t))
	return uint64(max(at, 1))
}
