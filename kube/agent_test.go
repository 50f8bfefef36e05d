package kube

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"faultd/api"
	v1 "faultd/api/faultd/v1alpha1"
	"faultd/faults"
)

func typesUID(text string) types.UID { return types.UID(text) }

// check says what is wrong with the parameters of a fault, as the daemon does.
func check(spec *v1.FaultSpec) error {
	_, _, err := faults.New(spec)
	return err
}

// quick is for tests: nobody waits for others, and nobody claims late.
var quick = pace{claim: time.Hour, late: time.Hour, overdue: time.Minute}

// started is an agent that works until the test or stop ends it.
type started struct {
	*Agent
	stop func()
}

// start runs an agent of a node.
func start(t *testing.T, s *apiServer, d *daemon, node string, p pace) *started {
	t.Helper()
	return startBy(t, &rest.Config{Host: s.URL, QPS: -1}, d, node, p)
}

// startBy is start, with its own way to the server.
func startBy(t *testing.T, config *rest.Config, d *daemon, node string, p pace) *started {
	t.Helper()
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	names, err := metadata.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	a := New(Options{
		Node: node, Objects: objects, Metadata: names, Daemon: api.NewClient(d.socket), Check: check,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	a.pace = p
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() { a.Run(ctx); close(over) }()
	stop := func() {
		cancel()
		<-over
	}
	t.Cleanup(stop)
	eventually(t, "the agent of "+node+" knows the cluster", a.Ready)
	return &started{a, stop}
}

// spec is an experiment on pods of the app web, with one fault that lasts so long.
func spec(duration string) map[string]any {
	return map[string]any{
		"hypothesis": "it holds", "duration": duration, "before": "0s", "after": "0s",
		"target": map[string]any{"pods": "?app=web", "mode": "all"},
		"faults": []any{map[string]any{"name": "refuse", "connect": map[string]any{"errno": "ECONNREFUSED"}}},
		"probes": []any{map[string]any{"name": "count", "when": []any{"during"}, "interval": "20ms", "counter": map[string]any{"fault": "refuse"}, "tolerance": map[string]any{"compare": ">= 0"}}},
	}
}

func create(s *apiServer, name string, spec map[string]any) *unstructured.Unstructured {
	return s.put("experiments", object("faultd.io/v1alpha1", "Experiment", "shop", name, spec))
}

var web, db = map[string]string{"app": "web"}, map[string]string{"app": "db"}

// condition is the status and reason of a condition: "True Chosen".
func condition(status *v1.ExperimentStatus, kind string) string {
	for _, c := range status.GetConditions() {
		if c.GetType() == kind {
			return c.GetStatus() + " " + c.GetReason()
		}
	}
	return ""
}

// begun makes an experiment that some nodes have begun, of which one sums up for so long.
func (s *apiServer) begun(name, summarizer string, until time.Duration, nodes ...string) *unstructured.Unstructured {
	now := time.Now()
	e := create(s, name, spec("1h"))
	for _, node := range nodes {
		s.put("noderecords", cluster{node: node}.recordObject(e, &v1.NodeRecord{Experiment: name, Name: node, Phase: "running", Generation: 1, Start: clock(now), Until: clock(now.Add(until - lateReport))}))
	}
	e.Object["status"] = map[string]any{"phase": "running", "observedGeneration": int64(1), "start": clock(now), "summarizer": summarizer, "summarizerUntil": clock(now.Add(until))}
	return s.put("experiments", e)
}

func ended(s *apiServer, name string) func() bool {
	return func() bool { return s.status(name).GetPhase() == "ended" }
}

// TestExperiment: a whole life on two of three nodes.
func TestExperiment(t *testing.T) {
	s := newAPIServer(t)
	s.pod("n1", "web-0", web)
	s.pod("n1", "db-0", db)
	s.pod("n2", "web-1", web)
	daemons := map[string]*daemon{"n1": newDaemon(t), "n2": newDaemon(t), "n3": newDaemon(t)}
	for node, d := range daemons {
		d.injecting = func() {
			if s.record("slow", node).GetPhase() != "running" {
				t.Errorf("%s does harm that is not written down", node)
			}
		}
		start(t, s, d, node, quick)
	}
	create(s, "slow", spec("500ms"))
	eventually(t, "the end", ended(s, "slow"))

	status := s.status("slow")
	if status.GetVerdict() != "confirmed" || status.GetPods() != 2 || status.GetHurtNodes() != 2 || status.GetObservedGeneration() != 1 || status.GetNodes().GetEnded() != 2 {
		t.Errorf("status: %v", status)
	}
	for kind, want := range map[string]string{selected: "True Chosen", injected: "True Harmed", recovered: "True Undone", expired: "True Done", aborted: "False NotAborted", paused: "False NotPaused"} {
		if got := condition(status, kind); got != want {
			t.Errorf("%s is %q, want %q", kind, got, want)
		}
	}
	for node, d := range map[string]string{"n1": "web-0", "n2": "web-1"} {
		record := s.record("slow", node)
		if len(record.GetTargets()) != 1 || record.GetVerdict() != "confirmed" || record.GetEnd() == "" {
			t.Fatalf("record of %s: %v", node, record)
		}
		target := record.GetTargets()[0]
		if target.GetPod() != d || target.GetUid() == "" || target.GetCounters().GetInjected() == 0 || target.GetReason() != "stopped" {
			t.Errorf("target of %s: %v", node, target)
		}
		eventually(t, "events of "+d, func() bool { return s.podEvents(d, "FaultsBegun") == 1 && s.podEvents(d, "FaultsEnded") == 1 })
		if daemons[node].begun() != 1 || len(daemons[node].active()) != 0 || daemons[node].verdicts() != "confirmed" {
			t.Errorf("%s: %d faults, %v active, ended %s", node, daemons[node].begun(), daemons[node].active(), daemons[node].verdicts())
		}
	}
	if daemons["n3"].begun() != 0 || s.podEvents("db-0", "FaultsBegun") != 0 {
		t.Error("somebody was hurt who was not meant")
	}
}

// TestDeleted: an object that goes ends its faults, and another one of the same name is another experiment.
func TestDeleted(t *testing.T) {
	s, d := newAPIServer(t), newDaemon(t)
	s.pod("n1", "web-0", web)
	start(t, s, d, "n1", quick)
	create(s, "slow", spec("1h"))
	eventually(t, "harm", func() bool { return len(d.active()) == 1 })
	s.delete("experiments", "shop", "slow")
	eventually(t, "the end", func() bool { return len(d.active()) == 0 && d.verdicts() == "interrupted" })
	create(s, "slow", spec("1h"))
	eventually(t, "harm of the other one", func() bool { return len(d.active()) == 1 })
}

// TestLever: engaged, it kills and refuses; released, it arms what it killed, and nothing else.
func TestLever(t *testing.T) {
	s, one, other := newAPIServer(t), newDaemon(t), newDaemon(t)
	s.pod("n1", "web-0", web)
	s.pod("n2", "db-0", db)
	start(t, s, one, "n1", quick)
	start(t, s, other, "n2", quick)
	other.kill("by hand")
	create(s, "slow", spec("1h"))
	eventually(t, "harm", func() bool { return len(one.active()) == 1 })

	lever := func(engaged bool) {
		s.policy("stop", map[string]any{"safetyLever": map[string]any{"engaged": engaged, "reason": "incident 12"}})
	}
	lever(true)
	eventually(t, "the kill", func() bool {
		return len(one.active()) == 0 && strings.HasSuffix(one.killedBy(), "safety lever of ChaosPolicy stop: incident 12")
	})
	eventually(t, "the end", func() bool { return ended(s, "slow")() && s.status("slow").GetVerdict() == "aborted" })
	create(s, "next", spec("1s"))
	eventually(t, "a refusal", ended(s, "next"))
	if status := s.status("next"); condition(status, selected) != "False SafetyLever" || !strings.Contains(status.GetMessage(), "incident 12") || one.begun() != 1 {
		t.Errorf("refused by %v; %d faults", status, one.begun())
	}
	lever(false)
	eventually(t, "that it is armed", func() bool { return one.killedBy() == "" })
	create(s, "after", spec("100ms"))
	eventually(t, "another experiment", func() bool { return s.status("after").GetVerdict() == "confirmed" })
	if !strings.HasSuffix(other.killedBy(), "by hand") {
		t.Errorf("who was killed by hand is %q", other.killedBy())
	}
}

// TestLateNode: who comes too late does nothing and says so, as does who sees another generation; pods that come later are not hurt.
func TestLateNode(t *testing.T) {
	s, one, other := newAPIServer(t), newDaemon(t), newDaemon(t)
	s.pod("n1", "web-0", web)
	s.pod("n2", "web-1", web)
	start(t, s, one, "n1", quick)
	e := create(s, "slow", spec("1h"))
	eventually(t, "harm", func() bool { return len(one.active()) == 1 })
	late := object("v1", "Pod", "shop", "web-2", map[string]any{"nodeName": "n2"})
	late.SetLabels(web)
	late.SetCreationTimestamp(metav1.NewTime(e.GetCreationTimestamp().Add(time.Minute)))
	s.put("pods", late)

	tardy := quick
	tardy.late = -time.Minute
	start(t, s, other, "n2", tardy)
	eventually(t, "that n2 does nothing", func() bool { return s.record("slow", "n2").GetPhase() == "refused" })
	record := s.record("slow", "n2")
	if !strings.Contains(record.GetMessage(), "comes too late") || other.begun() != 0 || len(record.GetTargets()) != 1 || record.GetTargets()[0].GetPod() != "web-1" {
		t.Errorf("%v; %d faults", record, other.begun())
	}
	if len(one.active()) != 1 {
		t.Error("n1 did not go on")
	}
}

// TestJoins: a node that comes soon takes part, without pods that came later.
func TestJoins(t *testing.T) {
	s, one, other := newAPIServer(t), newDaemon(t), newDaemon(t)
	s.pod("n1", "web-0", web)
	s.pod("n2", "web-1", web)
	start(t, s, one, "n1", quick)
	create(s, "slow", spec("1h"))
	eventually(t, "harm", func() bool { return len(one.active()) == 1 })
	start(t, s, other, "n2", quick)
	eventually(t, "harm on n2", func() bool { return slices.Equal(other.active(), []string{"/shop/web-1"}) })
}

// TestCutOff: without the API server a run ends on time, nothing begins, and the truth is told afterwards.
func TestCutOff(t *testing.T) {
	s, d := newAPIServer(t), newDaemon(t)
	s.pod("n1", "web-0", web)
	start(t, s, d, "n1", quick)
	var once sync.Once
	d.injecting = func() { once.Do(s.cut) }
	create(s, "slow", spec("500ms"))
	eventually(t, "harm", func() bool { return d.begun() == 1 })
	create(s, "next", spec("100ms"))
	eventually(t, "the end on time", func() bool { return len(d.active()) == 0 && d.verdicts() == "confirmed" })
	if got := s.record("slow", "n1").GetPhase(); got != "running" || d.begun() != 1 {
		t.Errorf("cut off: the record says %s, and %d faults began", got, d.begun())
	}
	s.restore()
	eventually(t, "the truth", func() bool { return s.status("slow").GetVerdict() == "confirmed" })
	eventually(t, "what was created meanwhile", func() bool { return s.status("next").GetVerdict() == "confirmed" })
}

// TestConflicts: a status that cannot be written, as too many want to, is written again, and nothing begins before.
func TestConflicts(t *testing.T) {
	s, d := newAPIServer(t), newDaemon(t)
	s.pod("n1", "web-0", web)
	s.conflicts = 2
	d.injecting = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.conflicts > 0 {
			t.Error("harm before the record was written")
		}
		s.conflicts = 2
	}
	start(t, s, d, "n1", quick)
	create(s, "slow", spec("100ms"))
	eventually(t, "the truth", func() bool { return s.status("slow").GetVerdict() == "confirmed" })
	if d.begun() != 1 {
		t.Errorf("%d faults began", d.begun())
	}
}

// TestEdited: an object that is edited while it runs changes nothing, and says so.
func TestEdited(t *testing.T) {
	s, d := newAPIServer(t), newDaemon(t)
	s.pod("n1", "web-0", web)
	a := start(t, s, d, "n1", quick)
	create(s, "slow", spec("1h"))
	eventually(t, "harm that the object tells while it runs", func() bool {
		status := s.status("slow")
		return status.GetPhase() == "running" && condition(status, injected) == "True Harmed" && condition(status, recovered) == "False Running"
	})
	e := s.experiment("slow")
	e.Object["spec"] = spec("1ms")
	e.SetGeneration(2)
	s.put("experiments", e)
	eventually(t, "that it is told", func() bool {
		return strings.Contains(s.status("slow").GetMessage(), "generation 2 is not carried out")
	})
	if status := s.status("slow"); status.GetPhase() != "running" || status.GetObservedGeneration() != 1 || len(d.active()) != 1 || d.begun() != 1 {
		t.Errorf("%v; active %v", status, d.active())
	}
	a.stop()
	if record := s.record("slow", "n1"); record.GetVerdict() != "interrupted" || !strings.Contains(record.GetMessage(), "told to end") || len(d.active()) != 0 {
		t.Errorf("after SIGTERM: %v; active %v", record, d.active())
	}
}

// TestRefusedObjects: what cannot be carried out ends with a condition that says why, and nothing is begun.
func TestRefusedObjects(t *testing.T) {
	newer := spec("1s")
	newer["fromTheFuture"] = map[string]any{"x": int64(1)}
	nobody := spec("1s")
	nobody["target"] = map[string]any{"pods": "?app=nobody", "mode": "all"}
	elsewhere := spec("1s")
	elsewhere["target"] = map[string]any{"pods": "?app=cart", "mode": "all"}
	two := spec("1s")
	two["target"] = map[string]any{"pods": "?app=web", "mode": "fixed", "value": int64(2)}
	guarded := spec("1s")
	guarded["target"] = map[string]any{"pod": "db-0"}
	for name, test := range map[string]struct {
		spec         map[string]any
		reason, says string
	}{
		"newer":     {newer, "Invalid", "spec.fromTheFuture: unknown field"},
		"nobody":    {nobody, "NoPods", "no pod that runs matches"},
		"elsewhere": {elsewhere, "NoPods", "1 pod match, and none that was chosen is on a node on which faultd runs"},
		"two":       {two, "NoPods", "2 pods are asked for, and 1 match pods:shop?app=web"},
		"guarded":   {guarded, "NoPods", "1 are spared, as a ChaosPolicy protects their labels"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, d := newAPIServer(t), newDaemon(t)
			s.policy("usual", map[string]any{"protectedLabels": []any{"app in (db)"}})
			s.pod("n1", "web-0", web)
			s.pod("n1", "db-0", db)
			s.pod("n9", "cart-0", map[string]string{"app": "cart"})
			soon := quick
			soon.claim = 0
			start(t, s, d, "n1", soon)
			create(s, name, test.spec)
			eventually(t, "the refusal", ended(s, name))
			status := s.status(name)
			if condition(status, selected) != "False "+test.reason || !strings.Contains(status.GetMessage(), test.says) || status.GetVerdict() != "error" {
				t.Errorf("%v", status)
			}
			if d.begun() != 0 {
				t.Errorf("%d faults began", d.begun())
			}
		})
	}
}

