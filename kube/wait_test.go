package kube

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "faultd/api/faultd/v1alpha1"
)

// patient is an experiment that waits for its pods.
func patient(duration, wait string) map[string]any {
	s := spec(duration)
	s["waitForTargets"] = wait
	return s
}

// waiter does at once what one of all nodes does.
var waiter = pace{settle: 3 * time.Second, late: time.Hour, overdue: time.Minute}

func waits(s *apiServer, name string) func() bool {
	return func() bool {
		return s.status(name).GetPhase() == "pending" && condition(s.status(name), selected) == "Unknown WaitingForPods"
	}
}

// TestWaitsForPods: an experiment waits until a pod matches, says so, and hurts that one and no other that comes later.
func TestWaitsForPods(t *testing.T) {
	s, one, other := newAPIServer(t), newDaemon(t), newDaemon(t)
	start(t, s, one, "n1", waiter)
	start(t, s, other, "n2", waiter)
	create(s, "slow", patient("1h", "1h"))
	eventually(t, "that it waits", waits(s, "slow"))
	if message := s.status("slow").GetMessage(); !strings.Contains(message, "no pod matches pods:shop?app=web on a node on which faultd runs; it waits until ") {
		t.Errorf("it says %q", message)
	}
	s.pod("n1", "db-0", db)
	s.pod("n2", "web-0", web)
	eventually(t, "harm", func() bool { return slices.Equal(other.active(), []string{"/shop/web-0"}) })
	eventually(t, "that it is told", func() bool { return condition(s.status("slow"), selected) == "True Chosen" })
	s.pod("n1", "web-1", web)
	eventually(t, "that another one waits for a pod that there is", func() bool {
		if s.experiment("next") == nil {
			create(s, "next", patient("100ms", "1h"))
		}
		return s.status("next").GetVerdict() == "confirmed"
	})
	if got := s.record("slow", "n1"); got != nil {
		t.Errorf("a pod that came later is hurt: %v", got)
	}
}

// TestWaitChoosesOnce: however many pods come at once, on however many nodes, as many are hurt as were asked for.
func TestWaitChoosesOnce(t *testing.T) {
	s, daemons := newAPIServer(t), map[string]*daemon{}
	const nodes, rounds = 5, 3
	for i := range nodes {
		node := fmt.Sprint("n", i)
		daemons[node] = newDaemon(t)
		start(t, s, daemons[node], node, waiter)
	}
	for round := range rounds {
		name, app := fmt.Sprint("slow-", round), fmt.Sprint("web-", round)
		e := patient("100ms", "1h")
		e["target"] = map[string]any{"pods": "?app=" + app, "mode": "fixed", "value": int64(2)}
		create(s, name, e)
		eventually(t, "that it waits", waits(s, name))
		for i := range 3 * nodes {
			s.pod(fmt.Sprint("n", i%nodes), fmt.Sprintf("%s-%d", app, i), map[string]string{"app": app})
		}
		eventually(t, "the end", ended(s, name))
		if status := s.status(name); status.GetVerdict() != "confirmed" || status.GetPods() != 2 {
			t.Errorf("round %d: %v", round, status)
		}
	}
	begun := 0
	for _, d := range daemons {
		begun += d.begun()
	}
	if begun != 2*rounds {
		t.Errorf("%d pods were hurt in %d rounds, want 2 in each", begun, rounds)
	}
}

