package kube

import (
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
		"not lost so far": {[]*v1.NodeRecord{record("n1", "ended", experiment.Confirmed, 5), record("n2", "running", "", 0)}, 2 * time.Minute, "running  True False False False", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := summarize(&v1.ExperimentStatus{Nodes: test.nodes}, noon.Add(test.after), false)
			got := s.GetPhase() + " " + s.GetVerdict()
			for _, kind := range []string{injected, recovered, expired, aborted} {
				status, _, _ := strings.Cut(condition(s, kind), " ")
				got += " " + status
			}
			if got != test.want || !strings.Contains(s.GetMessage(), test.says) {
				t.Errorf("got %q (%s), want %q (%s)", got, s.GetMessage(), test.want, test.says)
			}
			if s.GetObservedGeneration() != 3 || int(s.GetPods()) != len(test.nodes) || len(s.GetConditions()) != 6 || len(s.GetNodes()) != 0 {
				t.Errorf("%v", s)
			}
		})
	}
}

// TestSummarySettles: nothing has ended while other nodes may still begin.
func TestSummarySettles(t *testing.T) {
	status := &v1.ExperimentStatus{Nodes: []*v1.NodeRecord{record("n1", "refused", experiment.Failed, 0)}}
	if s := summarize(status, noon, true); s.GetPhase() != "running" || s.GetVerdict() != "" {
		t.Errorf("%v", s)
	}
}

// TestConditionsKeepTheirTime: it changes with the status alone.
func TestConditionsKeepTheirTime(t *testing.T) {
	status := &v1.ExperimentStatus{Nodes: []*v1.NodeRecord{record("n1", "running", "", 1)}}
	status.Conditions = summarize(status, noon, false).GetConditions()
	status.Nodes[0].Phase, status.Nodes[0].Verdict = "ended", "confirmed"
	for _, c := range summarize(status, noon.Add(time.Hour), false).GetConditions() {
		changed := c.GetType() == recovered || c.GetType() == expired
		if want := map[bool]string{false: clock(noon), true: clock(noon.Add(time.Hour))}[changed]; c.GetLastTransitionTime() != want {
			t.Errorf("%s is so since %s, want %s", c.GetType(), c.GetLastTransitionTime(), want)
		}
	}
}

// TestSummarizer: one node sums up, and when it is lost another one does.
func TestSummarizer(t *testing.T) {
	var nodes []*v1.NodeRecord
	for i := range 500 {
		nodes = append(nodes, record(fmt.Sprintf("n%d", i), "ended", experiment.Confirmed, 1))
	}
	who := summarizer("uid-1", nodes, noon)
	for _, n := range nodes {
		if n.GetName() == who {
			n.Phase = "running"
		}
	}
	if got := summarizer("uid-1", nodes, noon); got != who {
		t.Errorf("%q and %q", got, who)
	}
	if got := summarizer("uid-1", nodes, noon.Add(time.Hour)); got == who || got == "" {
		t.Errorf("%q is lost, and %q sums up", who, got)
	}
	if got := summarizer("uid-1", []*v1.NodeRecord{record("n1", "running", "", 0)}, noon.Add(time.Hour)); got != "" {
		t.Errorf("all are lost, and %q sums up", got)
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
