package kube

import (
	"slices"
	"testing"
	"time"
)

// TestLaterChoice: however many nodes there are, and however slow the server, a few of them choose before all know what the first one has
// chosen, which takes a little longer than that.
func TestLaterChoice(t *testing.T) {
	for _, nodes := range []int{20, 1000, 5000} {
		for _, took := range []time.Duration{10 * time.Millisecond, time.Second / 2} {
			const tries = 50
			all := 0
			for range tries {
				var times []time.Duration
				for range nodes {
					times = append(times, laterChoice(took))
				}
				first := slices.Min(times)
				for _, at := range times {
					if at <= first+3*took/2 {
						all++
					}
				}
			}
			if most := 20 * tries; all < tries || all > most {
				t.Errorf("of %d nodes %d choose, of a server that takes %s, in %d tries", nodes, all, took, tries)
			} else {
				t.Logf("of %d nodes %.1f choose, of a server that takes %s", nodes, float64(all)/tries, took)
			}
		}
	}
	if got := laterChoice(time.Hour); got > longestChoice {
		t.Errorf("%s is too long", got)
	}
}
