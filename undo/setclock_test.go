package undo

import (
	"testing"
	"time"

	"faultd/test/kernels"
)

// TestSetClock leaves this machine's clock alone: it was not set, or somebody else has set it since.
func TestSetClock(t *testing.T) {
	a, err := SetClockAction(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	wantUndo(t, a, AlreadyGone)
	a.SetClock.Before += int64(10 * time.Hour)
	wantUndo(t, a, Changed)
	if kernels.Machine() == "" {
		t.Skip("the clock of a host is not for tests: it is set in virtual machines")
	}
	before, err := ahead()
	if err != nil {
		t.Fatal(err)
	}
	for _, offset := range []time.Duration{time.Hour, -10 * time.Minute} {
		if a, err = SetClockAction(offset); err != nil {
			t.Fatal(err)
		}
		if err := a.SetClock.Set(); err != nil {
			t.Fatal(err)
		}
		if now, err := ahead(); err != nil || (now-before-offset).Abs() >= nearClock {
			t.Errorf("set by %s the clock is off by %s, %v", offset, now-before, err)
		}
		wantUndo(t, a, Undone)
		wantUndo(t, a, AlreadyGone)
		now, err := ahead()
		if err != nil || (now-before).Abs() >= nearClock {
			t.Errorf("afterwards the clock is off by %s, %v", now-before, err)
		}
		t.Logf("set by %s and back the clock is off by %s", offset, now-before)
	}
}
