package undo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// DriftClock gives the node's clocks the rate back that they had, if it still is what they were given, and sets CLOCK_REALTIME to where it would be
// by now with that rate. All clocks but CLOCK_MONOTONIC_RAW run at the rate (kernel/time/ntp.c). After a reboot they run as the hardware's does.
type DriftClock struct {
	// Before is the rate that they had, and During what they were given.
	Before Rate `json:"before"`
	During Rate `json:"during"`
	// Began is what the clocks said then.
	Began Moment `json:"began"`
}

// Rate is how fast the clocks run, in the kernel's terms (adjtimex(2)): microseconds in each hundredth of a second, and millionths, of
// which each has 2^16 parts.
type Rate struct {
	Tick      int64 `json:"tick"`
	Frequency int64 `json:"frequency"`
}

// Moment is what clocks said at the same time, in ns.
type Moment struct {
	Realtime int64 `json:"realtime"`
	Raw      int64 `json:"raw"`
	// Asleep is for how long the machine was suspended, which CLOCK_MONOTONIC_RAW does not count.
	Asleep int64 `json:"asleep"`
}

const (
	// evenTick is that of a clock that runs as its hardware does.
	evenTick = 10000
	// What the kernel allows (kernel/time/ntp.c).
	leastTick, mostTick = 9000, 11000
	partsOfMillionth    = 1 << 16
	mostFrequency       = 500 * partsOfMillionth
	millionthsOfTick    = 1e6 / evenTick
)

// ErrDriftTooFar means that the kernel does not let the clocks run so fast, or so slowly.
var ErrDriftTooFar = errors.New("the kernel lets clocks run at most 10 % faster or slower than their hardware")

// millionths is by how much clocks are ahead of their hardware after a second, in us.
func (r Rate) millionths() float64 {
	return float64(r.Tick-evenTick)*millionthsOfTick + float64(r.Frequency)/partsOfMillionth
}

// plus is a rate that is faster by so many millionths.
func (r Rate) plus(millionths float64) (Rate, error) {
	sum := r.millionths() + millionths
	ticks := math.Round(sum / millionthsOfTick)
	faster := Rate{evenTick + int64(ticks), int64(math.Round((sum - ticks*millionthsOfTick) * partsOfMillionth))}
	if faster.Tick < leastTick || faster.Tick > mostTick {
		return Rate{}, ErrDriftTooFar
	}
	return faster, nil
}

// DriftClockAction is the action that takes back that the clocks run faster than now by so many millionths; if that is negative: slower.
func DriftClockAction(millionths float64) (Action, error) {
	now, err := RateNow()
	if err != nil {
		return Action{}, err
	}
	d := &DriftClock{Before: now}
	if d.During, err = now.plus(millionths); err != nil {
		return Action{}, err
	}
	if d.Began, err = momentNow(); err != nil {
		return Action{}, err
	}
	return Action{Version: Version, DriftClock: d}, d.validate()
}

// Set does what the action takes back. The kernel then says that the clock is not synchronized, and leaves the hardware's alone.
func (d *DriftClock) Set() error { return setRate(d.During) }

// Holds says whether the clocks run at the rate that they were given.
func (d *DriftClock) Holds() (bool, error) {
	now, err := RateNow()
	return now == d.During, err
}

func (d *DriftClock) durable() bool { return false }

func (d *DriftClock) validate() error {
	for _, r := range []Rate{d.Before, d.During} {
		if r.Tick < leastTick || r.Tick > mostTick || r.Frequency < -mostFrequency || r.Frequency > mostFrequency {
			return fmt.Errorf("give the clocks their rate back: %+v is none that the kernel knows", r)
		}
	}
	if d.Before == d.During {
		return errors.New("give the clocks their rate back: it was not changed")
	}
	return nil
}

func (d *DriftClock) undo(context.Context) (Outcome, error) {
	now, err := RateNow()
	switch {
	case err != nil:
		return "", err
	case now == d.Before:
		return AlreadyGone, nil
	case now != d.During:
		return Changed, nil
	}
	is, err := momentNow()
	if err != nil {
		return "", err
	}
	outcome := Undone
	if !d.drifted(is) {
		outcome = Changed // somebody has set it: only the rate is ours
	} else if err := setClock(d.Began, d.Before); err != nil {
		return "", err
	}
	// Last: whoever is killed before comes here again.
	return outcome, setRate(d.Before)
}

// drifted says whether CLOCK_REALTIME is between where it would be at the one rate and where it would be at the other.
func (d *DriftClock) drifted(is Moment) bool {
	near := nearClock.Nanoseconds()
	one, other := d.Began.after(is, d.Before), d.Began.after(is, d.During)
	return is.Realtime > min(one, other)-near && is.Realtime < max(one, other)+near
}

// after is what CLOCK_REALTIME says at another moment, if it ran at a rate since.
func (m Moment) after(other Moment, r Rate) int64 {
	passed, asleep := other.Raw-m.Raw, other.Asleep-m.Asleep
	if time.Duration(asleep) < nearClock {
		asleep = 0 // the two clocks cannot be read at once
	}
	return m.Realtime + passed + int64(float64(passed)*r.millionths()/1e6) + asleep
}

// setClock sets the clock to where it would be by now, at a rate.
func setClock(began Moment, r Rate) error {
	for range clockTries {
		is, err := momentNow()
		if err != nil {
			return err
		}
		off := time.Duration(is.Realtime - began.after(is, r))
		if off.Abs() < exactClock {
			return nil
		}
		now, err := ahead()
		if err != nil {
			return err
		}
		if err := setAhead(now - off); err != nil {
			return err
		}
	}
	return nil
}

// RateNow is the rate of the clocks.
func RateNow() (Rate, error) {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return Rate{}, fmt.Errorf("read the rate of the clocks: %w", err)
	}
	return Rate{t.Tick, t.Freq}, nil
}

func setRate(r Rate) error {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return fmt.Errorf("read the rate of the clocks: %w", err)
	}
	t = unix.Timex{Modes: unix.ADJ_TICK | unix.ADJ_FREQUENCY | unix.ADJ_STATUS, Tick: r.Tick, Freq: r.Frequency, Status: t.Status | unix.STA_UNSYNC}
	if _, err := unix.Adjtimex(&t); err != nil {
		return fmt.Errorf("set the rate of the clocks: %w", err)
	}
	if now, err := RateNow(); err != nil || now != r {
		return errors.Join(err, fmt.Errorf("set the rate of the clocks: it is %+v, not %+v", now, r))
	}
	return nil
}

// momentNow reads the clocks as fast as the processor lets us.
func momentNow() (best Moment, err error) {
	shortest := time.Duration(math.MaxInt64)
	for range clockTries {
		began, err := readClock(unix.CLOCK_MONOTONIC_RAW)
		now, err2 := readClock(unix.CLOCK_REALTIME)
		ended, err3 := readClock(unix.CLOCK_MONOTONIC_RAW)
		if err := errors.Join(err, err2, err3); err != nil {
			return best, err
		}
		if took := ended - began; took < shortest {
			shortest = took
			best = Moment{Realtime: int64(now), Raw: int64(began + took/2)}
		}
	}
	boot, err := readClock(unix.CLOCK_BOOTTIME)
	up, err2 := readClock(unix.CLOCK_MONOTONIC)
	best.Asleep = int64(boot - up)
	return best, errors.Join(err, err2)
}
