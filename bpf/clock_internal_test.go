package bpf

import (
	"testing"
	"time"
)

// TestMonotonicIsTheKernels compares with what the kernel says before and after; the two readings that tie them are apart by far less than
// the millisecond allowed here.
func TestMonotonicIsTheKernels(t *testing.T) {
	const apart = int64(time.Millisecond)
	for range 1000 {
		before, got, after := readMonotonic(), Monotonic(), readMonotonic()
		if got < before-apart || got > after+apart {
			t.Fatalf("got %d ns, the kernel says %d before and %d after", got, before, after)
		}
	}
}

func BenchmarkMonotonic(b *testing.B) {
	for b.Loop() {
		Monotonic()
	}
}
