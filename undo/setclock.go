package undo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// SetClock sets the node's clock (CLOCK_REALTIME) back to where it would be by now, if it still is where it was set to. A reboot takes
// the time from the hardware's clock, which nobody sets for a clock that was set by hand (STA_UNSYNC, kernel/time/ntp.c).
type SetClock struct {
	// Before is by how much the clock was ahead of CLOCK_BOOTTIME, in ns. Both run at the same rate, also while NTP corrects it, so that
	// only somebody who sets the clock changes this (wall_to_monotonic, kernel/time/timekeeping.c).
	Before int64 `json:"before"`
	// Offset is by how much it was set ahead of that, in ns; negative: back.
	Offset int64 `json:"offset"`
}

const (
	// nearClock is what counts as the same: a clock that somebody has corrected is not where it was to the nanosecond.
	nearClock = 100 * time.Millisecond
	// LeastOffset is by how much a clock must be set for that to be told apart from corrections.
	LeastOffset = time.Second
	// exactClock is how exactly a clock is set, if nobody takes the processor away each time.
	exactClock = 50 * time.Microsecond
	clockTries = 10
)

// SetClockAction is the action that sets the clock back after it was set ahead by an offset from where it is now; with a negative one, back.
func SetClockAction(offset time.Duration) (Action, error) {
	before, err := ahead()
	if err != nil {
		return Action{}, err
	}
	s := &SetClock{Before: int64(before), Offset: int64(offset)}
	return Action{Version: Version, SetClock: s}, s.validate()
}

// Set does what the action takes back.
func (s *SetClock) Set() error { return setAhead(time.Duration(s.Before + s.Offset)) }

func (s *SetClock) durable() bool { return false }

func (s *SetClock) validate() error {
	if offset := time.Duration(s.Offset); offset.Abs() < LeastOffset {
		return fmt.Errorf("set the clock back: it was set by %s, at least %s can be told", offset, LeastOffset)
	}
	return nil
}

func (s *SetClock) undo(context.Context) (Outcome, error) {
	now, err := ahead()
	if err != nil {
		return "", err
	}
	before := time.Duration(s.Before)
	switch {
	case (now - before).Abs() < nearClock:
		return AlreadyGone, nil
	case (now - before - time.Duration(s.Offset)).Abs() >= nearClock:
		return Changed, nil
	}
	// Not by the offset: whoever does it a second time, or at the same time, comes to the same.
	if err := setAhead(before); err != nil {
		return "", err
	}
	return Undone, nil
}

// ahead is by how much the clock is ahead of the time since the boot, read as fast as the processor lets us.
func ahead() (time.Duration, error) {
	var best time.Duration
	shortest := time.Duration(1<<63 - 1)
	for range clockTries {
		began, err := readClock(unix.CLOCK_BOOTTIME)
		now, err2 := readClock(unix.CLOCK_REALTIME)
		ended, err3 := readClock(unix.CLOCK_BOOTTIME)
		if err := errors.Join(err, err2, err3); err != nil {
			return 0, err
		}
		if took := ended - began; took < shortest {
			shortest, best = took, now-began-took/2
		}
	}
	return best, nil
}

// setAhead sets the clock ahead of the time since the boot. It is tried again when it was late.
func setAhead(by time.Duration) error {
	for range clockTries {
		boot, err := readClock(unix.CLOCK_BOOTTIME)
		if err != nil {
			return err
		}
		t := unix.NsecToTimespec(int64(boot + by))
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &t); err != nil {
			return fmt.Errorf("set the clock: %w", err)
		}
		now, err := ahead()
		if err != nil || (now-by).Abs() < exactClock {
			return err
		}
	}
	return nil
}

func readClock(id int32) (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(id, &t); err != nil {
		return 0, fmt.Errorf("read the clock: %w", err)
	}
	return time.Duration(t.Nano()), nil
}
