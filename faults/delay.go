package faults

import (
	"fmt"
	"time"

	"faultd/bpf"
)

// Delay is how late a call is made.
type Delay struct {
	// Text is a duration of at most bpf.MaxDelay; empty: there is no delay.
	Text string
	// Jitter spreads it.
	Jitter string
	// Distribution is how: "uniform" or empty, "normal", "exponential", "pareto".
	Distribution string
}

func (d Delay) given() bool { return d != Delay{} }

func (d Delay) fill(rule *bpf.Rule) error {
	rule.Action = bpf.ActionDelay
	var err error
	if rule.Delay, err = ParseDuration("delay", d.Text, time.Microsecond, bpf.MaxDelay); err != nil {
		return err
	}
	if d.Jitter != "" {
		if rule.Jitter, err = ParseDuration("jitter", d.Jitter, 0, bpf.MaxDelay); err != nil {
			return err
		}
	}
	if d.Distribution != "" && d.Distribution != "uniform" {
		rule.Quantiles, err = quantiles(d.Distribution, rule.Delay, rule.Jitter)
		return err
	}
	if rule.Jitter > rule.Delay {
		return fmt.Errorf("jitter: %s is more than the delay of %s", rule.Jitter, rule.Delay)
	}
	if longest := rule.Delay + rule.Jitter; longest > bpf.MaxDelay {
		return fmt.Errorf("delay: with jitter it is %s; at most %s are possible", longest, bpf.MaxDelay)
	}
	return nil
}
