package faults

import (
	"testing"
	"time"

	"faultd/test/cgrouptest"
)

// TestKillTakesLong: processes were said to fork faster than they can be killed, though they did not fork, where there are so many, or the machine
// is so slow, that one round takes all the time that they are given; whom they had forked before was left.
func TestKillTakesLong(t *testing.T) {
	tree, target := cgrouptest.New(t)
	for range 2 {
		cgrouptest.Start(t, tree, target, "sleep", "infinity")
	}
	allowed := &permit{kernel: func() bool { return true }, until: time.Now().Add(time.Hour)}
	k := &killing{tree: tree, target: target, permit: allowed, within: 0}
	if notes, err := k.do(); err != nil || len(notes) > 0 {
		t.Errorf("got notes %q, %v", notes, err)
	}
	if c := k.counters(); c.Injected != 2 {
		t.Errorf("counted %+v", c)
	}
}
