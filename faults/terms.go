package faults

import (
	"errors"
	"fmt"
	"math"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

// What is done when somebody else changes a limit during the fault.
const (
	onChangeReport  = "report"
	onChangeReapply = "reapply"
	onChangeGiveUp  = "give-up"
)

// Terms are what all limits have in common: how they come and go, and what a change by somebody else means.
type Terms struct {
	// OnChange is "report" (or empty), "reapply" or "give-up".
	OnChange string
	// Ramp is the time in which a limit comes to its value, evenly; 0: at once. With pulses it is that of each.
	Ramp time.Duration
	// On and Off are how long a limit is set, and is not, in turn; 0: it is set all the time.
	On, Off time.Duration
	// Pulses is how many times it is set; 0: until the fault ends.
	Pulses uint32
}

func termsParameters() []Parameter {
	return []Parameter{
		{"onChange", "report|reapply|give-up", "what is done when somebody else changes the limit meanwhile; empty: report"},
		{"ramp", "duration", "the limit, or the load, comes to its height evenly over this time; with pulses in each of them"},
		{"pulses.on", "duration", "the limit is set for so long, in turn"},
		{"pulses.off", "duration", "and not for so long in between"},
		{"pulses.count", "number", "how many times it is set; 0: until the fault ends"},
	}
}

// leastPulse is some times as long as it takes until a limit follows (fillStep).
const leastPulse = 200 * time.Millisecond

// newTerms reads what the messages of all limits have.
func newTerms(s interface {
	GetOnChange() string
	GetRamp() string
	GetPulses() *v1.Pulses
}, duration string) (t Terms, err error) {
	t.OnChange = s.GetOnChange()
	if t.Ramp, err = parseRamp(s.GetRamp(), duration); err != nil {
		return t, err
	}
	p := s.GetPulses()
	if p == nil {
		return t, nil
	}
	t.Pulses = p.GetCount()
	if t.On, err = ParseDuration("pulses.on", p.GetOn(), leastPulse, maxRamp); err != nil {
		return t, err
	}
	if t.Off, err = ParseDuration("pulses.off", p.GetOff(), leastPulse, maxRamp); err != nil {
		return t, err
	}
	if t.Ramp > t.On {
		return t, fmt.Errorf("ramp: %s is longer than each pulse, %s", t.Ramp, t.On)
	}
	return t, nil
}

// way refuses a ramp for a fault that has nothing that could be set by and by.
func (t Terms) way(there bool, what string) error {
	if t.Ramp > 0 && !there {
		return errors.New("ramp: it was given for " + what + " alone, which is set at once")
	}
	return nil
}

// A ramp is a stair of so many steps, each at least so long, as each is written down first.
const (
	mostSteps = 100
	leastStep = 250 * time.Millisecond
)

// at says how far a limit has come so long after the start, in [0,1]; 0: it is not set.
func (t Terms) at(since time.Duration) float64 {
	if t.On > 0 {
		pulse := since / (t.On + t.Off)
		since -= pulse * (t.On + t.Off)
		if since >= t.On || t.Pulses > 0 && pulse >= time.Duration(t.Pulses) {
			return 0
		}
	}
	if since >= t.Ramp {
		return 1
	}
	steps := float64(min(mostSteps, max(1, t.Ramp/leastStep)))
	return (math.Floor(since.Seconds()/t.Ramp.Seconds()*steps) + 1) / (steps + 1)
}

// onTheWay is a value between two, so far from the first.
func onTheWay(from, to, part float64) float64 { return from + (to-from)*part }

// tenfold is where a ramp begins whose target has no limit of its own to come down from.
const tenfold = 10
