package kube

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/experiment"
)

// noon is when all of this takes place.
var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// record is one of a node with a pod.
func record(name, phase string, verdict experiment.Verdict, harm uint64) *v1.NodeRecord {
	return &v1.NodeRecord{
		Name: name, Phase: phase, Verdict: string(verdict), Message: "so it was", Generation: 3, Start: clock(noon), Until: clock(noon.Add(time.Minute)),
		Counters: &v1.RecordCounters{Injected: harm}, Targets: []*v1.TargetRecord{{Pod: "web-" + name}},
	}
}

func TestSummaries(t *testing.T) {
	stuck := record("n2", "ended", experiment.Failed, 1)
	stuck.Stuck = true
	for name, test := range map[string]struct {
		nodes []*v1.NodeRecord
		after time.Duration
		// want is "phase verdict injected recovered expired aborted".
		want, says string
	}{
		"running":         {[]*v1.NodeRecord{record("n1", "running", "", 0), record("n2", "running", "", 0)}, 0, "running  Unknown False False False", ""},
		"harm":            {[]*v1.NodeRecord{record("n1", "running", "", 5), record("n2", "running", "", 0)}, 0, "running  True False False False", ""},
		"one is done":     {[]*v1.NodeRecord{record("n1", "ended", experiment.Confirmed, 5), record("n2", "running", "", 0)}, 0, "running  True False False False", ""},
		"confirmed":       {[]*v1.NodeRecord{record("n1", "ended", experiment.Confirmed, 5), record("n2", "ended", experiment.Confirmed, 1)}, 0, "ended confirmed True True True False", "confirmed on 2 of 2 nodes"},
		"one is inert":    {[]*v1.NodeRecord{record("n1", "ended", experiment.Confirmed, 5), record("n2", "ended", experiment.Inert, 0)}, 0, "ended confirmed True True True False", "confirmed on 1 of 2 nodes"},
		"inert":           {[]*v1.NodeRecord{record("n1", "ended", experiment.Inert, 0)}, 0, "ended inert False True True False", "inert on 1 of 1 node"},
		"refuted":         {[]*v1.NodeRecord{record("n1", "ended", experiment.Confirmed, 5), record("n2", "ended", experiment.Refuted, 1)}, 0, "ended refuted True True True False", "n2: so it was"},
		"aborted":         {[]*v1.NodeRecord{record("n1", "ended", experiment.Interrupted, 5), record("n2", "ended", experiment.Aborted, 1)}, 0, "ended aborted True True False True", "aborted on 1 of 2 nodes"},
		"refused":         {[]*v1.NodeRecord{record("n1", "refused", experiment.Failed, 0), record("n2", "ended", experiment.Confirmed, 1)}, 0, "ended error True True False True", "n1: so it was"},
		"stuck":           {[]*v1.NodeRecord{record("n1", "ended", experiment.Confirmed, 5), stuck}, 0, "ended error True False False True", "error on 1"},
		"lost":            {[]*v1.NodeRecord{record("n1", "ended", experiment.Confirmed, 5), record("n2", "running", "", 0)}, time.Hour, "ended interrupted True Unknown False True", "n2: it did not say what came of it"},
		"not lost so far": {[]*v1.NodeRecord{record("n1", "ended", experiment.Confirmed, 5), record("n2", "running", "", 0)}, time.Minute, "running  True False False False", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := summarize(&v1.ExperimentStatus{}, test.nodes, noon.Add(test.after), false)
			got := s.GetPhase() + " " + s.GetVerdict()
			for _, kind := range []string{injected, recovered, expired, aborted} {
				status, _, _ := strings.Cut(condition(s, kind), " ")
				got += " " + status
			}
			if got != test.want || !strings.Contains(s.GetMessage(), test.says) {
				t.Errorf("got %q (%s), want %q (%s)", got, s.GetMessage(), test.want, test.says)
			}
			if s.GetObservedGeneration() != 3 || int(s.GetPods()) != len(test.nodes) || len(s.GetConditions()) != 6 {
				t.Errorf("%v", s)
			}
		})
	}
}

// TestSummarySettles: nothing has ended while other nodes may still begin.
func TestSummarySettles(t *testing.T) {
	if s := summarize(&v1.ExperimentStatus{}, []*v1.NodeRecord{record("n1", "refused", experiment.Failed, 0)}, noon, true); s.GetPhase() != "running" || s.GetVerdict() != "" {
		t.Errorf("%v", s)
	}
}

// TestConditionsKeepTheirTime: it changes with the status alone.
func TestConditionsKeepTheirTime(t *testing.T) {
	before := summarize(&v1.ExperimentStatus{}, []*v1.NodeRecord{record("n1", "running", "", 1)}, noon, false)
	for _, c := range summarize(before, []*v1.NodeRecord{record("n1", "ended", experiment.Confirmed, 1)}, noon.Add(time.Hour), false).GetConditions() {
		changed := c.GetType() == recovered || c.GetType() == expired
		if want := map[bool]string{false: clock(noon), true: clock(noon.Add(time.Hour))}[changed]; c.GetLastTransitionTime() != want {
			t.Errorf("%s is so since %s, want %s", c.GetType(), c.GetLastTransitionTime(), want)
		}
	}
}

