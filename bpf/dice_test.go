package bpf

import (
	"slices"
	"testing"

	"faultd/test/kernels"
)

// TestDiceDecideAsTheKernel: a rule with a seed spares as many of the first matches here as there.
func TestDiceDecideAsTheKernel(t *testing.T) {
	kernels.OnOldest(t)
	k, address := openKernel(t), listen(t)
	for seed := range uint64(8) {
		rule := refuse(37)
		rule.Seed, rule.SkipFirst, rule.EveryNth, rule.MaxHits = &seed, 3*seed, seed%3, 10*(seed%4)
		dice, err := NewDice(rule)
		if err != nil {
			t.Fatal(err)
		}
		for range dials {
			if dice.Due() {
				dice.Injected()
			}
		}
		target := newTarget(t)
		in, err := installConnect(k, target, rule)
		if err != nil {
			t.Fatal(err)
		}
		runIn(t, target, "dial", "tcp4", address)
		kernel, here := in.Counters(), dice.Counters()
		if kernel.Matched != here.Matched || kernel.Injected != here.Injected || kernel.Spared != here.Spared || here.Injected == 0 {
			t.Errorf("seed %d: the kernel counted %+v, the dice %+v", seed, kernel, here)
		}
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDiceCount(t *testing.T) {
	rule := refuse(100)
	rule.MaxHits = 1
	dice, err := NewDice(rule)
	if err != nil {
		t.Fatal(err)
	}
	if !dice.Due() || dice.Due() {
		t.Error("one hit is allowed, and no more")
	}
	dice.NotApplied()
	if !dice.Due() {
		t.Error("harm that was not applied used its hit up")
	}
	dice.Injected()
	rule.MaxHits, rule.Rate = 0, 1e-9
	if err := dice.Update(rule); err != nil {
		t.Fatal(err)
	}
	if !dice.Due() || dice.Due() {
		t.Error("the rate allows one injection")
	}
	dice.Injected()
	if c := dice.Counters(); c.Matched != 5 || c.Injected != 2 || c.NotApplied != 1 || c.Spared != 2 || c.First.IsZero() {
		t.Errorf("counted %+v", c)
	}
	rule.Percent = 0
	if _, err := NewDice(rule); err == nil {
		t.Error("a chance of 0 was taken")
	}
}

// TestDiceThrowTwice: what a delay is drawn by is the same each time with a seed, and not the throw that decided.
func TestDiceThrowTwice(t *testing.T) {
	rule, seed := refuse(50), uint64(7)
	rule.Seed = &seed
	var first []uint32
	for again := range 2 {
		dice, err := NewDice(rule)
		if err != nil {
			t.Fatal(err)
		}
		var thrown []uint32
		high := 0
		for range 1000 {
			if due, n := dice.DueBy(); due {
				thrown = append(thrown, n)
				high += int(n >> 31)
			}
		}
		// Of those that decide for harm at 50 % none is high.
		if high < len(thrown)/4 || high > len(thrown)*3/4 {
			t.Errorf("%d of %d are high", high, len(thrown))
		}
		if again == 1 && !slices.Equal(thrown, first) {
			t.Error("the same seed throws otherwise")
		}
		first = thrown
	}
}
