package faults

import (
	"sync/atomic"
	"testing"
	"time"

	"faultd/test/cgrouptest"
	"faultd/undo"
)

// TestPauseEndsByItself: it is over when its permit is, though nobody asks for that, and not before an end that was moved.
func TestPauseEndsByItself(t *testing.T) {
	tree, target := cgrouptest.New(t)
	journal, err := undo.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var allowed atomic.Bool
	allowed.Store(true)
	p := &permit{kernel: allowed.Load, until: time.Now().Add(time.Hour)}
	pause, err := startPause(Env{Cgroups: tree, Journal: journal}, target, "f", p)
	if err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(2 * time.Hour)
	if err := pause.Update(Process{Pause: true}, Common{Until: until}); err != nil || !p.until.Equal(until) {
		t.Errorf("its end is %s, %v", p.until, err)
	}
	frozen := func() bool {
		is, err := isFrozen(pause.env, target)
		if err != nil {
			t.Fatal(err)
		}
		return is
	}
	if !frozen() {
		t.Error("it does not stand still")
	}
	allowed.Store(false)
	for end := time.Now().Add(time.Minute); frozen(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it stands still")
		}
	}
	if err := pause.Close(); err != nil {
		t.Error(err)
	}
}