// TestChoiceIsTakenOver: a choice that was written down is everybody's, whoever is there by now.
func TestChoiceIsTakenOver(t *testing.T) {
	s, d := newAPIServer(t), newDaemon(t)
	p := s.podUID("n1", "web-0", web)
	s.pod("n1", "web-1", web)
	e := create(s, "slow", spec("1h"))
	plan, err := readPlan(e, check)
	if err != nil {
		t.Fatal(err)
	}
	c := choice{chosen: map[string]map[string]bool{key(plan.Faults[0]): {p: true, "gone": true}}, all: map[string]bool{p: true, "gone": true}, shares: []share{{2, 9}}}
	record := cluster{node: "n9"}.recordObject(e, &v1.NodeRecord{Name: "n9", Phase: chosenPhase, Choice: c.record(plan)})
	record.SetName(choiceName(e))
	s.put("noderecords", record)
	start(t, s, d, "n1", quick)
	eventually(t, "harm", func() bool { return slices.Equal(d.active(), []string{"/shop/web-0"}) })
	if record := s.record("slow", "n1"); len(record.GetTargets()) != 1 {
		t.Errorf("%v", record)
	}
}

// TestChoiceOfMany: of more pods than each node would ask for every one is hurt, once.
func TestChoiceOfMany(t *testing.T) {
	s, daemons := newAPIServer(t), map[string]*daemon{}
	const nodes, pods = 3, 2 * few
	settled := quick
	settled.settle = 3 * time.Second // nodes begin at times of their own
	for i := range pods {
		s.pod(fmt.Sprint("n", i%nodes), fmt.Sprint("web-", i), web)
	}
	for i := range nodes {
		node := fmt.Sprint("n", i)
		daemons[node] = newDaemon(t)
		start(t, s, daemons[node], node, settled)
	}
	create(s, "slow", spec("100ms"))
	eventually(t, "the end", ended(s, "slow"))
	begun := 0
	for _, d := range daemons {
		begun += d.begun()
	}
	if status := s.status("slow"); status.GetPods() != pods || status.GetNodes().GetEnded() != nodes || begun != pods {
		t.Errorf("%d faults, %v", begun, status)
	}
}

// TestWaitEnds: it waits no longer than it says, and while no lever and no policy is against it.
func TestWaitEnds(t *testing.T) {
	lever := map[string]any{"safetyLever": map[string]any{"engaged": true, "reason": "incident 12"}}
	two := patient("1s", "2s")
	two["target"] = map[string]any{"pods": "?app=db", "mode": "fixed", "value": int64(2)}
	for name, test := range map[string]struct {
		spec         map[string]any
		policy       map[string]any // that holds from the first
		then         func(s *apiServer)
		reason, says string
	}{
		"nobody comes": {patient("1s", "2s"), nil, nil, "NoPods", "no pod that runs matches; it waited 2s for its targets"},
		"too few come": {two, nil, nil, "NoPods", "2 pods are asked for, and 1 match pods:shop?app=db; it waited 2s for its targets"},
		"a policy":     {patient("1s", "1h"), map[string]any{"optIn": map[string]any{"chaos": "yes"}}, nil, "Policy", "has not opted in"},
		"a lever":      {patient("1s", "1h"), nil, func(s *apiServer) { s.policy("stop", lever) }, "SafetyLever", "incident 12"},
		"an edit": {patient("1s", "1h"), nil, func(s *apiServer) {
			e := s.experiment("slow")
			e.Object["spec"] = patient("1s", "1ms")
			e.SetGeneration(2)
			s.put("experiments", e)
		}, "NoPods", "it waited 1ms"},
		"what is no duration": {patient("1s", "soon"), nil, nil, "Invalid", `spec.waitForTargets: "soon" is no duration`},
		"no time at all":      {patient("1s", "0s"), nil, nil, "Invalid", "spec.waitForTargets: 0s is out of range"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, d := newAPIServer(t), newDaemon(t)
			s.pod("n1", "db-0", db)
			if test.policy != nil {
				s.policy("usual", test.policy)
			}
			a := start(t, s, d, "n1", waiter)
			create(s, "slow", test.spec)
			if test.then != nil {
				eventually(t, "that it waits", waits(s, "slow"))
				test.then(s)
			}
			eventually(t, "the end", ended(s, "slow"))
			if status := s.status("slow"); condition(status, selected) != "False "+test.reason || !strings.Contains(status.GetMessage(), test.says) {
				t.Errorf("%v", status)
			}
			s.pod("n1", "web-0", web)
			a.knows(t, "web-0")
			create(s, "next", spec("100ms"))
			if test.reason != "SafetyLever" && test.policy == nil {
				eventually(t, "another experiment", func() bool { return s.status("next").GetVerdict() == "confirmed" })
			}
			if want := len(s.recordsOf("next")); d.begun() != want {
				t.Errorf("%d faults began, want %d", d.begun(), want)
			}
		})
	}
}

