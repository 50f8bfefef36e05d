package experiment

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	v1 "faultd/api/faultd/v1alpha1"
)

// webs are some targets.
func webs(n int) (paths []string) {
	for i := range n {
		paths = append(paths, fmt.Sprintf("/web-%02d", i))
	}
	return paths
}

func TestChoose(t *testing.T) {
	for _, test := range []struct {
		mode        string
		value       float64
		least, most int
	}{
		{"all", 0, 20, 20}, {"one", 0, 1, 1}, {"fixed", 7, 7, 7}, {"percent", 30, 6, 6}, {"percent", 1, 1, 1}, {"percent", 100, 20, 20},
		{"percent", 19, 3, 3}, // never more than were asked for
		{"random-max-percent", 50, 1, 10},
	} {
		counts := map[int]bool{}
		for seed := range uint64(200) {
			a := &Aim{Mode: test.mode, Value: test.value}
			chosen := a.Choose(seed, webs(20))
			counts[len(chosen)] = true
			if len(chosen) < test.least || len(chosen) > test.most {
				t.Fatalf("%s %v chooses %d", test.mode, test.value, len(chosen))
			}
			backwards := webs(20)
			slices.Reverse(backwards)
			if again := a.Choose(seed, backwards); !slices.Equal(chosen, again) {
				t.Fatalf("%s %v chooses %v, and then %v", test.mode, test.value, chosen, again)
			}
		}
		if len(counts) != test.most-test.least+1 {
			t.Errorf("%s %v chooses %v targets", test.mode, test.value, counts)
		}
	}
}

// TestChoiceIsStable: a target more or less changes the choice by no more than itself and one other.
func TestChoiceIsStable(t *testing.T) {
	a := &Aim{Mode: "fixed", Value: 5}
	for seed := range uint64(100) {
		before := a.Choose(seed, webs(20))
		for gone := range 20 {
			after := a.Choose(seed, slices.Delete(webs(20), gone, gone+1))
			kept := 0
			for _, p := range after {
				if slices.Contains(before, p) {
					kept++
				}
			}
			if want := 5; slices.Contains(before, webs(20)[gone]) {
				want = 4
				if kept != want {
					t.Fatalf("%v without %s became %v", before, webs(20)[gone], after)
				}
			} else if kept != want {
				t.Fatalf("%v became %v, though %s was not in it", before, after, webs(20)[gone])
			}
		}
	}
}

// TestChoiceIsFair: each is chosen about as often as the others (the bounds are eight standard deviations away).
func TestChoiceIsFair(t *testing.T) {
	times := map[string]int{}
	a := &Aim{Mode: "one"}
	for seed := range uint64(10000) {
		times[a.Choose(seed, webs(10))[0]]++
	}
	for path, n := range times {
		if len(times) != 10 || n < 760 || n > 1240 {
			t.Errorf("%s was chosen %d times of 10000, and %d were at all", path, n, len(times))
		}
	}
}

// found makes what a node answers.
func found(paths ...string) *v1.TargetsResponse {
	r := &v1.TargetsResponse{}
	for _, p := range paths {
		r.Targets = append(r.Targets, &v1.Target{Path: p})
	}
	return r
}

const severalTargets = `target: {selectors: ["cgroup:/web-*", "unit:db"], mode: all}`

func TestSeveralTargets(t *testing.T) {
	prepare := func(l *lab) {
		webs := found("/web-1", "/web-2")
		webs.Spared = []string{"/web-3 is protected"}
		l.node.targets = map[string]*v1.TargetsResponse{"cgroup:/web-*": webs, "unit:db": found("/db", "/web-1")}
	}
	inLab(t, prepare, func(l *lab, r *Result) {
		wantVerdict(t, r, Confirmed, "")
		hurt := map[string]int{}
		for _, a := range r.Activations {
			f := r.Plan.Faults[a.Fault]
			hurt[f.Name+" "+f.Spec.GetTarget()]++
		}
		if len(r.Activations) != 6 || hurt["one cgroup:/db"] != 1 || hurt["two cgroup:/web-2"] != 1 || len(hurt) != 6 {
			t.Errorf("hurt were %v", hurt)
		}
		if n := total(r.Plan, r.Activations, "one").GetInjected(); n != 15 {
			t.Errorf("one did harm %d times", n)
		}
		if told := r.Events[0].Text + r.Events[1].Text; told != "targets of one: /db, /web-1, /web-2, of 3 foundspared: /web-3 is protected" {
			t.Errorf("it was told: %s", told)
		}
		page, err := r.markdown()
		if err != nil || !strings.Contains(string(page), "| one | connect | cgroup:/web-2 | 10s | 0 | 0 | 5 |") {
			t.Errorf("the report has %s, %v", page, err)
		}
		if suite, err := r.junit(); err != nil || strings.Count(string(suite), "one does harm") != 1 {
			t.Errorf("%s, %v", suite, err)
		}
	}, "target: {cgroup: /shop}", severalTargets)
}

// TestTargetsInContainers: they are asked for in the words of the API, and several need a mode.
func TestTargetsInContainers(t *testing.T) {
	for target, want := range map[string]string{
		`container: web`:                         "container:web",
		`container: "~^web-", mode: one`:         "container:~^web-",
		`pod: shop/web-0`:                        "pod:shop/web-0",
		`pod: "shop/web-0#app,proxy", mode: all`: "pod:shop/web-0#app,proxy",
		`pods: "shop?app=web", mode: all`:        "pods:shop?app=web",
	} {
		plan := mustRead(t, strings.Replace(labDocument, "target: {cgroup: /shop}", "target: {"+target+"}", 1))
		if f := plan.Faults[0]; f.Spec.GetTarget() != want || (f.Aim != nil) != strings.Contains(target, "mode") {
			t.Errorf("%s: %s, %v; want %s", target, f.Spec.GetTarget(), f.Aim, want)
		}
	}
}

// TestTargetsAreRefused: before anything is injected.
func TestTargetsAreRefused(t *testing.T) {
	for _, test := range []struct {
		target, limits, want string
		limit                bool
	}{
		{`target: {cgroup: "/none-*", mode: all}`, "", "find the targets of one: resolve cgroup:/none-*: not found", false},
		{`target: {cgroup: "/web-*", mode: fixed, value: 5}`, "", "find the targets of one: 5 targets are asked for, and there are 4: /web-00", false},
		{`target: {cgroup: "/web-*", mode: all}`, "limits: {maxTargets: 3}", "spec.limits.maxTargets: the limit is exceeded: 4 targets would be hurt", true},
	} {
		synctest.Test(t, func(t *testing.T) {
			node := newFakeNode()
			node.targets = map[string]*v1.TargetsResponse{"cgroup:/web-*": found(webs(4)...)}
			plan := mustRead(t, strings.NewReplacer("target: {cgroup: /shop}", test.target, "  before: 4s", "  before: 4s\n  "+test.limits).Replace(labDocument))
			_, err := Run(t.Context(), plan, node, Environment{}, nil)
			if err == nil || !strings.Contains(err.Error(), test.want) || errors.Is(err, ErrLimit) != test.limit || len(node.asked) > 0 {
				t.Errorf("%v, and the node was asked %v; want %s", err, node.asked, test.want)
			}
		})
	}
}
