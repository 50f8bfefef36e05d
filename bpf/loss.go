package bpf

import "fmt"

// ChainStates is how many states a chain may have.
const ChainStates = 4

// Chain is a Markov chain that loses packets: each moves it on, and is then lost by the chance of the state it found. It begins in
// the first state, and each direction has one of its own.
type Chain struct {
	States [ChainStates]ChainState
	// Burst is how many packets in a row are lost with each that the chain loses, itself included.
	Burst uint32
}

// ChainState is a state, in percent.
type ChainState struct {
	// Lose is the chance of a packet that finds the chain here.
	Lose float64
	// Next are the chances to go on to each state; what is missing to 100 is the chance to go to the last.
	Next [ChainStates]float64
}

func (c *Chain) check() error {
	if c != nil && c.Burst < 1 {
		return fmt.Errorf("burst %d: must be at least 1", c.Burst)
	}
	return nil
}

// encode gives the kernel's form; nil has a burst of 0 there.
func (c *Chain) encode() (loss sharedLoss) {
	if c == nil {
		return loss
	}
	loss.Burst = c.Burst
	for i, state := range c.States {
		loss.State[i].Lose = chanceOf(state.Lose)
		loss.State[i].Below = stack(state.Next)
	}
	return loss
}

// stack puts the chances of a state on each other, as the kernel compares them with the dice. None that is not 0 vanishes: what rounding adds or
// takes away is the largest one's.
func stack(next [ChainStates]float64) (below [ChainStates - 1]uint64) {
	var share [ChainStates]uint64
	percents, sum, largest := 0.0, uint64(0), 0
	for i, percent := range next {
		share[i] = chanceOf(percent)
		percents, sum = percents+percent, sum+share[i]
		if share[i] > share[largest] {
			largest = i
		}
	}
	share[largest] += chanceOf(percents) - sum
	sum = 0
	for i := range below {
		sum += share[i]
		below[i] = sum
	}
	return below
}

// chanceOf is a threshold that may be 0.
func chanceOf(percent float64) uint64 {
	if percent == 0 {
		return 0
	}
	return threshold(percent)
}

// startChains puts the chains of a rule, one for each direction, at their beginning.
func (in *Installed) startChains(chain *Chain) error {
	if chain == nil {
		return nil
	}
	for direction := range uint32(2) {
		if err := in.kernel.maps["faultd_chains"].Put(uint32(in.slot)*2+direction, sharedChain{}); err != nil {
			return fmt.Errorf("start the chain of the rule: %w", err)
		}
	}
	return nil
}
