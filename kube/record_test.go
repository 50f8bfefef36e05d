package kube

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/experiment"
)

// TestRecordObject: a record belongs to its experiment, is found by its labels, and has another name for each node and each object of a name.
func TestRecordObject(t *testing.T) {
	e := object("faultd.io/v1alpha1", "Experiment", "shop", "slow", nil)
	e.SetUID("uid-1")
	long := strings.Repeat("a-node.", 30) + "example"
	names := map[string]bool{}
	for _, node := range []string{"n1", "n2", long} {
		o := cluster{node: node}.recordObject(e, &v1.NodeRecord{Name: node, Phase: "running"})
		owner := o.GetOwnerReferences()[0]
		if owner.UID != "uid-1" || owner.Kind != "Experiment" || owner.Name != "slow" || owner.BlockOwnerDeletion != nil || o.GetFinalizers() != nil {
			t.Errorf("it belongs to %+v, with %v", owner, o.GetFinalizers())
		}
		for label, value := range o.GetLabels() {
			if len(value) > 63 || value == "" {
				t.Errorf("%s=%s", label, value)
			}
		}
		if o.GetLabels()[experimentLabel] != "slow" || o.GetLabels()[uidLabel] != "uid-1" {
			t.Errorf("labels %v", o.GetLabels())
		}
		names[o.GetName()] = true
		e.SetUID("uid-2")
		names[cluster{node: node}.recordName(e)] = true
		e.SetUID("uid-1")
	}
	if len(names) != 6 {
		t.Errorf("names are not all different: %v", names)
	}
}

// TestEnter: what the API server has when a node is about to begin decides, whatever a watch told before.
func TestEnter(t *testing.T) {
	change := func(fields ...string) func(*unstructured.Unstructured) {
		return func(e *unstructured.Unstructured) {
			for i := 0; i < len(fields); i += 2 {
				_ = unstructured.SetNestedField(e.Object, fields[i+1], "status", fields[i])
			}
		}
	}
	for name, test := range map[string]struct {
		meanwhile func(e *unstructured.Unstructured) // nil: it is deleted
		begins    bool
		record    string // what is written down then
		gone      bool
	}{
		"it runs": {func(*unstructured.Unstructured) {}, true, "running ", false},
		"deleted": {nil, false, " ", true},
		"another": {func(e *unstructured.Unstructured) { e.SetUID("other") }, false, " ", true},
		"over":    {change("phase", "ended"), false, " ", false},
		"aborted": {change("abortedOn", "n7"), false, "refused it was aborted on node n7", false},
		"late":    {change("start", clock(time.Now().Add(-2*time.Hour))), false, "refused it runs since " + clock(time.Now().Add(-2*time.Hour)), false},
		"another generation": {func(e *unstructured.Unstructured) {
			e.SetGeneration(2)
			_ = unstructured.SetNestedField(e.Object, int64(2), "status", "observedGeneration")
		}, false, " ", false},
	} {
		t.Run(name, func(t *testing.T) {
			s, d := newAPIServer(t), newDaemon(t)
			a := start(t, s, d, "n1", quick)
			e := s.begun("slow", "n9", time.Hour, "n9")
			seen := s.experiment("slow")
			s.mu.Lock() // nobody who watches is told
			if test.meanwhile == nil {
				delete(s.objects, "experiments/shop/slow")
			} else {
				test.meanwhile(s.objects["experiments/shop/slow"])
			}
			s.mu.Unlock()
			plan, err := readPlan(e, check)
			if err != nil {
				t.Fatal(err)
			}
			r := newRun(seen, plan, "n1", []pod{{namespace: "shop", name: "web-0", uid: "u0"}}, 1, time.Now())
			begins, err := a.enter(t.Context(), r, statusOf(seen))
			if begins != test.begins || apierrors.IsNotFound(err) != test.gone || err != nil && !test.gone {
				t.Errorf("begins is %v, %v", begins, err)
			}
			s.mu.Lock()
			s.objects["experiments/shop/slow"] = seen // whose name is in that of the record
			s.mu.Unlock()
			record := s.record("slow", "n1")
			if got := record.GetPhase() + " " + record.GetMessage(); got != test.record && (test.record == " " || !strings.HasPrefix(got, test.record)) {
				t.Errorf("the record is %q, want %q", got, test.record)
			}
		})
	}
}

