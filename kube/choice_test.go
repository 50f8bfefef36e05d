package kube

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/experiment"
)

// nobody protects no pod.
func nobody(pod) bool { return false }

// planOf is one fault on pods of the app web.
func planOf(mode string, value float64, selectors ...string) *experiment.Plan {
	if selectors == nil {
		selectors = []string{"pods:shop?app=web"}
	}
	return &experiment.Plan{Faults: []experiment.Fault{{Name: "refuse", Aim: &experiment.Aim{Selectors: selectors, Mode: mode, Value: value}}}}
}

// crowd is n pods, spread over nodes.
func crowd(n, nodes int) (all []pod, byNode map[string][]pod) {
	byNode = map[string][]pod{}
	for i := range n {
		p := pod{namespace: "shop", name: fmt.Sprintf("web-%d", i), uid: fmt.Sprintf("7c9e6679-7425-40de-944b-%012d", i), labels: web}
		node := fmt.Sprintf("n%d", i*7%nodes)
		all, byNode[node] = append(all, p), append(byNode[node], p)
	}
	return all, byNode
}

// shuffled is the same list in another order: no two nodes need to see it alike.
func shuffled(all []pod, by int) []pod {
	by %= len(all)
	return append(slices.Clone(all[by:]), all[:by]...)
}

// chosenBy lets each node choose by itself, and gives what the daemons of all nodes would be asked for.
func chosenBy(t *testing.T, uid string, plan *experiment.Plan, all []pod, byNode map[string][]pod) (targets []string) {
	t.Helper()
	for i, node := range slices.Sorted(maps.Keys(byNode)) {
		c, err := choose(uid, plan, shuffled(all, i), nobody)
		if err != nil {
			t.Fatal(err)
		}
		targets = append(targets, c.selectorsOn(plan.Faults[0], c.on(byNode[node]))...)
	}
	slices.Sort(targets)
	return targets
}

func TestChoiceIsExact(t *testing.T) {
	for _, nodes := range []int{1, 3, 500} {
		for _, test := range []struct {
			mode  string
			value float64
			want  int
		}{{"all", 0, 500}, {"one", 0, 1}, {"fixed", 7, 7}, {"percent", 30, 150}, {"percent", 0.01, 1}} {
			if nodes == 500 && test.mode != "fixed" && test.value != 30 {
				continue // it takes a while with the race detector
			}
			all, byNode := crowd(500, nodes)
			targets := chosenBy(t, "uid-1", planOf(test.mode, test.value), all, byNode)
			if len(targets) != test.want || len(slices.Compact(slices.Clone(targets))) != test.want {
				t.Errorf("%d nodes, %s %v: %d targets, want %d", nodes, test.mode, test.value, len(targets), test.want)
			}
		}
	}
}

// TestChoiceOfEachMode: two targets may mean the same pods by different modes, and each has its own choice, also when it is read again.
func TestChoiceOfEachMode(t *testing.T) {
	all, _ := crowd(10, 1)
	plan := planOf("one", 0)
	for mode, value := range map[string]float64{"all": 0, "fixed": 3} {
		plan.Faults = append(plan.Faults, planOf(mode, value).Faults...)
	}
	plan.Faults = append(plan.Faults, planOf("one", 0).Faults...) // the first one's again
	c, err := choose("uid-1", plan, all, nobody)
	if err != nil {
		t.Fatal(err)
	}
	read, err := choiceOf(plan, &v1.NodeRecord{Choice: c.record(plan)})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"one": 1, "all": 10, "fixed": 3}
	for _, f := range plan.Faults {
		if made, again := c.selectorsOn(f, all), read.selectorsOn(f, all); len(made) != want[f.Aim.Mode] || !slices.Equal(made, again) {
			t.Errorf("%s: %v, read again %v, want %d", f.Aim.Mode, made, again, want[f.Aim.Mode])
		}
	}
	if len(c.shares) != 3 {
		t.Errorf("shares are %v, want one for each mode", c.shares)
	}
}

// TestChoiceIsStable: nodes and pods that come or go change it by as many as there are, and another experiment makes another one.
func TestChoiceIsStable(t *testing.T) {
	all, byNode := crowd(300, 300)
	fixed := planOf("fixed", 100)
	before := chosenBy(t, "uid-1", fixed, all, byNode)

	_, fewer := crowd(300, 299)
	if got := chosenBy(t, "uid-1", fixed, all, fewer); !slices.Equal(got, before) {
		t.Error("one node less, and others are chosen")
	}
	for i := range 10 {
		after := chosenBy(t, "uid-1", fixed, slices.Delete(slices.Clone(all), i, i+1), map[string][]pod{"n": slices.Delete(slices.Clone(all), i, i+1)})
		if moved := missing(before, after); len(after) != 100 || len(moved) > 1 {
			t.Errorf("without %s: %d chosen, and %v are not any more", all[i].name, len(after), moved)
		}
	}
	more, _ := crowd(301, 300)
	if moved := missing(before, chosenBy(t, "uid-1", fixed, more, map[string][]pod{"n": more})); len(moved) > 1 {
		t.Errorf("one pod more, and %v are not chosen any more", moved)
	}
	if other := chosenBy(t, "uid-2", fixed, all, byNode); len(missing(before, other)) < 50 {
		t.Errorf("another experiment chooses %d of the same 100", 100-len(missing(before, other)))
	}
}

// missing are those of one list that another has not.
func missing(of, in []string) (list []string) {
	for _, name := range of {
		if !slices.Contains(in, name) {
			list = append(list, name)
		}
	}
	return list
}

func TestChoiceNamesContainers(t *testing.T) {
	all, _ := crowd(1, 1)
	plan := planOf("all", 0, "pods:shop?app=web#app", "pod:shop/web-0#proxy", "pods:shop?app=db")
	c, err := choose("uid-1", plan, append(all, all...), nobody)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.selectorsOn(plan.Faults[0], all); !slices.Equal(got, []string{"pod:shop/web-0#app", "pod:shop/web-0#proxy"}) {
		t.Errorf("the daemon is asked for %v", got)
	}
	if !slices.Equal(c.shares, []share{{1, 1}}) || len(c.all) != 1 {
		t.Errorf("%+v", c)
	}
}

func TestChoiceSparesProtected(t *testing.T) {
	all, _ := crowd(10, 1)
	first := func(p pod) bool { return p.name == "web-0" }
	c, err := choose("uid-1", planOf("all", 0), all, first)
	if _, hurt := c.all[all[0].uid]; err != nil || hurt || len(c.all) != 9 || c.spared != 1 || c.shares[0].matching != 9 {
		t.Errorf("%v: %+v", err, c)
	}
	if _, err := choose("uid-1", planOf("fixed", 10), all, first); err == nil || !strings.Contains(err.Error(), "10 pods are asked for, and 9 match") || !strings.Contains(err.Error(), "1 are spared") {
		t.Errorf("got %v", err)
	}
}

// BenchmarkChoice is what a node does for an experiment on a large namespace.
func BenchmarkChoice(b *testing.B) {
	all, _ := crowd(10000, 1000)
	plan := planOf("percent", 30)
	for b.Loop() {
		if _, err := choose("uid-1", plan, all, nobody); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(time.Millisecond), "ms/choice")
}