// TestSummaryOfMany: however many nodes there are, a summary says how many stand how, names the worst, and is small.
func TestSummaryOfMany(t *testing.T) {
	var records []*v1.NodeRecord
	for i := range 5000 {
		phase, verdict := "ended", []experiment.Verdict{experiment.Confirmed, experiment.Refuted, experiment.Interrupted, experiment.Inert}[i%4]
		switch i {
		case 4000:
			phase, verdict = "refused", experiment.Failed
		case 4001:
			verdict = experiment.Aborted
		case 4002, 4003:
			phase, verdict = "running", ""
		}
		one := record(fmt.Sprintf("node-%04d", i), phase, verdict, 1)
		one.Message = strings.Repeat("long ", 800)
		records = append(records, one)
	}
	s := summarize(&v1.ExperimentStatus{}, records, noon, false)
	if n := s.GetNodes(); n.GetRunning() != 2 || n.GetEnded() != 4997 || n.GetRefused() != 1 || n.GetLost() != 0 || s.GetPhase() != "running" || s.GetAbortedOn() != "node-4001" {
		t.Errorf("%v on %v, aborted on %q", s.GetPhase(), n, s.GetAbortedOn())
	}
	s = summarize(s, records, noon.Add(time.Hour), false)
	var named []string
	for _, p := range s.GetProblems() {
		named = append(named, p.GetNode()+" "+p.GetVerdict())
	}
	if want := "node-4000 error,node-4001 aborted,node-0002 interrupted,node-0006 interrupted"; len(named) != mostProblems || !strings.HasPrefix(strings.Join(named, ","), want) {
		t.Errorf("problems are %q", named)
	}
	if n := s.GetNodes(); n.GetLost() != 2 || s.GetPhase() != "ended" || s.GetVerdict() != "error" {
		t.Errorf("%v of %v: %v", s.GetVerdict(), s.GetPhase(), n)
	}
	text, err := json.Marshal(toObject(s.ProtoReflect()))
	if err != nil || len(text) > 16<<10 {
		t.Errorf("it has %d bytes, %v", len(text), err)
	}
}

// TestUrgent: numbers can wait; what changes for somebody cannot.
func TestUrgent(t *testing.T) {
	running := []*v1.NodeRecord{record("n1", "running", "", 1), record("n2", "running", "", 0)}
	before := summarize(&v1.ExperimentStatus{}, running, noon, false)
	for name, test := range map[string]struct {
		records []*v1.NodeRecord
		want    bool
	}{
		"more harm":       {[]*v1.NodeRecord{record("n1", "running", "", 7), record("n2", "running", "", 2)}, false},
		"one more":        {append(running, record("n3", "running", "", 0)), false},
		"one is done":     {[]*v1.NodeRecord{record("n1", "ended", experiment.Confirmed, 1), record("n2", "running", "", 0)}, false},
		"no harm so far":  {[]*v1.NodeRecord{record("n1", "running", "", 0)}, true},
		"one was aborted": {[]*v1.NodeRecord{record("n1", "ended", experiment.Aborted, 1), record("n2", "running", "", 0)}, true},
		"all are done":    {[]*v1.NodeRecord{record("n1", "ended", experiment.Confirmed, 1)}, true},
	} {
		if got := urgent(before, summarize(before, test.records, noon, false)); got != test.want {
			t.Errorf("%s: urgent is %v", name, got)
		}
	}
}

func TestObjects(t *testing.T) {
	n := record("n1", "running", "", 1<<40)
	object := toObject(n.ProtoReflect())
	if counters := object["counters"].(map[string]any); counters["injected"] != int64(1<<40) {
		t.Errorf("counters %v", counters)
	}
	back := &v1.NodeRecord{}
	if err := fromObject(object, back, false); err != nil || back.GetCounters().GetInjected() != 1<<40 || back.GetTargets()[0].GetPod() != "web-n1" {
		t.Errorf("%v: %v", err, back)
	}
}

// TestFirstLost: the node that would be lost first is not the first by name, nor one that is lost or has ended.
func TestFirstLost(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	record := func(phase string, left time.Duration) *v1.NodeRecord {
		return &v1.NodeRecord{Phase: phase, Until: clock(now.Add(left - lateReport))}
	}
	records := []*v1.NodeRecord{record("running", time.Hour), record("ended", time.Second), record("running", time.Minute), record("running", -time.Minute)}
	if got := firstLost(records, now); !got.Equal(now.Add(time.Minute)) {
		t.Errorf("the first is lost in %s; want 1m0s", got.Sub(now))
	}
	if got := firstLost(records[3:], now); !got.IsZero() {
		t.Errorf("of those that are lost the next is lost at %s", got)
	}
}
