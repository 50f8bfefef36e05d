package faults

import (
	"errors"
	"fmt"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
)

// GilbertElliott is netem's "loss gemodel": a good and a bad state with a loss each, in percent. Of those that may be nil the
// defaults are tc's.
type GilbertElliott struct {
	// P and R are the chances to go to the bad state and back; R is 100 - P unless given.
	P float64
	R *float64
	// OneMinusH is the loss in the bad state, 100 unless given; OneMinusK that in the good one, 0 unless given.
	OneMinusH, OneMinusK *float64
}

// FourState is netem's "loss state": packets pass in a gap (state 1) and in a burst (2), and are lost in a burst (3) and singly in
// a gap (4). PXY is the chance to go from X to Y, in percent; from 4 the chain always goes to 1. The defaults are tc's: P31 is
// 100 - P13, P23 100, the others 0.
type FourState struct {
	P13                float64
	P31, P32, P23, P14 *float64
}

func newGilbertElliott(m *v1.GilbertElliott) *GilbertElliott {
	if m == nil {
		return nil
	}
	return &GilbertElliott{P: m.GetP(), R: m.R, OneMinusH: m.OneMinusH, OneMinusK: m.OneMinusK}
}

func newFourState(m *v1.FourState) *FourState {
	if m == nil {
		return nil
	}
	return &FourState{P13: m.GetP13(), P31: m.P31, P32: m.P32, P23: m.P23, P14: m.P14}
}

func lossParameters() []Parameter {
	return []Parameter{
		{"loss", "percent", "chance of each packet (or flow) to be lost, in (0,100]; or a model: lossGemodel or lossState"},
		{"lossCorrelation", "percent", "how much a loss depends on the one before, in [0,100)"},
		{"lossBurst", "number", "packets in a row that are lost each time"},
		{"lossGemodel.p", "percent", "netem's gemodel: from the good to the bad state, in (0,100]"},
		{"lossGemodel.r", "percent", "from the bad to the good state, in (0,100]; empty: 100 - p"},
		{"lossGemodel.oneMinusH", "percent", "netem's 1-h: loss in the bad state, in [0,100]; empty: 100"},
		{"lossGemodel.oneMinusK", "percent", "netem's 1-k: loss in the good state, in [0,100]; empty: 0"},
		{"lossState.p13", "percent", "netem's 4-state model: a burst begins, in (0,100]"},
		{"lossState.p31", "percent", "the burst ends, in (0,100]; empty: 100 - p13"},
		{"lossState.p32", "percent", "packets pass in the burst, in [0,100]; empty: 0"},
		{"lossState.p23", "percent", "the burst goes on, in (0,100]; empty: 100"},
		{"lossState.p14", "percent", "a packet is lost outside of bursts, in [0,100]; empty: 0"},
	}
}

// loses says whether packets shall be lost; Correlation and Burst alone are a mistake, which lossInto tells.
func (p Packet) loses() bool {
	return p.Loss != 0 || p.Gemodel != nil || p.State != nil || p.Correlation != 0 || p.Burst != 0
}

// lossInto makes the rule lose what the packet fault says: by its percentage, or by a chain.
func (p Packet) lossInto(rule *bpf.Rule) (err error) {
	if !p.loses() {
		return errors.New("loss: 0 hurts nobody; give loss in (0,100], lossGemodel or lossState, or delay, duplicate, corrupt, corruptPayload or bandwidth")
	}
	if err := exactlyOne([]choice{{"loss", p.Loss != 0}, {"lossGemodel", p.Gemodel != nil}, {"lossState", p.State != nil}}); err != nil {
		return err
	}
	rule.Percent = 100
	switch {
	case p.Gemodel != nil:
		rule.Chain, err = p.Gemodel.chain()
	case p.State != nil:
		rule.Chain, err = p.State.chain()
	default:
		rule.Percent, rule.Chain, err = p.simpleLoss()
	}
	if err != nil {
		return err
	}
	return p.checkCombination(rule.Chain)
}

// checkCombination refuses what says twice in what order packets are lost.
func (p Packet) checkCombination(chain *bpf.Chain) error {
	model := p.Gemodel != nil || p.State != nil
	switch {
	case p.Correlation != 0 && (model || p.Burst > 1):
		return fmt.Errorf("lossCorrelation: %v was given, and goes with loss alone: models and bursts have their own", p.Correlation)
	case p.Burst > 1 && model:
		return fmt.Errorf("lossBurst: %d was given, and goes with loss alone: models have their own bursts", p.Burst)
	case p.PerFlow && chain != nil:
		return fmt.Errorf("perFlow: a lost flow loses all its packets, so bursts, correlation and models have no place; give loss alone")
	}
	return nil
}

