package faults

import (
	"fmt"
	"math"

	"faultd/bpf"
)

// spreadSteps is how many quantiles a distribution of netem has: as many as those that come with iproute2.
const spreadSteps = 4096

// netemPareto is the shape of netem's pareto distribution; its mean is 1.5, its standard deviation 0.75 of the square root of 3.
const netemPareto = 3

// wireDistribution gives the quantiles of a distribution around 0 in bpf.DistributionScale of the jitter, as iproute2 makes its
// tables (netem/normal.c, pareto.c, paretonormal.c): what is rarer than the form can hold is cut off.
func wireDistribution(name string) ([]int16, error) {
	normal := func(u float64) float64 { return math.Sqrt2 * math.Erfinv(2*u-1) }
	pareto := func(u float64) float64 { return 4.0 / 3 * (math.Pow(1-u, -1.0/netemPareto) - 1.5) }
	var inverse func(u float64) float64
	switch name {
	case "normal":
		inverse = normal
	case "pareto":
		inverse = pareto
	case "paretonormal":
		inverse = func(u float64) float64 { return (3*pareto(u) + normal(u)) / 4 }
	default:
		return nil, fmt.Errorf("distribution: %q must be uniform, normal, pareto or paretonormal", name)
	}
	quantiles := make([]int16, spreadSteps)
	for i := range quantiles {
		u := (float64(i) + 0.5) / spreadSteps
		quantiles[i] = int16(math.Round(min(max(inverse(u)*bpf.DistributionScale, math.MinInt16), math.MaxInt16)))
	}
	return quantiles, nil
}