// TestRunsAlready: what others have begun does not wait any more, though this node finds too few pods.
func TestRunsAlready(t *testing.T) {
	s, d := newAPIServer(t), newDaemon(t)
	s.pod("n1", "web-0", web)
	two := patient("1h", "1h")
	two["target"] = map[string]any{"pods": "?app=web", "mode": "fixed", "value": int64(2)}
	e := create(s, "slow", two)
	e.Object["status"] = map[string]any{"phase": "running", "observedGeneration": int64(1), "start": clock(time.Now()), "summarizer": "n9", "summarizerUntil": clock(time.Now().Add(time.Hour))}
	s.put("experiments", e)
	a := start(t, s, d, "n1", waiter)
	create(s, "next", spec("100ms"))
	eventually(t, "another experiment", func() bool { return s.status("next").GetVerdict() == "confirmed" })
	if err := a.look(t.Context(), "shop/slow"); err != nil || s.status("slow").GetPhase() != "running" || d.begun() != 1 {
		t.Errorf("%v; %v; %d faults", err, s.status("slow"), d.begun())
	}
}

// TestWaitDeleted: what is deleted while it waits begins nothing when its pod comes.
func TestWaitDeleted(t *testing.T) {
	s, d := newAPIServer(t), newDaemon(t)
	a := start(t, s, d, "n1", waiter)
	create(s, "slow", patient("1h", "1h"))
	eventually(t, "that it waits", waits(s, "slow"))
	s.delete("experiments", "shop", "slow")
	s.pod("n1", "web-0", web)
	a.knows(t, "web-0")
	create(s, "next", spec("100ms"))
	eventually(t, "another experiment", func() bool { return s.status("next").GetVerdict() == "confirmed" })
	if d.begun() != 1 {
		t.Errorf("%d faults began, want 1", d.begun())
	}
}

// knows waits until the agent knows a pod of its node.
func (a *started) knows(t *testing.T, pod string) {
	t.Helper()
	eventually(t, "that the agent knows "+pod, func() bool {
		_, known, _ := a.pods.GetStore().GetByKey("shop/" + pod)
		return known
	})
}

// podUID is pod, and gives the uid.
func (s *apiServer) podUID(node, name string, labels map[string]string) string {
	s.pod(node, name, labels)
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.objects["pods/shop/"+name].GetUID())
}

// recordsOf are the records of what nodes did for an experiment.
func (s *apiServer) recordsOf(name string) (all []*unstructured.Unstructured) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.objects {
		if o.GetKind() == "NodeRecord" && o.GetLabels()[experimentLabel] == name && o.GetLabels()[uidLabel] != "" {
			all = append(all, o)
		}
	}
	return all
}

// TestTurnsAfterAnEdit: what a look at the object of before notes, which may come late, holds back nobody who looks at that of now.
func TestTurnsAfterAnEdit(t *testing.T) {
	s, d := newAPIServer(t), newDaemon(t)
	a := start(t, s, d, "n1", waiter)
	e := create(s, "slow", patient("1h", "1h"))
	edited := e.DeepCopy()
	edited.SetGeneration(2)
	if a.turnIn(a.queue, waitClaim, e, time.Hour) || !a.turnIn(a.queue, waitClaim, edited, 0) {
		t.Error("want a turn of its own for each generation")
	}
	a.deleted(edited)
	if _, known := a.turnLeft(waitClaim, e); known {
		t.Error("a turn of an object that is gone is known")
	}
}
