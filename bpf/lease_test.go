package bpf

import (
	"sync/atomic"
	"testing"
	"time"

	"faultd/test/kernels"
)

// TestLapseThatIsSeen: a lease that somebody has seen lapsed is not renewed as if it had not, however short that was.
func TestLapseThatIsSeen(t *testing.T) {
	kernels.OnHost(t)
	k := openKernel(t)
	lease := k.lease.word(0)
	var seen, turns atomic.Uint64 // the lease that was seen lapsed last, and how often it was looked
	over := make(chan bool)
	defer close(over)
	go func() {
		for {
			select {
			case <-over:
				return
			default:
			}
			if now, until := uint64(Monotonic()), lease.Load(); until != 0 && now >= until {
				seen.Store(until)
			}
			turns.Add(1)
		}
	}()
	for i := range 30000 {
		until := uint64(Monotonic()) + uint64(i%2000)
		lease.Store(until)
		lapsed := k.KeepLease(time.Hour)
		for begun := turns.Load(); turns.Load() < begun+2; { // it has told what it saw
		}
		if seen.Load() == until && !lapsed {
			t.Fatalf("renewed a lease that had lapsed, with the try %d", i)
		}
	}
}