// TestPolicyObjects: policies are asked when an experiment begins, as they are then.
func TestPolicyObjects(t *testing.T) {
	s, d := newAPIServer(t), newDaemon(t)
	s.pod("n1", "web-0", web)
	s.policy("opt-in", map[string]any{"optIn": map[string]any{"chaos": "yes"}})
	start(t, s, d, "n1", quick)
	refused := func(name, says string) {
		t.Helper()
		create(s, name, spec("100ms"))
		eventually(t, "the refusal", ended(s, name))
		if status := s.status(name); condition(status, selected) != "False Policy" || !strings.Contains(status.GetMessage(), says) || d.begun() != 0 {
			t.Errorf("%v; %d faults", status, d.begun())
		}
	}
	refused("stranger", "ChaosPolicy opt-in: namespace shop has not opted in; it needs the label chaos=yes")
	n := object("v1", "Namespace", "", "shop", nil)
	n.SetLabels(map[string]string{"chaos": "yes"})
	s.put("namespaces", n)
	s.policy("odd", map[string]any{"protectedLabels": []any{"a in b"}})
	refused("unclear", "ChaosPolicy odd: spec.protectedLabels[0]")
	s.policy("odd", map[string]any{"fromTheFuture": true})
	refused("future", `ChaosPolicy odd: spec: `)
	s.delete("chaospolicies", "", "odd")
	create(s, "good", spec("100ms"))
	eventually(t, "the run", func() bool { return s.status("good").GetVerdict() == "confirmed" })
}