// TestOnce: of two nodes that begin an experiment at once one writes its status, and a node that finds its record begins nothing.
func TestOnce(t *testing.T) {
	s, d := newAPIServer(t), newDaemon(t)
	a, b := start(t, s, d, "n1", quick), start(t, s, d, "n2", quick)
	e := create(s, "slow", spec("1h"))
	seen := s.experiment("slow")
	plan, err := readPlan(e, check)
	if err != nil {
		t.Fatal(err)
	}
	enter := func(agent *started) bool {
		t.Helper()
		r := newRun(seen, plan, agent.node, []pod{{namespace: "shop", name: "web-" + agent.node, uid: agent.node}}, 2, time.Now())
		begins, err := agent.enter(t.Context(), r, &v1.ExperimentStatus{})
		if err != nil {
			t.Fatal(err)
		}
		return begins
	}
	if !enter(a) || !enter(b) || enter(a) {
		t.Error("want that both begin, and once")
	}
	status := s.status("slow")
	if status.GetPhase() != "running" || status.GetSummarizer() != "n1" || status.GetStart() == "" || condition(status, selected) != "True Chosen" || condition(status, injected) != "Unknown NoHarmYet" {
		t.Errorf("%v", status)
	}
	if _, err := b.writeSummary(t.Context(), seen, &v1.ExperimentStatus{Phase: "running", Summarizer: "n2"}); !apierrors.IsConflict(err) {
		t.Errorf("who saw another version wrote: %v", err)
	}
	if !readClock(status.GetSummarizerUntil()).After(time.Now().Add(longestTerm / 2)) {
		t.Errorf("n1 sums up until %s", status.GetSummarizerUntil())
	}
	eventually(t, "that what nobody carries out is ended", func() bool { return s.record("slow", "n1").GetVerdict() == string(experiment.Interrupted) })
}

// TestLostAnswer: a node whose choice and record were made, without it being told, begins all the same, and once.
func TestLostAnswer(t *testing.T) {
	s, d := newAPIServer(t), newDaemon(t)
	s.pod("n1", "web-0", web)
	s.lostAnswers = 2
	start(t, s, d, "n1", quick)
	create(s, "slow", spec("100ms"))
	eventually(t, "the end", ended(s, "slow"))
	if s.status("slow").GetVerdict() != "confirmed" || d.begun() != 1 {
		t.Errorf("%v; %d faults", s.status("slow"), d.begun())
	}
}

// TestTakenOver: when the node that sums up has not ended an experiment in its time, another one does; not before.
func TestTakenOver(t *testing.T) {
	s, d := newAPIServer(t), newDaemon(t)
	s.begun("over", "n9", -time.Second, "n8", "n9")
	s.begun("going", "n9", time.Hour, "n8", "n9")
	start(t, s, d, "n1", quick)
	start(t, s, d, "n2", quick)
	eventually(t, "the end", ended(s, "over"))
	status := s.status("over")
	if !slices.Contains([]string{"n1", "n2"}, status.GetSummarizer()) || status.GetVerdict() != "interrupted" || condition(status, recovered) != "Unknown Lost" || status.GetNodes().GetLost() != 2 {
		t.Errorf("%v", status)
	}
	if status := s.status("going"); status.GetSummarizer() != "n9" || status.GetPhase() != "running" {
		t.Errorf("what is not over: %v", status)
	}
	if d.begun() != 0 {
		t.Errorf("%d faults began", d.begun())
	}
}

// cable is a way to the server that can be cut.
type cable struct{ cut atomic.Bool }

// RoundTrip implements http.RoundTripper.
func (c *cable) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.cut.Load() {
		return nil, errors.New("no route to host")
	}
	return http.DefaultTransport.RoundTrip(r)
}

