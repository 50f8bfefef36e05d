package bpf

import (
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// start is a moment that the Go runtime's clock and the kernel's both know; startedAt is it by the latter. Both read CLOCK_MONOTONIC, but only the
// runtime does so without a system call (vdso(7)), which the guard would make several times for each thread that sleeps.
var start, startedAt = readBoth()

// Monotonic is CLOCK_MONOTONIC in ns, the clock of bpf_ktime_get_ns, to within the microsecond that reading it twice may take. It stands still
// while the machine is suspended.
func Monotonic() int64 { return startedAt + int64(time.Since(start)) }

// readBoth reads both clocks, the kernel's between two readings of the runtime's that are as close as they get.
func readBoth() (runtime time.Time, kernel int64) {
	const tries = 16
	nearest := time.Duration(math.MaxInt64)
	for range tries {
		before := time.Now()
		now := readMonotonic()
		took := time.Since(before)
		if took < nearest {
			nearest, runtime, kernel = took, before, now-int64(took)/2
		}
	}
	return runtime, kernel
}

// readMonotonic asks the kernel.
func readMonotonic() int64 {
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
