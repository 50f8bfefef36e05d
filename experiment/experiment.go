// Package experiment is why and when: it reads an experiment's document, watches the system with probes, has faults started and
// stopped by a node, and comes to a verdict and a report. It knows faults only as what a node is asked to do.
package experiment

import (
	"slices"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/calendar"
)

// Plan is a document that was read and checked. Nothing in it is empty that has a default.
type Plan struct {
	// File is where it came from.
	File       string
	Name       string
	Labels     map[string]string
	Owner      string
	Links      []string
	Hypothesis string
	// Seed makes the dice repeatable; it is the document's, or a random one.
	Seed   uint64
	Faults []Fault
	Probes []Probe
	// Before, Recovery and After are how long these phases last; Changes say how long the faults do.
	Before, Recovery, After time.Duration
	// Changes are what is done to the faults, in order.
	Changes []Change
	// MaxTargets is how many targets may be hurt; 0: no limit.
	MaxTargets int
	Stop       Stop
	// Steps tell those of a ramp, such as "10 %"; they are taken only while the probes hold.
	Steps []string
	// Bursts: the faults are on and off in turn, so that what they do to the probes can be told.
	Bursts bool
	// Continuous says that the changes come again and again; nil: they come once.
	Continuous *Continuous
	// WaitForTargets is how long it waits until its targets are there; 0: they must be there.
	WaitForTargets time.Duration
	// Length is from the first probe to the last, if nothing ends it earlier.
	Length time.Duration
	// Repeat says when it is due; nil: when somebody runs it.
	Repeat *calendar.Repeat
	// Source is the document as it was written.
	Source []byte
}

// Fault is one fault of an experiment.
type Fault struct {
	Name string
	// Kind as in the API: "connect".
	Kind string
	// Spec is what the node is asked for; its duration is how long the fault is on in all.
	Spec *v1.FaultSpec
	// Aim chooses its targets; nil: the one of Spec.
	Aim *Aim
	// Steps are what the node is asked for with each step of a ramp; nil: Spec, with the percentage of the step.
	Steps []*v1.FaultSpec
	// Monitored is what Spec would be if it were not only monitored; nil: it is not.
	Monitored *v1.FaultSpec
	// At is the target that was chosen, where there are several.
	At string
}

// Label tells the fault from the same one at another target.
func (f Fault) Label() string { return f.Name + after(" at ", f.At) }

// Probe asks whether the system is well.
type Probe struct {
	Name string
	// Kind of probe: "http".
	Kind string
	// What it asks, in a few words, for people.
	Asks     string
	When     []Phase
	Interval time.Duration
	Timeout  time.Duration
	Attempts int
	// InitialDelay is from the begin of a phase to the first try.
	InitialDelay time.Duration
	// OnChaos: during the faults it asks only while one is on.
	OnChaos bool
	// JSONPath is where the value stands in an answer; nil: the answer is the value.
	JSONPath  jsonPath
	Tolerance Tolerance
	// Aborts: when it does not hold during the faults they end at once.
	Aborts bool
	check  check
}

// Phase is a part of an experiment.
type Phase string

// The phases, in order.
const (
	Before Phase = "before"
	During Phase = "during"
	After  Phase = "after"
)

// Phases are all phases, in order.
func Phases() []Phase { return []Phase{Before, During, After} }

// specs are all that the node may be asked for.
func (f Fault) specs() []*v1.FaultSpec { return append([]*v1.FaultSpec{f.Spec}, f.Steps...) }

// faultNames are the names of all faults, each once.
func (p *Plan) faultNames() (names []string) {
	for _, f := range p.Faults {
		if !slices.Contains(names, f.Name) {
			names = append(names, f.Name)
		}
	}
	return names
}

// SetSeed gives all faults that have dice those of an earlier run.
func (p *Plan) SetSeed(seed uint64) {
	p.Seed = seed
	for _, f := range p.Faults {
		for _, spec := range f.specs() {
			if spec.Seed != nil {
				spec.Seed = &seed
			}
		}
	}
}