// TestSummarizerDies: when the node that sums up is cut off, or told to end, another one sums up soon after the planned end, or an abort, and
// before that nobody does.
func TestSummarizerDies(t *testing.T) {
	hasty := quick
	hasty.overdue = 2 * time.Second
	for name, test := range map[string]struct {
		length string
		// dies is what happens to the first node, and then what else happens.
		dies func(a *started, c *cable)
		then func(other *daemon)
	}{
		"cut off":           {"3s", func(_ *started, c *cable) { c.cut.Store(true) }, nil},
		"cut off, an abort": {"1h", func(_ *started, c *cable) { c.cut.Store(true) }, func(other *daemon) { other.kill("by hand") }},
		"told to end":       {"1h", func(a *started, _ *cable) { a.stop() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, one, other, c := newAPIServer(t), newDaemon(t), newDaemon(t), &cable{}
			s.pod("n1", "web-0", web)
			s.pod("n2", "web-1", web)
			a := startBy(t, &rest.Config{Host: s.URL, QPS: -1, Transport: c}, one, "n1", hasty)
			create(s, "slow", spec(test.length))
			eventually(t, "that n1 sums up", func() bool { return s.status("slow").GetSummarizer() == "n1" })
			start(t, s, other, "n2", hasty)
			eventually(t, "harm on both", func() bool { return len(one.active()) == 1 && len(other.active()) == 1 })
			if status := s.status("slow"); status.GetSummarizer() != "n1" {
				t.Errorf("while n1 is there: %v", status)
			}
			test.dies(a, c)
			if test.then != nil {
				test.then(other)
			}
			eventually(t, "that n2 sums up", func() bool { return s.status("slow").GetSummarizer() == "n2" })
			if until := readClock(s.status("slow").GetSummarizerUntil()); until.After(time.Now().Add(hasty.overdue)) {
				t.Errorf("n2 sums up until %s without a sign of life", until)
			}
		})
	}
}

// TestTerm: who sums up says so anew every few minutes, and soon after the planned end.
func TestTerm(t *testing.T) {
	for end, want := range map[time.Duration]time.Duration{
		-time.Hour: 30 * time.Second, 0: 30 * time.Second, time.Minute: 90 * time.Second, 4 * time.Minute: 4*time.Minute + 30*time.Second, time.Hour: 5 * time.Minute,
	} {
		if got := usualPace.term(noon, noon.Add(end)).Sub(noon); got != want {
			t.Errorf("what ends in %s is summed up for %s, want %s", end, got, want)
		}
	}
}

// TestAbortNeedsNoSummary: an abort ends an experiment on all nodes although the one that sums up is gone.
func TestAbortNeedsNoSummary(t *testing.T) {
	s, one, other := newAPIServer(t), newDaemon(t), newDaemon(t)
	s.pod("n1", "web-0", web)
	s.pod("n2", "web-1", web)
	s.begun("slow", "n9", time.Hour, "n9")
	start(t, s, one, "n1", quick)
	start(t, s, other, "n2", quick)
	eventually(t, "harm on both", func() bool { return len(one.active()) == 1 && len(other.active()) == 1 })
	other.kill("by hand")
	eventually(t, "the end on both", func() bool { return len(one.active()) == 0 && s.record("slow", "n1").GetPhase() == "ended" })
	if status := s.status("slow"); status.GetAbortedOn() != "n2" || status.GetSummarizer() != "n9" || s.record("slow", "n1").GetMessage() != "it was aborted on node n2" {
		t.Errorf("%v; n1: %v", status, s.record("slow", "n1"))
	}
}

// TestCountsAsEnded: what the object calls over does not go on.
func TestCountsAsEnded(t *testing.T) {
	s, d := newAPIServer(t), newDaemon(t)
	s.pod("n1", "web-0", web)
	start(t, s, d, "n1", quick)
	create(s, "slow", spec("1h"))
	eventually(t, "harm", func() bool { return len(d.active()) == 1 })
	eventually(t, "the end", func() bool {
		e := s.experiment("slow")
		_ = unstructured.SetNestedField(e.Object, "ended", "status", "phase")
		s.put("experiments", e)
		return len(d.active()) == 0 && d.verdicts() == "interrupted"
	})
}

// TestRecordDeleted: a record that somebody deleted is made anew when there is something to write.
func TestRecordDeleted(t *testing.T) {
	s, d := newAPIServer(t), newDaemon(t)
	s.pod("n1", "web-0", web)
	a := start(t, s, d, "n1", quick)
	e := create(s, "slow", spec("1h"))
	eventually(t, "that harm is told", func() bool { return s.record("slow", "n1").GetCounters().GetInjected() > 0 })
	s.delete("noderecords", "shop", a.recordName(e))
	a.stop()
	if record := s.record("slow", "n1"); record.GetVerdict() != "interrupted" {
		t.Errorf("%v", record)
	}
}