// TestWaits: of two experiments that may not be under way at once the younger one waits.
func TestWaits(t *testing.T) {
	s, d := newAPIServer(t), newDaemon(t)
	s.pod("n1", "web-0", web)
	s.policy("one", map[string]any{"limits": map[string]any{"experiments": int64(1)}})
	start(t, s, d, "n1", quick)
	create(s, "a-first", spec("1h"))
	eventually(t, "harm", func() bool { return len(d.active()) == 1 })
	create(s, "b-second", spec("100ms"))
	eventually(t, "that it waits", func() bool {
		status := s.status("b-second")
		return status.GetPhase() == "pending" && condition(status, paused) == "True Waiting" && strings.Contains(status.GetMessage(), "limits.experiments is 1")
	})
	if d.begun() != 1 {
		t.Errorf("%d faults began", d.begun())
	}
	s.delete("experiments", "shop", "a-first")
	eventually(t, "its turn", func() bool { return s.status("b-second").GetVerdict() == "confirmed" })
}

// TestDaemonRefuses: what the node does not allow is told as the node says it.
func TestDaemonRefuses(t *testing.T) {
	s, d := newAPIServer(t), newDaemon(t)
	d.refusal = errors.New("allow.hours: not now")
	s.pod("n1", "web-0", web)
	start(t, s, d, "n1", quick)
	create(s, "slow", spec("1s"))
	eventually(t, "the refusal", ended(s, "slow"))
	status := s.status("slow")
	if record := s.record("slow", "n1"); record.GetPhase() != "refused" || record.GetMessage() != "the node refuses it: allow.hours: not now" || status.GetVerdict() != "error" || d.begun() != 0 {
		t.Errorf("%v", status)
	}
}

