package undo

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"faultd/test/kernels"
)

func TestRates(t *testing.T) {
	for _, test := range []struct {
		from Rate
		by   float64
		want Rate
	}{
		{Rate{Tick: 10000}, 1, Rate{10000, 1 << 16}},
		{Rate{Tick: 10000}, -40, Rate{10000, -40 << 16}},
		{Rate{Tick: 10000}, 100000, Rate{Tick: 11000}},
		{Rate{Tick: 10000}, -100000, Rate{Tick: 9000}},
		{Rate{10000, 499 << 16}, 2, Rate{10005, 1 << 16}},
		{Rate{10001, -20 << 16}, 1000, Rate{10011, -20 << 16}},
	} {
		got, err := test.from.plus(test.by)
		if got != test.want || err != nil {
			t.Errorf("%+v and %v millionths is %+v, %v, want %+v", test.from, test.by, got, err, test.want)
		}
		if is, was := got.millionths(), test.from.millionths(); is-was != test.by {
			t.Errorf("%+v is %v millionths faster than %+v", got, is-was, test.from)
		}
	}
	if got, err := (Rate{10000, 300 << 16}).plus(100000); !errors.Is(err, ErrDriftTooFar) {
		t.Errorf("too fast: %+v, %v", got, err)
	}
}

// TestDrifted: a clock that ran faster is somewhere between; one that was set is not.
func TestDrifted(t *testing.T) {
	const sec = int64(time.Second)
	d := DriftClock{Before: Rate{Tick: 10000}, During: Rate{Tick: 9000}, Began: Moment{Realtime: 1000 * sec, Raw: 50 * sec, Asleep: 3 * sec}}
	at := func(realtime int64) Moment { return Moment{Realtime: realtime, Raw: 150 * sec, Asleep: 3*sec + 1000} }
	for realtime, want := range map[int64]bool{1100 * sec: true, 1095 * sec: true, 1090 * sec: true, 1101 * sec: false, 1089 * sec: false} {
		if d.drifted(at(realtime)) != want {
			t.Errorf("at %d: it drifted %v", realtime/sec, !want)
		}
	}
	slept := at(1100 * sec)
	slept.Asleep += 20 * sec
	if now := d.Began.after(slept, d.Before); now/sec != 1120 {
		t.Errorf("a machine that slept is at %d", now)
	}
}

// TestDriftClock leaves this machine's clock alone: its rate was not changed, or somebody else has changed it since.
func TestDriftClock(t *testing.T) {
	a, err := DriftClockAction(50000)
	if err != nil {
		t.Fatal(err)
	}
	wantUndo(t, a, AlreadyGone)
	right := a.DriftClock.Before
	a.DriftClock.Before.Tick++
	wantUndo(t, a, Changed)
	if kernels.Machine() == "" {
		t.Skip("the clock of a host is not for tests: it is set in virtual machines")
	}
	for _, millionths := range []float64{50000, -100000, 3} {
		if a, err = DriftClockAction(millionths); err != nil {
			t.Fatal(err)
		}
		if err := a.DriftClock.Set(); err != nil {
			t.Fatal(err)
		}
		// By the clock that nobody can change.
		for began := a.DriftClock.Began.Raw; ; {
			now, err := momentNow()
			if err != nil {
				t.Fatal(err)
			}
			if passed := now.Raw - began; passed > int64(time.Second/2) {
				off := now.Realtime - a.DriftClock.Began.after(now, right)
				if want := float64(passed) * millionths / 1e6; float64(off) < min(want*0.8, want*1.2)-1e6 || float64(off) > max(want*0.8, want*1.2)+1e6 {
					t.Errorf("%v millionths: after %d ns the clock is off by %d", millionths, passed, off)
				}
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		wantUndo(t, a, Undone)
		wantUndo(t, a, AlreadyGone)
		now, err := momentNow()
		if err != nil {
			t.Fatal(err)
		}
		rate, err := RateNow()
		if off := time.Duration(now.Realtime - a.DriftClock.Began.after(now, right)); err != nil || rate != right || off.Abs() >= nearClock {
			t.Errorf("%v millionths: afterwards the clock is off by %s at %+v, %v", millionths, off, rate, err)
		} else {
			t.Logf("%v millionths and back: the clock is off by %s", millionths, off)
		}
	}
	// Set by somebody else it stays, and only its rate is taken back.
	if a, err = DriftClockAction(50000); err != nil {
		t.Fatal(err)
	}
	before, err := ahead()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := setAhead(before); err != nil {
			t.Error(err)
		}
	})
	theirs := unix.NsecToTimespec(time.Now().Add(time.Hour).UnixNano())
	if err := errors.Join(a.DriftClock.Set(), unix.ClockSettime(unix.CLOCK_REALTIME, &theirs)); err != nil {
		t.Fatal(err)
	}
	wantUndo(t, a, Changed)
	now, err := ahead()
	rate, err2 := RateNow()
	if err := errors.Join(err, err2); err != nil || rate != right || (now-before-time.Hour).Abs() > time.Minute {
		t.Errorf("set by somebody else it is off by %s at %+v, %v", now-before, rate, err)
	}
}