// simpleLoss is loss, or the chain that loses as much, but not evenly.
func (p Packet) simpleLoss() (percent float64, chain *bpf.Chain, err error) {
	if err := checkPercent("loss", p.Loss, false); err != nil {
		return 0, nil, err
	}
	if !(p.Correlation >= 0 && p.Correlation < 100) {
		return 0, nil, fmt.Errorf("lossCorrelation: %v is out of range; it must be in [0,100)", p.Correlation)
	}
	switch {
	case p.Correlation > 0 && p.Loss == 100:
		return 0, nil, fmt.Errorf("lossCorrelation: %v was given, and a loss of 100 leaves nothing to chance", p.Correlation)
	case p.Correlation > 0:
		// Whatever became of the packet before: its share of the chance is what remains of it.
		share := 1 - p.Correlation/100
		return 100, twoStates(p.Loss*share, (100-p.Loss)*share, 100, 0), nil
	case p.Burst > 1:
		chain := &bpf.Chain{Burst: p.Burst}
		chain.States[0] = bpf.ChainState{Lose: p.Loss, Next: [bpf.ChainStates]float64{100}}
		return 100, chain, nil
	}
	return p.Loss, nil, nil
}

func (m GilbertElliott) chain() (*bpf.Chain, error) {
	r, inBad, inGood := orElse(m.R, 100-m.P), orElse(m.OneMinusH, 100), orElse(m.OneMinusK, 0)
	if err := checkPercents("lossGemodel", []chanceField{{"p", m.P, false}, {"r", r, false}, {"oneMinusH", inBad, true}, {"oneMinusK", inGood, true}}); err != nil {
		return nil, err
	}
	if inBad == 0 && inGood == 0 {
		return nil, fmt.Errorf("lossGemodel.oneMinusH: it and oneMinusK are 0, so that no packet would be lost; give one of them")
	}
	return twoStates(m.P, r, inBad, inGood), nil
}

func twoStates(p, r, inBad, inGood float64) *bpf.Chain {
	chain := &bpf.Chain{Burst: 1}
	chain.States[0] = bpf.ChainState{Lose: inGood, Next: [bpf.ChainStates]float64{100 - p, p}}
	chain.States[1] = bpf.ChainState{Lose: inBad, Next: [bpf.ChainStates]float64{r, 100 - r}}
	return chain
}

func (m FourState) chain() (*bpf.Chain, error) {
	p31, p32, p23, p14 := orElse(m.P31, 100-m.P13), orElse(m.P32, 0), orElse(m.P23, 100), orElse(m.P14, 0)
	if err := checkPercents("lossState", []chanceField{{"p13", m.P13, false}, {"p31", p31, false}, {"p32", p32, true}, {"p23", p23, false}, {"p14", p14, true}}); err != nil {
		return nil, err
	}
	switch {
	case m.P13+p14 > 100:
		return nil, fmt.Errorf("lossState.p14: %v and p13, %v, are more than 100 together", p14, m.P13)
	case p31+p32 > 100:
		return nil, fmt.Errorf("lossState.p32: %v and p31, %v, are more than 100 together", p32, p31)
	case m.P23 != nil && p32 == 0:
		return nil, fmt.Errorf("lossState.p23: %v was given, and without p32 state 2 is never reached; give both or none", p23)
	}
	chain := &bpf.Chain{Burst: 1}
	chain.States = [bpf.ChainStates]bpf.ChainState{
		{Lose: 0, Next: [bpf.ChainStates]float64{100 - m.P13 - p14, 0, m.P13, p14}},
		{Lose: 0, Next: [bpf.ChainStates]float64{0, 100 - p23, p23, 0}},
		{Lose: 100, Next: [bpf.ChainStates]float64{p31, p32, 100 - p31 - p32, 0}},
		{Lose: 100, Next: [bpf.ChainStates]float64{100, 0, 0, 0}},
	}
	return chain, nil
}

// orElse is what was given, or the default.
func orElse(given *float64, otherwise float64) float64 {
	if given == nil {
		return otherwise
	}
	return *given
}

// chanceField is a percentage with its name and whether it may be 0.
type chanceField struct {
	name  string
	value float64
	zero  bool
}

func checkPercents(of string, fields []chanceField) error {
	for _, f := range fields {
		if err := checkPercent(of+"."+f.name, f.value, f.zero); err != nil {
			return err
		}
	}
	return nil
}

func checkPercent(name string, value float64, zero bool) error {
	switch {
	case zero && !(value >= 0 && value <= 100):
		return fmt.Errorf("%s: %v is out of range; it must be in [0,100]", name, value)
	case !zero && !(value > 0 && value <= 100):
		return fmt.Errorf("%s: %v is out of range; it must be in (0,100]", name, value)
	}
	return nil
}