// TestAbortedElsewhere: what is aborted on one node ends on the others.
func TestAbortedElsewhere(t *testing.T) {
	s, one, other := newAPIServer(t), newDaemon(t), newDaemon(t)
	s.pod("n1", "web-0", web)
	s.pod("n2", "web-1", web)
	start(t, s, one, "n1", quick)
	start(t, s, other, "n2", quick)
	create(s, "slow", spec("1h"))
	eventually(t, "harm on both", func() bool { return len(one.active()) == 1 && len(other.active()) == 1 })
	other.kill("by hand")
	eventually(t, "the end on both", func() bool { return len(one.active()) == 0 && ended(s, "slow")() })
	status := s.status("slow")
	if status.GetVerdict() != "aborted" || !strings.Contains(s.record("slow", "n1").GetMessage(), "aborted on node n2") || condition(status, aborted) != "True EndedEarly" {
		t.Errorf("%v", status)
	}
}

// TestDaemonStoppedElsewhere: a daemon that is told to end, as for an update, interrupts its own node's part, and no other's.
func TestDaemonStoppedElsewhere(t *testing.T) {
	s, one, other := newAPIServer(t), newDaemon(t), newDaemon(t)
	s.pod("n1", "web-0", web)
	s.pod("n2", "web-1", web)
	start(t, s, one, "n1", quick)
	start(t, s, other, "n2", quick)
	create(s, "slow", spec("1h"))
	eventually(t, "harm on both", func() bool { return len(one.active()) == 1 && len(other.active()) == 1 })
	other.stop()
	eventually(t, "the end on one", func() bool { return s.record("slow", "n2").GetPhase() == "ended" })
	if record := s.record("slow", "n2"); record.GetVerdict() != "interrupted" || record.GetMessage() != "the node's daemon stopped" {
		t.Errorf("%v", record)
	}
	if status := s.status("slow"); status.GetAbortedOn() != "" || status.GetPhase() != "running" || len(one.active()) != 1 {
		t.Errorf("%v; on the other node %v", status, one.active())
	}
}

