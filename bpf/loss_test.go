package bpf

import "testing"

// TestSmallestChances: what is not 0 is at least 1/2^32 in the kernel's form, or the fault would hurt nobody.
func TestSmallestChances(t *testing.T) {
	const always = uint64(1 << 32)
	for name, c := range map[string]struct {
		next  [ChainStates]float64
		below [ChainStates - 1]uint64
	}{
		"never":            {[ChainStates]float64{100}, [ChainStates - 1]uint64{always, always, always}},
		"smallest":         {[ChainStates]float64{100 - 1e-20, 1e-20}, [ChainStates - 1]uint64{always - 1, always, always}},
		"smallest of four": {[ChainStates]float64{1e-20, 1e-20, 1e-20, 100}, [ChainStates - 1]uint64{1, 2, 3}},
		"halves":           {[ChainStates]float64{50, 50}, [ChainStates - 1]uint64{always / 2, always, always}},
		"thirds":           {[ChainStates]float64{100. / 3, 100. / 3, 100. / 3}, [ChainStates - 1]uint64{always/3 + 1, always/3*2 + 1, always}},
		"the rest":         {[ChainStates]float64{50}, [ChainStates - 1]uint64{always / 2, always / 2, always / 2}},
	} {
		if got := (&Chain{Burst: 1, States: [ChainStates]ChainState{{Next: c.next}}}).encode().State[0].Below; got != c.below {
			t.Errorf("%s: %v; want %v", name, got, c.below)
		}
	}
	if got := (&Chain{Burst: 1, States: [ChainStates]ChainState{{Lose: 1e-20}}}).encode().State[0].Lose; got != 1 {
		t.Errorf("the smallest loss of a state is %d; want 1", got)
	}
	for percent, want := range map[float64]uint32{0: 0, 1e-20: 1, 100: 1<<32 - 1} {
		if got := chance(percent); got != want {
			t.Errorf("%v percent are %d for netem; want %d", percent, got, want)
		}
	}
}
