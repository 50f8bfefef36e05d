package experiment

import (
	"fmt"
	"sync"
	"time"
)

// recorder keeps what came of all tries, and judges probes by them.
type recorder struct {
	probes []Probe
	// broke is told, once for a probe and phase, that it does not hold. It may ask the recorder nothing.
	broke func(p Probe, phase Phase, why string)

	mu      sync.Mutex
	samples [][]Sample
	started map[Phase]time.Time
	broken  map[Phase]map[string]string
}

func newRecorder(probes []Probe, broke func(Probe, Phase, string)) *recorder {
	r := &recorder{probes: probes, broke: broke, samples: make([][]Sample, len(probes)), started: map[Phase]time.Time{}, broken: map[Phase]map[string]string{}}
	for _, phase := range Phases() {
		r.broken[phase] = map[string]string{}
	}
	return r
}

// begin starts a phase.
func (r *recorder) begin(phase Phase) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.started[phase] = time.Now()
}

// add takes what came of a try of the i-th probe, and judges it by what cannot change any more.
func (r *recorder) add(i int, s Sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.samples[i] = append(r.samples[i], s)
	t := r.probes[i].Tolerance
	switch {
	case t.Failures == 0 && s.Failure != "":
		r.fails(r.probes[i], s.Phase, s.Failure)
	case t.Window > 0 && time.Since(r.started[s.Phase]) >= t.Window:
		r.judgeFailures(i, s.Phase, inWindow(of(r.samples[i], s.Phase), s.At.Add(-t.Window)))
	}
}

// inWindow are the tries since a time.
func inWindow(samples []Sample, since time.Time) []Sample {
	for i, s := range samples {
		if s.At.After(since) {
			return samples[i:]
		}
	}
	return nil
}

// judge judges all probes of a phase by all tries so far, and says which one does not hold, and why; empty: all do.
func (r *recorder) judge(phase Phase) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := ""
	for i, p := range r.probes {
		tries := of(r.samples[i], phase)
		if p.in(phase) && len(tries) > 0 {
			counted := tries
			if p.Tolerance.Window > 0 {
				counted = inWindow(tries, time.Now().Add(-p.Tolerance.Window))
			}
			r.judgeFailures(i, phase, counted)
			r.judgeBaseline(i, phase, tries)
		}
		if why, broken := r.broken[phase][p.Name]; broken && first == "" {
			first = p.Name + ": " + why
		}
	}
	return first
}

func (r *recorder) judgeFailures(i int, phase Phase, tries []Sample) {
	failed, last := 0, ""
	for _, s := range tries {
		if s.Failure != "" {
			failed, last = failed+1, s.Failure
		}
	}
	if share := 100 * float64(failed) / float64(max(len(tries), 1)); share > r.probes[i].Tolerance.Failures {
		r.fails(r.probes[i], phase, fmt.Sprintf("%d of %d tries failed, %.3g %%, and %v %% is tolerated; the last: %s", failed, len(tries), share, r.probes[i].Tolerance.Failures, last))
	}
}

func (r *recorder) judgeBaseline(i int, phase Phase, tries []Sample) {
	t := r.probes[i].Tolerance
	before := percentile(goodLatencies(of(r.samples[i], Before)), t.Percentile)
	now := percentile(goodLatencies(tries), t.Percentile)
	if t.Percentile == 0 || phase == Before || before == 0 || now == 0 {
		return
	}
	if times := float64(now) / float64(before); times > t.Times {
		r.fails(r.probes[i], phase, fmt.Sprintf("p%v is %s, %.3g x the %s of before, and %v x is tolerated", t.Percentile, short(now), times, short(before), t.Times))
	}
}

// fails notes that a probe does not hold. Call with r.mu held.
func (r *recorder) fails(p Probe, phase Phase, why string) {
	if _, known := r.broken[phase][p.Name]; known {
		return
	}
	r.broken[phase][p.Name] = why
	r.broke(p, phase, why)
}

// of are the tries of a phase.
func of(samples []Sample, phase Phase) (tries []Sample) {
	for _, s := range samples {
		if s.Phase == phase {
			tries = append(tries, s)
		}
	}
	return tries
}

func goodLatencies(samples []Sample) (took []time.Duration) {
	for _, s := range samples {
		if s.Failure == "" {
			took = append(took, s.Took)
		}
	}
	return took
}

// short rounds a duration for people.
func short(d time.Duration) time.Duration {
	switch {
	case d < 10*time.Millisecond:
		return d.Round(time.Microsecond)
	case d < 10*time.Second:
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Millisecond)
}
