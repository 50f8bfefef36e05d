package daemon_test

import (
	"fmt"
	"math"
	"testing"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/kernels"
)

// dice is what decides which matches are hurt, with what must come of so many.
type dice struct {
	name string
	set  func(*v1.FaultSpec)
	// hurt gives the bounds of what n matches must come to.
	hurt func(n uint64) (least, most uint64)
}

func allDice() []dice {
	percent := 10.0
	half := 50.0
	seed := uint64(7)
	return []dice{
		{"percent", func(s *v1.FaultSpec) { s.Percent = &percent }, func(n uint64) (uint64, uint64) { return binomial(n, 0.1) }},
		{"seeded percent", func(s *v1.FaultSpec) { s.Percent, s.Seed = &percent, &seed }, func(n uint64) (uint64, uint64) { return binomial(n, 0.1) }},
		{"max hits", func(s *v1.FaultSpec) { s.MaxHits = 100 }, exactly(100)},
		{"max hits of half", func(s *v1.FaultSpec) { s.Percent, s.MaxHits = &half, 333 }, exactly(333)},
		{"skip first, every nth", func(s *v1.FaultSpec) { s.SkipFirst, s.EveryNth = 1000, 7 }, func(n uint64) (uint64, uint64) {
			return (max(n, 1000) - 1000) / 7, (max(n, 1000) - 1000) / 7
		}},
	}
}

func exactly(n uint64) func(uint64) (uint64, uint64) {
	return func(uint64) (uint64, uint64) { return n, n }
}

// binomial is 5 standard deviations around the mean: a right dice leaves it once in 1.7 million times.
func binomial(n uint64, p float64) (least, most uint64) {
	mean, sigma := float64(n)*p, math.Sqrt(float64(n)*p*(1-p))
	return uint64(mean - 5*sigma), uint64(mean + 5*sigma)
}

const threads = 8

// throws is how often each of the threads throws the dice: 100,000 times in all, or 10,000 on an emulated machine.
func throws() uint64 {
	if kernels.Machine() != "" {
		return 1_250
	}
	return 12_500
}

// TestDice throws the dice from many threads at once.
func TestDice(t *testing.T) {
	kernels.OnEdges(t)
	times := throws()
	n := startNode(t)
	target := n.target()
	w, nobody := n.worker(target), sink(t, "127.0.0.1:0")
	n.inject(refuse(n.target())) // keeps the programs loaded
	for _, d := range allDice() {
		spec := refuse(target)
		d.set(spec)
		f := n.inject(spec)
		seen := w.do("send %s %d %d", nobody, times, threads)
		c := n.settled(f.GetId())
		n.stop(f.GetId())
		least, most := d.hurt(threads * times)
		if c.GetMatched() != threads*times || c.GetInjected() < least || c.GetInjected() > most || c.GetNotApplied() > 0 {
			t.Errorf("%s: counted %v, want %d to %d of %d", d.name, c, least, most, threads*times)
		}
		if want := fmt.Sprintf("map[ECONNREFUSED:%d ok:%d]", c.GetInjected(), c.GetSpared()); seen != want {
			t.Errorf("%s: the target saw %s, counted was %s", d.name, seen, want)
		}
	}
}

// TestDelayDice throws it for delays, by each mechanism of this kernel.
func TestDelayDice(t *testing.T) {
	kernels.OnNewest(t)
	times := throws()
	n := startNode(t)
	target := n.target()
	w := n.worker(target)
	for _, call := range delayedCalls() {
		n.briefDelay(n.target(), call) // keeps the programs loaded
		for _, d := range allDice() {
			f := n.briefDelay(target, call, d.set, func(s *v1.FaultSpec) { s.GetSyscall().Delay = "1us" })
			name := d.name + " by " + f.GetMechanism()
			w.wants(fmt.Sprintf("map[ok:%d]", threads*times), "call %s %d %d", call, times, threads)
			c := n.settled(f.GetId())
			n.stop(f.GetId())
			t.Logf("%s: %v", name, c)
			// A thread that is preempted in our program makes the kernel skip it for others; it counts those.
			if c.GetMatched() > threads*times || c.GetMatched()+c.GetMissed() < threads*times {
				t.Errorf("%s: counted %v, want %d matches", name, c, threads*times)
			}
			least, most := d.hurt(c.GetMatched())
			if due := c.GetInjected() + c.GetNotApplied(); due < least || c.GetInjected() > most {
				t.Errorf("%s: counted %v, want %d to %d", name, c, least, most)
			}
		}
	}
}
