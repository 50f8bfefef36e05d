package faults

import (
	"fmt"
	"math"
	"time"

	"faultd/bpf"
)

// paretoShape gives a mean of twice the least delay. The distribution of packets has another: netem's.
const paretoShape = 2

// quantiles are those of a distribution of delays, each within 0..longest. The last one is not infinite: what is rarer
// than 1 in 65536 is cut off.
func quantiles(distribution string, delay, jitter, longest time.Duration) (*[bpf.Quantiles + 1]uint64, error) {
	var inverse func(u float64) float64
	switch distribution {
	case "normal":
		if jitter == 0 {
			return nil, fmt.Errorf("jitter: missing; it is the standard deviation of the normal distribution")
		}
		inverse = func(u float64) float64 { return float64(delay) + float64(jitter)*math.Sqrt2*math.Erfinv(2*u-1) }
	case "exponential":
		inverse = func(u float64) float64 { return -float64(delay) * math.Log1p(-u) }
	case "pareto":
		inverse = func(u float64) float64 { return float64(delay) / math.Pow(1-u, 1/float64(paretoShape)) }
	default:
		return nil, fmt.Errorf("distribution: %q must be uniform, normal, exponential or pareto", distribution)
	}
	if jitter != 0 && distribution != "normal" {
		return nil, fmt.Errorf("jitter: %s has no place in the %s distribution, which the delay alone decides", jitter, distribution)
	}
	var q [bpf.Quantiles + 1]uint64
	for i := range q {
		u := float64(i) / bpf.Quantiles
		u = min(max(u, 1.0/65536), 1-1.0/65536)
		q[i] = uint64(min(max(inverse(u), 0), float64(longest)))
	}
	return &q, nil
}
