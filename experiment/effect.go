package experiment

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Effect is what the faults did to a probe, told by how it was while they were on and right after, while they were off, burst by burst.
// Neighbours are compared, so that what changes slowly by itself is no effect, and each burst counts once, however often it was tried.
type Effect struct {
	Probe string `json:"probe"`
	// Pairs is how many times on and off could be compared.
	Pairs int `json:"pairs"`
	// Failures are percent of tries; Latency is seconds of good tries. One that could not be compared twice is absent.
	Failures *Difference `json:"failures,omitempty"`
	Latency  *Difference `json:"latency,omitempty"`
}

// Difference is the mean with the faults on and off, and the difference, with the ends of its interval of 95 % confidence (Student's t).
type Difference struct {
	On         float64 `json:"on"`
	Off        float64 `json:"off"`
	Difference float64 `json:"difference"`
	Low        float64 `json:"low"`
	High       float64 `json:"high"`
}

// The states of the harm, in the order in which they come again and again; a try belongs to a turn if it began and ended in it.
const (
	turnOff = iota
	turnStarting
	turnOn
	turnStopping
	turnStates
)

// straddles is the turn of a try that belongs to none.
const straddles = -1

// Effects compares all probes. There are none unless faults were on and off in turn.
func (r *Result) Effects() (list []Effect) {
	if !r.Plan.Bursts {
		return nil
	}
	for i, p := range r.Plan.Probes {
		e := effect(p.Name, of(r.triesOf(i), During))
		if !p.waits() {
			e.Latency = nil
		}
		if e.Pairs > 1 {
			list = append(list, e)
		}
	}
	return list
}

// waits says whether how long a try takes tells of what is asked: how long a pressure, a counter or a log is read tells nothing, nor how long
// whoever knows of it needs.
func (p Probe) waits() bool {
	return slices.Contains([]string{"http", "tcp", "grpc", "dns", "command"}, p.Kind)
}

func effect(probe string, tries []Sample) Effect {
	turns, last := map[int][]Sample{}, 0
	for _, s := range tries {
		turns[s.Turn] = append(turns[s.Turn], s)
		last = max(last, s.Turn)
	}
	e := Effect{Probe: probe}
	var failed, took [2][]float64 // with the faults on, and off
	for turn := turnOn; turn <= last; turn += turnStates {
		on, off := turns[turn], turns[turn+turnStates-turnOn]
		if len(on) == 0 || len(off) == 0 {
			continue
		}
		e.Pairs++
		failed[0], failed[1] = append(failed[0], failedPercent(on)), append(failed[1], failedPercent(off))
		if len(goodLatencies(on)) > 0 && len(goodLatencies(off)) > 0 {
			took[0], took[1] = append(took[0], meanLatency(on)), append(took[1], meanLatency(off))
		}
	}
	e.Failures, e.Latency = comparePercents(failed[0], failed[1]), compare(took[0], took[1])
	return e
}

func failedPercent(tries []Sample) float64 {
	return 100 * float64(len(tries)-len(goodLatencies(tries))) / float64(len(tries))
}

func meanLatency(tries []Sample) float64 {
	sum, good := time.Duration(0), goodLatencies(tries)
	for _, took := range good {
		sum += took
	}
	return sum.Seconds() / float64(len(good))
}

// compare compares pairs; of fewer than two nothing can be said.
func compare(on, off []float64) *Difference {
	if len(on) < 2 {
		return nil
	}
	var differences []float64
	for i := range on {
		differences = append(differences, on[i]-off[i])
	}
	d := &Difference{On: mean(on), Off: mean(off), Difference: mean(differences)}
	squares := 0.0
	for _, x := range differences {
		squares += (x - d.Difference) * (x - d.Difference)
	}
	n := float64(len(on))
	margin := student(len(on)-1) * math.Sqrt(squares/(n-1)/n)
	d.Low, d.High = d.Difference-margin, d.Difference+margin
	return d
}

// comparePercents is compare for what can differ by 100 at most.
func comparePercents(on, off []float64) *Difference {
	d := compare(on, off)
	if d != nil {
		d.Low, d.High = max(d.Low, -100), min(d.High, 100)
	}
	return d
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// student gives the two-sided 95 % quantile of Student's t: from the table, and from 31 degrees of freedom on by Cornish and Fisher's series.
func student(degrees int) float64 {
	table := []float64{
		12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
		2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
	}
	if degrees <= len(table) {
		return table[degrees-1]
	}
	const z = 1.959964 // of the normal distribution
	n := float64(degrees)
	return z + (z*z*z+z)/(4*n) + (5*math.Pow(z, 5)+16*z*z*z+3*z)/(96*n*n)
}

// ToldFailures is the effect on failures, for people.
func (e Effect) ToldFailures() string {
	if e.Failures == nil {
		return "cannot be told"
	}
	return fmt.Sprintf("%+.1f points (95 %%: %+.1f to %+.1f)", e.Failures.Difference, e.Failures.Low, e.Failures.High)
}

// ToldLatency is the effect on the latency, for people.
func (e Effect) ToldLatency() string {
	if e.Latency == nil {
		return "cannot be told"
	}
	milli := func(seconds float64) string { return fmt.Sprintf("%+.3g ms", 1000*seconds) }
	return fmt.Sprintf("%s (95 %%: %s to %s)", milli(e.Latency.Difference), milli(e.Latency.Low), milli(e.Latency.High))
}
