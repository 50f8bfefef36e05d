package experiment

import (
	"strings"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

// Journal is a result in the Chaos Toolkit's terms, with what faultd knows beyond them under "faultd".
type Journal struct {
	ChaoslibVersion string            `json:"chaoslib-version"`
	Platform        string            `json:"platform"`
	Node            string            `json:"node"`
	Experiment      JournalExperiment `json:"experiment"`
	// Status is "completed", "failed" (it could not be carried out), "aborted" or "interrupted".
	Status string `json:"status"`
	// Deviated: the steady state did not hold during or after the faults.
	Deviated     bool                     `json:"deviated"`
	Start        time.Time                `json:"start"`
	End          time.Time                `json:"end"`
	Duration     float64                  `json:"duration"`
	SteadyStates map[string]*JournalState `json:"steady_states"`
	Run          []JournalActivity        `json:"run"`
	Rollbacks    []JournalActivity        `json:"rollbacks"`
	Faultd       JournalFaultd            `json:"faultd"`
}

// JournalExperiment is the experiment, in the Chaos Toolkit's terms.
type JournalExperiment struct {
	Title       string            `json:"title"`
	Description string            `json:"description"`
	Tags        []string          `json:"tags"`
	Hypothesis  JournalHypothesis `json:"steady-state-hypothesis"`
	Method      []JournalActivity `json:"method"`
}

// JournalHypothesis is what is believed, and the probes that ask.
type JournalHypothesis struct {
	Title  string         `json:"title"`
	Probes []JournalProbe `json:"probes"`
}

// JournalProbe is a probe of the experiment.
type JournalProbe struct {
	Type      string `json:"type"`
	Name      string `json:"name"`
	Provider  string `json:"provider"`
	Asks      string `json:"asks"`
	Tolerance string `json:"tolerance"`
}

// JournalState is what came of the probes in one phase.
type JournalState struct {
	Met    bool               `json:"steady_state_met"`
	Probes []JournalProbeRuns `json:"probes"`
}

// JournalProbeRuns are all tries of a probe in one phase.
type JournalProbeRuns struct {
	Name string `json:"name"`
	Met  bool   `json:"tolerance_met"`
	Why  string `json:"why,omitempty"`
	Summary
	Tries []JournalTry `json:"tries"`
}

// JournalTry is one try.
type JournalTry struct {
	Start time.Time `json:"start"`
	// Duration in seconds.
	Duration float64 `json:"duration"`
	// Status is "succeeded" or "failed".
	Status string `json:"status"`
	Output string `json:"output"`
	Error  string `json:"error,omitempty"`
}

// JournalActivity is a fault: as it was planned, or one time that it was on.
type JournalActivity struct {
	Type     string        `json:"type"`
	Name     string        `json:"name"`
	Provider string        `json:"provider"`
	Target   string        `json:"target"`
	Status   string        `json:"status,omitempty"`
	Start    *time.Time    `json:"start,omitempty"`
	End      *time.Time    `json:"end,omitempty"`
	Output   *JournalFault `json:"output,omitempty"`
}

// JournalFault is what a fault did.
type JournalFault struct {
	ID         string   `json:"id"`
	Mechanism  string   `json:"mechanism"`
	Verdict    string   `json:"verdict"`
	Reason     string   `json:"reason"`
	Cgroup     string   `json:"cgroup"`
	Evaluated  uint64   `json:"evaluated"`
	Matched    uint64   `json:"matched"`
	Injected   uint64   `json:"injected"`
	NotApplied uint64   `json:"notApplied"`
	Spared     uint64   `json:"spared"`
	Notes      []string `json:"notes"`
}

// JournalFaultd is what the Chaos Toolkit has no words for.
type JournalFaultd struct {
	Verdict Verdict           `json:"verdict"`
	Reasons []string          `json:"reasons"`
	Seed    uint64            `json:"seed"`
	Replay  string            `json:"replay"`
	File    string            `json:"file"`
	Owner   string            `json:"owner"`
	Labels  map[string]string `json:"labels"`
	Links   []string          `json:"links"`
	Kernel  string            `json:"kernel"`
	CPUs    int               `json:"cpus"`
	// RampHeld and RampBroke are steps of a ramp, as "10 %" or "packet.delay 50ms".
	RampHeld  string `json:"rampHeld,omitempty"`
	RampBroke string `json:"rampBroke,omitempty"`
	// Effects are those of bursts on the probes.
	Effects []Effect       `json:"effects,omitempty"`
	Phases  []JournalPhase `json:"phases"`
	Events  []JournalEvent `json:"events"`
}

// JournalPhase is when a phase was.
type JournalPhase struct {
	Phase Phase     `json:"phase"`
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
}

// JournalEvent is something that happened.
type JournalEvent struct {
	Time time.Time `json:"time"`
	Text string    `json:"text"`
}

// Journal tells a result in the Chaos Toolkit's terms.
func (r *Result) Journal() *Journal {
	j := &Journal{
		ChaoslibVersion: "faultd " + r.Environment.Version, Platform: r.Environment.Platform, Node: r.Environment.Host,
		Experiment: journalExperiment(r.Plan), Status: r.status(),
		Deviated: len(r.Broken[During])+len(r.Broken[After]) > 0,
		Start:    r.Start, End: r.End, Duration: r.End.Sub(r.Start).Seconds(),
		SteadyStates: map[string]*JournalState{}, Run: []JournalActivity{}, Rollbacks: []JournalActivity{},
		Faultd: JournalFaultd{
			Verdict: r.Verdict, Reasons: r.Reasons, Seed: r.Plan.Seed, Replay: r.Environment.Replay, File: r.Plan.File,
			Owner: r.Plan.Owner, Labels: r.Plan.Labels, Links: r.Plan.Links, Kernel: r.Environment.Kernel, CPUs: r.Environment.CPUs,
			RampHeld: r.Held, RampBroke: r.Broke, Effects: r.Effects(), Phases: []JournalPhase{}, Events: []JournalEvent{},
		},
	}
	for _, span := range r.Spans {
		j.SteadyStates[string(span.Phase)] = r.journalState(span.Phase)
		j.Faultd.Phases = append(j.Faultd.Phases, JournalPhase(span))
	}
	for _, a := range r.Activations {
		j.Run = append(j.Run, r.journalRun(a))
	}
	for _, e := range r.Events {
		j.Faultd.Events = append(j.Faultd.Events, JournalEvent{e.At, e.Text})
	}
	return j
}

// status is the verdict in the Chaos Toolkit's words.
func (r *Result) status() string {
	switch r.Verdict {
	case Aborted, Interrupted:
		return string(r.Verdict)
	case Failed:
		return "failed"
	}
	return "completed"
}

func journalExperiment(p *Plan) JournalExperiment {
	e := JournalExperiment{Title: p.Name, Description: p.Hypothesis, Tags: []string{}, Hypothesis: JournalHypothesis{Title: p.Hypothesis}}
	for name, value := range p.Labels {
		e.Tags = append(e.Tags, name+"="+value)
	}
	for _, probe := range p.Probes {
		e.Hypothesis.Probes = append(e.Hypothesis.Probes, JournalProbe{"probe", probe.Name, probe.Kind, probe.Asks, probe.Tolerance.String()})
	}
	for _, f := range p.Faults {
		e.Method = append(e.Method, JournalActivity{Type: "action", Name: f.Name, Provider: f.Kind, Target: f.Spec.GetTarget()})
	}
	return e
}

func (r *Result) journalState(phase Phase) *JournalState {
	state := &JournalState{Met: len(r.Broken[phase]) == 0, Probes: []JournalProbeRuns{}}
	for i, p := range r.Plan.Probes {
		if !p.in(phase) {
			continue
		}
		why, broken := r.Broken[phase][p.Name]
		tries := of(r.triesOf(i), phase)
		runs := JournalProbeRuns{Name: p.Name, Met: !broken, Why: why, Summary: summarize(tries), Tries: []JournalTry{}}
		for _, s := range tries {
			runs.Tries = append(runs.Tries, JournalTry{s.At, s.Took.Seconds(), status(s), s.Value, s.Failure})
		}
		state.Probes = append(state.Probes, runs)
	}
	return state
}

func status(s Sample) string {
	if s.Failure != "" {
		return "failed"
	}
	return "succeeded"
}

func (r *Result) journalRun(a *Activation) JournalActivity {
	f := r.Plan.Faults[a.Fault]
	run := JournalActivity{Type: "action", Name: f.Name, Provider: f.Kind, Target: f.Spec.GetTarget(), Status: "succeeded", Start: &a.Start, Output: journalFault(a.Last)}
	if !a.End.IsZero() {
		run.End = &a.End
	}
	if a.Last.GetState() != "ended" {
		run.Status = "failed"
	}
	return run
}

func journalFault(f *v1.Fault) *JournalFault {
	c := f.GetCounters()
	return &JournalFault{
		ID: f.GetId(), Mechanism: f.GetMechanism(), Verdict: f.GetVerdict(), Reason: f.GetReason(), Cgroup: strings.Join(cgroupsOf(f), ", "),
		Evaluated: c.GetEvaluated(), Matched: c.GetMatched(), Injected: c.GetInjected(), NotApplied: c.GetNotApplied(), Spared: c.GetSpared(),
		Notes: append([]string{}, f.GetNotes()...),
	}
}

// Summary is what the tries of a probe in one phase come to. Latencies are of good tries, in seconds.
type Summary struct {
	Count  int     `json:"count"`
	Failed int     `json:"failed"`
	P50    float64 `json:"p50"`
	P99    float64 `json:"p99"`
	Max    float64 `json:"max"`
}

func summarize(tries []Sample) Summary {
	took := goodLatencies(tries)
	return Summary{len(tries), len(tries) - len(took), percentile(took, 50).Seconds(), percentile(took, 99).Seconds(), percentile(took, 100).Seconds()}
}