// TestAgentRestarted: a record of a run that nobody carries out any more is ended, whether its pod is still there or not, and it is not begun
// anew.
func TestAgentRestarted(t *testing.T) {
	for name, there := range map[string]bool{"its pod is there": true, "its pod is gone": false} {
		t.Run(name, func(t *testing.T) {
			s, d := newAPIServer(t), newDaemon(t)
			if there {
				s.pod("n1", "web-0", web)
			}
			s.begun("slow", "n1", time.Hour, "n1")
			start(t, s, d, "n1", quick)
			eventually(t, "the end", ended(s, "slow"))
			if status := s.status("slow"); status.GetVerdict() != "interrupted" || d.begun() != 0 {
				t.Errorf("%v; %d faults", status, d.begun())
			}
		})
	}
}

// TestContainers: containers of pods are named to the daemon, with the pod of the object's namespace.
func TestContainers(t *testing.T) {
	s, d := newAPIServer(t), newDaemon(t)
	s.pod("n1", "web-0", web)
	start(t, s, d, "n1", quick)
	some := spec("1h")
	some["target"] = map[string]any{"pods": "?app=web#app", "mode": "one"}
	create(s, "slow", some)
	eventually(t, "harm", func() bool { return slices.Equal(d.active(), []string{"/shop/web-0/app"}) })
	eventually(t, "that it is told", func() bool {
		record := s.record("slow", "n1")
		return len(record.GetTargets()) == 1 && record.GetTargets()[0].GetContainers() == "app" && record.GetTargets()[0].GetCounters().GetInjected() > 0
	})
}

// TestRequests: an experiment elsewhere costs an idle node nothing but the watch.
func TestRequests(t *testing.T) {
	s, one, other := newAPIServer(t), newDaemon(t), newDaemon(t)
	s.pod("n1", "web-0", web)
	start(t, s, one, "n1", quick)
	idle := start(t, s, other, "n2", quick)
	s.mu.Lock()
	lists := s.requests["LIST pods"]
	s.mu.Unlock()
	create(s, "slow", spec("100ms"))
	eventually(t, "the end", func() bool { return s.status("slow").GetVerdict() == "confirmed" })
	eventually(t, "that the idle node knows", func() bool {
		o, _, _ := idle.experiments.GetStore().GetByKey("shop/slow")
		e, _ := o.(*unstructured.Unstructured)
		return e != nil && statusOf(e).GetPhase() == "ended"
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := s.requests["LIST pods"] - lists; got != 1 {
		t.Errorf("pods were asked for %d times, want once", got)
	}
	if slices.Contains(s.managers, "faultd-n2") {
		t.Error("the idle node wrote a record")
	}
	t.Logf("statuses were written %d times, by %v", s.requests["PATCH experiments"], s.managers)
}
