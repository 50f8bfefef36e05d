package experiment

import (
	"fmt"
	"strings"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

// Verdict is what an experiment came to.
type Verdict string

// The verdicts.
const (
	// Confirmed: the faults did harm, and every probe held.
	Confirmed Verdict = "confirmed"
	// Refuted: a probe did not hold during or after the faults.
	Refuted Verdict = "refuted"
	// Aborted: the faults were ended early, or never started, because of a probe, or because a fault was lost.
	Aborted Verdict = "aborted"
	// Interrupted: a person or a signal ended it.
	Interrupted Verdict = "interrupted"
	// Inert: a fault hurt nobody, so nothing was tried.
	Inert Verdict = "inert"
	// Monitored: nobody was to be hurt, and what would have been is known.
	Monitored Verdict = "monitored"
	// Failed: it could not be carried out.
	Failed Verdict = "error"
)

// Result is all that is known of one run of an experiment.
type Result struct {
	Plan        *Plan
	Environment Environment
	Verdict     Verdict
	// Reasons say why, the first one first.
	Reasons []string
	// Err is why it could not be carried out.
	Err        error
	Start, End time.Time
	// Rehearsed are the faults as the node would do them.
	Rehearsed   []*v1.Fault
	Spans       []PhaseSpan
	Activations []*Activation
	// Samples are the tries of each probe of the plan.
	Samples [][]Sample
	// Broken says why a probe did not hold, by phase and name.
	Broken map[Phase]map[string]string
	Events []Event
	// Held and Broke are steps of a ramp: the last one with which all probes held, and the one with which one did not.
	Held, Broke string
}

// Environment says where an experiment ran.
type Environment struct {
	Version, Host, Kernel, Platform string
	CPUs                            int
	// Replay is the command that runs it again in the same way.
	Replay string
}

// PhaseSpan is when a phase was.
type PhaseSpan struct {
	Phase      Phase
	Start, End time.Time
}

// Event is something that happened.
type Event struct {
	At   time.Time
	Text string
}

// conclude comes to the verdict of a run that nothing ended early.
func (r *Result) conclude() {
	if r.Plan.IsMonitored() {
		r.watched()
		return
	}
	var inert, broken []string
	faults := r.Plan.faultNames()
	for _, name := range faults {
		if total(r.Plan, r.Activations, name).GetInjected() == 0 {
			inert = append(inert, name)
		}
	}
	for _, phase := range []Phase{During, After} {
		for _, p := range r.Plan.Probes {
			if why, ok := r.Broken[phase][p.Name]; ok {
				broken = append(broken, fmt.Sprintf("%s %s the faults: %s", p.Name, phase, why))
			}
		}
	}
	if len(inert) > 0 {
		r.because("%s did no harm: nothing that it was to hurt happened in the target", strings.Join(inert, ", "))
	}
	r.Reasons = append(broken, r.Reasons...)
	switch {
	case len(inert) == len(faults), len(inert) > 0 && len(broken) == 0:
		r.Verdict = Inert
	case len(broken) > 0:
		r.Verdict = Refuted
	default:
		r.Verdict = Confirmed
		r.because("every probe held before, during and after the faults")
	}
}

// InterruptedResult is the result of a run that has no end: all that is known is what happened.
func InterruptedResult(p *Plan, where Environment, start time.Time, happened []Event) *Result {
	r := &Result{Plan: p, Environment: where, Verdict: Interrupted, Start: start, End: start, Events: happened}
	if n := len(happened); n > 0 {
		r.End = happened[n-1].At
	}
	r.because("the run did not come to its end: faultd was killed, or it still runs; its faults end with their lease, within %s", firstLease)
	return r
}

// Refused is the result of a run that was not begun, as the node refused a fault.
func Refused(p *Plan, where Environment, err error) *Result {
	r := &Result{Plan: p, Environment: where, Verdict: Failed, Err: err, Start: time.Now(), End: time.Now()}
	r.because("%v", err)
	return r
}

// interrupted is the result of a run that ends now, before it began.
func (r *Result) interrupted(why string) *Result {
	r.Verdict, r.End = Interrupted, time.Now()
	r.because("%s", why)
	return r
}

func (r *Result) because(format string, args ...any) {
	r.Reasons = append(r.Reasons, fmt.Sprintf(format, args...))
}

// Reason is why, in one line.
func (r *Result) Reason() string { return strings.Join(r.Reasons, "; ") }
