package main

import (
	"math"
	"slices"
)

// Other programs share the machine, and whatever they do makes a run slower, never faster. So bare and other runs take
// turns, and of each kind the one that was disturbed least counts.

// best chooses that run: slices.Min for times, slices.Max for rates.
type best func([]float64) float64

var (
	lowest  best = slices.Min[[]float64]
	highest best = slices.Max[[]float64]
)

// pairs are runs that took turns: With[i] came right after Bare[i].
type pairs struct {
	Bare []float64 `json:"bare"`
	With []float64 `json:"with"`
}

func (p *pairs) add(bare, with float64) {
	p.Bare, p.With = append(p.Bare, bare), append(p.With, with)
}

func (p pairs) difference(of best) float64 { return of(p.With) - of(p.Bare) }

func (p pairs) ratio(of best) float64 { return of(p.With) / of(p.Bare) }

// perSecond takes costs in ns for how many there are per second.
func (p pairs) perSecond() pairs {
	invert := func(costs []float64) (rates []float64) {
		for _, ns := range costs {
			rates = append(rates, 1e9/ns)
		}
		return rates
	}
	return pairs{invert(p.Bare), invert(p.With)}
}

// noise is by what share two halves of the bare runs, which also took turns, differ.
func (p pairs) noise(of best) float64 {
	var halves [2][]float64
	for i, v := range p.Bare {
		halves[i%2] = append(halves[i%2], v)
	}
	if len(halves[1]) == 0 {
		return math.Inf(1)
	}
	return math.Abs(of(halves[0])/of(halves[1]) - 1)
}

// noWorse says whether the other runs are worse than the bare ones by no more than bare runs differ among themselves, or by a
// small share.
func (p pairs) noWorse(of best, share float64) bool {
	worse := p.ratio(of) - 1
	if of([]float64{1, 2}) == 2 {
		worse = 1/p.ratio(of) - 1
	}
	return worse <= max(p.noise(of), share)
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// quantile is the value below which a share q of the values lies.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	return slices.Sorted(slices.Values(values))[int(q*float64(len(values)-1))]
}
