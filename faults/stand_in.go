package faults

import (
	"context"
	"time"

	"faultd/bpf"
)

// standInRule is a rule of the target whose harm a stand-in does, as *bpf.Installed.
type standInRule interface {
	Alive() bool
	Meaning() any
	Over() <-chan struct{}
	Dice() *bpf.Dice
}

// wait sleeps for a rule; cut: it ended early, as the rule or the context did.
func wait(ctx context.Context, rule standInRule, delay time.Duration) (cut bool) {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return false
	case <-rule.Over():
	case <-ctx.Done():
	}
	return true
}

// countHarm counts that harm was done; cut: its delay ended early.
func countHarm(rule standInRule, cut bool) {
	if cut {
		rule.Dice().CutShort()
	}
	rule.Dice().Injected()
}

// enter takes a place, if there is one.
func enter(places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	default:
		return false
	}
}

func leave(places chan struct{}) { <-places }

// acceptPause is for errors that would come again at once.
const acceptPause = 10 * time.Millisecond

func pauseAccepting(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(acceptPause):
	}
}
