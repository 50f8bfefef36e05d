package experiment

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
)

// view is a result as the pages for people show it.
type view struct {
	*Result
	Faults  []faultView
	Probes  []probeView
	Events  []eventView
	Labels  []string
	Counts  *plot
	Source  string
	Started string
	Took    time.Duration
	Meaning string
}

type faultView struct {
	Name, Kind, Target, Cgroup, Mechanism string
	Times                                 int
	On                                    time.Duration
	Counters                              *v1.Counters
	Notes                                 []string
}

type probeView struct {
	Probe
	// Bad: it did not hold during or after the faults, or not before them.
	Bad    bool
	Phases []probePhase
	Plot   *plot
}

type probePhase struct {
	Phase  Phase
	Asked  bool
	Why    string
	Counts Summary
}

type eventView struct{ At, Text string }

// Tolerated is what the probe tolerates.
func (p probeView) Tolerated() string { return p.Tolerance.String() }

// Milliseconds writes seconds as people read latencies.
func (Summary) Milliseconds(s float64) string {
	if s == 0 {
		return "–"
	}
	return short(time.Duration(s * float64(time.Second))).String()
}

// meanings are the verdicts, for people.
var meanings = map[Verdict]string{
	Confirmed:   "Every fault did harm, and the system held.",
	Refuted:     "The system did not hold.",
	Aborted:     "The experiment was ended before its time, and everything was undone.",
	Interrupted: "Somebody ended the experiment, and everything was undone.",
	Monitored:   "Nobody was hurt: it was only counted what would have been.",
	Inert:       "Nothing was tried: a fault hurt nobody.",
	Failed:      "The experiment could not be carried out.",
}

func (r *Result) view() *view {
	v := &view{
		Result: r, Source: string(r.Plan.Source), Started: r.Start.Format("2006-01-02 15:04:05 MST"),
		Took: short(r.End.Sub(r.Start)), Meaning: meanings[r.Verdict],
	}
	for _, name := range slices.Sorted(maps.Keys(r.Plan.Labels)) {
		v.Labels = append(v.Labels, name+"="+r.Plan.Labels[name])
	}
	for i, f := range r.Plan.Faults {
		v.Faults = append(v.Faults, r.faultView(i, f))
	}
	for i, p := range r.Plan.Probes {
		v.Probes = append(v.Probes, r.probeView(i, p))
	}
	for _, e := range r.Events {
		v.Events = append(v.Events, eventView{fmt.Sprintf("+%.1f s", e.At.Sub(r.Start).Seconds()), e.Text})
	}
	if len(r.Activations) > 0 {
		v.Counts = r.plotCounts()
	}
	return v
}

func (r *Result) faultView(i int, f Fault) faultView {
	v := faultView{Name: f.Name, Kind: f.Kind, Target: f.Spec.GetTarget(), Counters: &v1.Counters{}}
	for _, a := range r.Activations {
		if a.Fault != i {
			continue
		}
		v.Times++
		addCounters(v.Counters, a.Last.GetCounters())
		v.On += a.End.Sub(a.Start)
		v.Cgroup, v.Mechanism = strings.Join(cgroupsOf(a.Last), ", "), a.Last.GetMechanism()
		for _, note := range a.Last.GetNotes() {
			if !slices.Contains(v.Notes, note) {
				v.Notes = append(v.Notes, note)
			}
		}
	}
	v.On = short(v.On)
	return v
}

func (r *Result) probeView(i int, p Probe) probeView {
	v := probeView{Probe: p}
	for _, phase := range Phases() {
		tries := of(r.triesOf(i), phase)
		why, broken := r.Broken[phase][p.Name]
		v.Bad = v.Bad || broken
		v.Phases = append(v.Phases, probePhase{phase, len(tries) > 0, why, summarize(tries)})
	}
	if len(r.triesOf(i)) > 0 {
		v.Plot = r.plotProbe(i)
	}
	return v
}

// markdownCell escapes what Markdown would obey in a cell of a table.
func markdownCell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "`", "'", "<", "&lt;").Replace(text)
}
