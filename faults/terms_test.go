package faults

import (
	"testing"
	"time"
)

// TestTermsAt: the way of a limit, by the time since its start.
func TestTermsAt(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		terms Terms
		since time.Duration
		want  float64
	}{
		{Terms{}, 0, 1},
		{Terms{Ramp: 1}, 0, 0.5}, // a ramp too short for steps
		{Terms{Ramp: 1}, 1, 1},
		{Terms{Ramp: s}, 0, 0.2}, // it begins at once
		{Terms{Ramp: s}, 249 * time.Millisecond, 0.2},
		{Terms{Ramp: s}, 250 * time.Millisecond, 0.4},
		{Terms{Ramp: s}, 999 * time.Millisecond, 0.8},
		{Terms{Ramp: s}, s, 1},
		{Terms{Ramp: 1000 * s}, 500 * s, 51.0 / 101}, // no more steps than 100
		{Terms{Ramp: 1000 * s}, 509 * s, 51.0 / 101},
		{Terms{On: 5 * s, Off: 10 * s}, 0, 1},
		{Terms{On: 5 * s, Off: 10 * s}, 5 * s, 0},
		{Terms{On: 5 * s, Off: 10 * s}, 15*s - 1, 0},
		{Terms{On: 5 * s, Off: 10 * s}, 15 * s, 1},
		{Terms{On: 5 * s, Off: 10 * s}, 15000 * s, 1},
		{Terms{On: 5 * s, Off: 10 * s, Pulses: 2}, 19 * s, 1},
		{Terms{On: 5 * s, Off: 10 * s, Pulses: 2}, 30 * s, 0},
		{Terms{On: 5 * s, Off: 10 * s, Ramp: s}, 15 * s, 0.2}, // each pulse has the ramp
		{Terms{On: 5 * s, Off: 10 * s, Ramp: s}, 16 * s, 1},
	} {
		if got := c.terms.at(c.since); got != c.want {
			t.Errorf("%+v after %s: %v, want %v", c.terms, c.since, got, c.want)
		}
	}
}
