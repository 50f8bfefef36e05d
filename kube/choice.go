package kube

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"faultd/cgroup"
	"faultd/experiment"
)

// pod is one of the API server's pods.
type pod struct {
	namespace, name, uid string
	labels               map[string]string
	created              time.Time
}

// choice is who is hurt by an experiment, in the whole cluster. It is made of the experiment's uid and the pods' uids alone, so that nodes that
// saw the same pods make the same one, and one pod more or less changes it by one at most. Where several make one, that of the first to
// write it down is everybody's.
type choice struct {
	// name is that of the record in which it stands.
	name string
	// chosen are pods by uid, for each target (key).
	chosen map[string]map[string]bool
	// all are the uids of those that are chosen for anything.
	all map[string]bool
	// shares are how many were chosen of how many, for each target.
	shares []share
	// spared is how many pods a policy keeps from being chosen.
	spared int
}

// tooFew means that fewer pods match than a target needs.
type tooFew struct{ error }

// share is how many pods were chosen of those that match.
type share struct{ chosen, matching int }

// aimOf says which pods a fault hurts, of those that its selectors mean.
func aimOf(f experiment.Fault) experiment.Aim {
	if f.Aim == nil {
		return experiment.Aim{Selectors: f.Selectors(), Mode: "all"}
	}
	return *f.Aim
}

// key tells targets of faults apart.
func key(f experiment.Fault) string {
	aim := aimOf(f)
	return fmt.Sprintf("%s %v\n%s", aim.Mode, aim.Value, strings.Join(aim.Selectors, "\n"))
}

// targeted are the faults of a plan whose target no fault before them has.
func targeted(plan *experiment.Plan) (all []experiment.Fault) {
	known := map[string]bool{}
	for _, f := range plan.Faults {
		if !known[key(f)] {
			known[key(f)] = true
			all = append(all, f)
		}
	}
	return all
}

// choose chooses the pods for each fault of a plan, of those that there are. protected says whether a pod is never hurt.
func choose(experimentUID string, plan *experiment.Plan, pods []pod, protected func(pod) bool) (choice, error) {
	c := choice{chosen: map[string]map[string]bool{}, all: map[string]bool{}}
	spared := map[string]bool{}
	for _, f := range targeted(plan) {
		aim := aimOf(f)
		wanted, err := parseAll(aim.Selectors)
		if err != nil {
			return c, err
		}
		there := map[string]bool{}
		var uids []string
		for _, p := range pods {
			switch {
			case there[p.uid] || !slices.ContainsFunc(wanted, p.fits):
			case protected(p):
				spared[p.uid] = true
			default:
				there[p.uid] = true
				uids = append(uids, p.uid)
			}
		}
		if len(uids) < aim.Least() {
			return c, &tooFew{fmt.Errorf("target of %s: %d pods are asked for, and %d match %s%s", f.Name, aim.Least(), len(uids), strings.Join(aim.Selectors, ", "), sparedText(len(spared)))}
		}
		picked := map[string]bool{}
		for _, uid := range aim.Choose(seedOf(experimentUID), uids) {
			picked[uid], c.all[uid] = true, true
		}
		c.chosen[key(f)] = picked
		c.shares = append(c.shares, share{len(picked), len(uids)})
	}
	c.spared = len(spared)
	return c, nil
}

func sparedText(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; %d are spared, as a ChaosPolicy protects their labels", n)
}

// selectorsOn says how a node names those pods that are chosen for a fault and run on it.
func (c choice) selectorsOn(f experiment.Fault, here []pod) (names []string) {
	wanted, err := parseAll(f.Selectors())
	if err != nil {
		return nil // choose has refused it
	}
	for _, p := range here {
		if !c.chosen[key(f)][p.uid] {
			continue
		}
		for _, s := range wanted {
			if p.fits(s) {
				names = append(names, p.selector(s.Containers))
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// on are the chosen pods among some.
func (c choice) on(here []pod) (chosen []pod) {
	for _, p := range here {
		if c.all[p.uid] {
			chosen = append(chosen, p)
		}
	}
	slices.SortFunc(chosen, func(a, b pod) int { return strings.Compare(a.name, b.name) })
	return chosen
}

// leads says whether the first of all that are chosen is among some.
func (c choice) leads(mine []pod) bool {
	first := c.first()
	return slices.ContainsFunc(mine, func(p pod) bool { return p.uid == first })
}

// first is the one of all that are chosen with the smallest uid.
func (c choice) first() (first string) {
	for uid := range c.all {
		if first == "" || uid < first {
			first = uid
		}
	}
	return first
}

func (p pod) fits(s cgroup.PodSelector) bool { return s.Fits(p.namespace, p.name, p.labels) }

// selector names the pod, or containers of it, as the daemon knows them.
func (p pod) selector(containers []string) string {
	return cgroup.PodSelector{Namespace: p.namespace, Name: p.name, Containers: containers}.String()
}

func parseAll(selectors []string) (parsed []cgroup.PodSelector, err error) {
	for _, text := range selectors {
		s, err := cgroup.ParsePods(text)
		if err != nil {
			return nil, err
		}
		parsed = append(parsed, s)
	}
	return parsed, nil
}

// seedOf makes dice of a uid.
func seedOf(uid string) uint64 {
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(uid)) // it never fails
	return hash.Sum64()
}
