package experiment

import (
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

// Status is how a run stands, for people who watch it.
type Status struct {
	Name string
	// Phase is the one that began last; empty: none has.
	Phase Phase
	// Since is how long it runs, and Left how long it still takes, if nothing ends it earlier or holds it up.
	Since, Left time.Duration
	Faults      []FaultStatus
	Probes      []ProbeStatus
}

// FaultStatus is how a fault stands at one target.
type FaultStatus struct {
	Label    string
	On       bool
	Counters *v1.Counters
}

// ProbeStatus is how a probe stands in the current phase, or the last one.
type ProbeStatus struct {
	Name string
	// Why it does not hold; empty: it does so far.
	Why    string
	Counts Summary
	// Last are its last tries, of any phase, at most keptTries.
	Last []Sample
}

// keptTries is how many tries a status has of each probe.
const keptTries = 40

// status says how the run stands.
func (r *runner) status() Status {
	now := time.Now()
	s := Status{Name: r.plan.Name, Since: now.Sub(r.result.Start)}
	s.Left = max(0, r.plan.Length-s.Since)
	s.Phase, s.Faults = r.rec.phase(), r.harm.status()
	for i, p := range r.plan.Probes {
		s.Probes = append(s.Probes, r.rec.status(i, p, s.Phase))
	}
	return s
}

func (h *harm) status() (list []FaultStatus) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, f := range h.plan.Faults {
		counters := added(h.activations, func(fault int) bool { return fault == i })
		list = append(list, FaultStatus{Label: f.Label(), On: h.on[i] != nil, Counters: counters})
	}
	return list
}

// phase is the one that began last; empty: none has.
func (r *recorder) phase() (last Phase) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, phase := range Phases() {
		if !r.started[phase].IsZero() {
			last = phase
		}
	}
	return last
}

func (r *recorder) status(i int, p Probe, phase Phase) ProbeStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	tries := r.samples[i]
	return ProbeStatus{
		Name: p.Name, Why: r.broken[phase][p.Name], Counts: summarize(of(tries, phase)),
		Last: append([]Sample(nil), tries[max(0, len(tries)-keptTries):]...),
	}
}
