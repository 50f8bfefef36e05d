package faults

import (
	"errors"
	"fmt"
	"time"

	"faultd/bpf"
)

// Delay is how late a call, query or request is.
type Delay struct {
	// Text is a duration; of calls at most bpf.MaxDelay. Empty: there is no delay.
	Text string
	// Jitter spreads it.
	Jitter string
	// Distribution is how: "uniform" or empty, "normal", "exponential", "pareto".
	Distribution string
}

func (d Delay) given() bool { return d != Delay{} }

func (d Delay) fill(rule *bpf.Rule) error {
	rule.Action = bpf.ActionDelay
	s, err := d.spread(bpf.MaxDelay)
	rule.Delay, rule.Jitter, rule.Quantiles = s.delay, s.jitter, s.quantiles
	return err
}

// spread is a delay as it is drawn for each match.
type spread struct {
	delay, jitter time.Duration
	// quantiles are those of the delay, in ns; nil: it is even, from delay - jitter to delay + jitter.
	quantiles *[bpf.Quantiles + 1]uint64
}

// spread reads a delay that is never longer than that.
func (d Delay) spread(longest time.Duration) (s spread, err error) {
	if d.Text == "" {
		return s, errors.New("delay: missing; jitter and distribution are of one")
	}
	if s.delay, err = ParseDuration("delay", d.Text, time.Microsecond, longest); err != nil {
		return s, err
	}
	if d.Jitter != "" {
		if s.jitter, err = ParseDuration("jitter", d.Jitter, 0, longest); err != nil {
			return s, err
		}
	}
	if d.Distribution != "" && d.Distribution != "uniform" {
		s.quantiles, err = quantiles(d.Distribution, s.delay, s.jitter, longest)
		return s, err
	}
	if s.jitter > s.delay {
		return s, fmt.Errorf("jitter: %s is more than the delay of %s", s.jitter, s.delay)
	}
	if most := s.delay + s.jitter; most > longest {
		return s, fmt.Errorf("delay: with jitter it is %s; at most %s are possible", most, longest)
	}
	return s, nil
}

// given says whether there is a delay; what is drawn may be 0.
func (s spread) given() bool { return s.delay > 0 }

// draw gives the delay of a throw in [0, 2^32), as the kernel side does (delay.h).
func (s spread) draw(thrown uint32) time.Duration {
	if s.quantiles == nil {
		return s.delay - s.jitter + time.Duration(float64(2*s.jitter)*float64(thrown)/(1<<32))
	}
	step := thrown >> 24
	low, high := s.quantiles[step], s.quantiles[step+1]
	return time.Duration(low + uint64(float64(high-low)*float64(thrown&0xffffff)/(1<<24)))
}
