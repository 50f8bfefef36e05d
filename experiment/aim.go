package experiment

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
)

// ErrLimit means that an experiment would do more than its limits allow.
var ErrLimit = errors.New("the limit is exceeded")

// Aim says which targets are hurt, of those that selectors find.
type Aim struct {
	Selectors []string
	// Mode and Value as in the document.
	Mode  string
	Value float64
}

// Least is how many targets there must be.
func (a *Aim) Least() int {
	if a.Mode == "fixed" {
		return int(a.Value)
	}
	return 1
}

// aimed gives a plan in which each fault has one target: those that have several are there once for each. It says whom the node spared.
func aimed(ctx context.Context, p *Plan, node Node) (*Plan, []string, error) {
	if !slices.ContainsFunc(p.Faults, func(f Fault) bool { return f.Aim != nil }) {
		return p, nil, nil
	}
	chosen, told := map[*Aim][]string{}, []string(nil)
	for _, f := range p.Faults {
		if _, done := chosen[f.Aim]; f.Aim == nil || done {
			continue
		}
		found, spared, err := find(ctx, node, f.Aim.Selectors)
		if err == nil && f.Aim.Least() > len(found) {
			err = fmt.Errorf("%d targets are asked for, and there are %d: %s", f.Aim.Least(), len(found), strings.Join(found, ", "))
		}
		if err != nil {
			return nil, nil, fmt.Errorf("find the targets of %s: %w", f.Name, err)
		}
		chosen[f.Aim] = f.Aim.Choose(p.Seed, found)
		told = append(told, fmt.Sprintf("targets of %s: %s, of %d found", f.Name, strings.Join(chosen[f.Aim], ", "), len(found)))
		told = append(told, spared...)
	}
	return p.at(chosen), told, nil
}

// find asks the node for all targets of some selectors, each once, and for whom it spares.
func find(ctx context.Context, node Node, selectors []string) (found, spared []string, err error) {
	for _, s := range selectors {
		response, err := node.Targets(ctx, s)
		if err != nil {
			return nil, nil, err
		}
		for _, t := range response.GetTargets() {
			found = append(found, t.GetPath())
		}
		for _, who := range response.GetSpared() {
			spared = append(spared, "spared: "+who)
		}
	}
	slices.Sort(found)
	slices.Sort(spared)
	return slices.Compact(found), slices.Compact(spared), nil
}

// at puts the faults at the targets that were chosen for them.
func (p *Plan) at(chosen map[*Aim][]string) *Plan {
	there := *p
	there.Faults, there.Changes = nil, nil
	copies := make([][]int, len(p.Faults))
	for i, f := range p.Faults {
		if f.Aim == nil {
			copies[i] = append(copies[i], len(there.Faults))
			there.Faults = append(there.Faults, f)
			continue
		}
		for _, target := range chosen[f.Aim] {
			one := f
			one.Spec, one.At, one.Steps = aimAt(f.Spec, target), target, nil
			for _, step := range f.Steps {
				one.Steps = append(one.Steps, aimAt(step, target))
			}
			copies[i] = append(copies[i], len(there.Faults))
			there.Faults = append(there.Faults, one)
		}
	}
	for _, c := range p.Changes {
		for _, i := range copies[c.Fault] {
			c.Fault = i
			there.Changes = append(there.Changes, c)
		}
	}
	return &there
}

func aimAt(spec *v1.FaultSpec, target string) *v1.FaultSpec {
	spec = proto.CloneOf(spec)
	spec.Target = "cgroup:" + target
	return spec
}

// Choose takes as many as the mode says, or all, if there are fewer. Which ones depends on nothing but the seed and their names, so that everybody who knows
// these makes the same choice, and one target more or less changes it by one at most (rendezvous hashing).
func (a *Aim) Choose(seed uint64, found []string) []string {
	scores := make(map[string]uint64, len(found))
	for _, name := range found {
		scores[name] = score(seed, name)
	}
	byScore := slices.Clone(found)
	slices.SortFunc(byScore, func(one, other string) int {
		if by := cmp.Compare(scores[other], scores[one]); by != 0 {
			return by
		}
		return strings.Compare(one, other)
	})
	chosen := byScore[:min(a.count(seed, len(found)), len(found))]
	slices.Sort(chosen)
	return chosen
}

// count is how many of n targets are hurt.
func (a *Aim) count(seed uint64, n int) int {
	share := min(max(int(a.Value/100*float64(n)), 1), n)
	switch a.Mode {
	case "all":
		return n
	case "fixed":
		return int(a.Value)
	case "percent":
		return share
	case "random-max-percent":
		return 1 + rand.New(rand.NewPCG(seed, 0)).IntN(share)
	default:
		return 1
	}
}

// score is a hash of a seed and a name: FNV-1a of both, and then murmur3's last step, so that names that differ in their last
// letter alone differ in all bits.
func score(seed uint64, name string) uint64 {
	both := fnv.New64a()
	_, _ = both.Write(append(binary.LittleEndian.AppendUint64(nil, seed), name...)) // it never fails
	hash := both.Sum64()
	hash = (hash ^ hash>>33) * 0xff51afd7ed558ccd
	hash = (hash ^ hash>>33) * 0xc4ceb9fe1a85ec53
	return hash ^ hash>>33
}

// checkLimit says whether more targets would be hurt than may be.
func (p *Plan) checkLimit(would []*v1.Fault) error {
	var hurt []string
	for _, f := range would {
		hurt = append(hurt, cgroupsOf(f)...)
	}
	slices.Sort(hurt)
	hurt = slices.Compact(hurt)
	if p.MaxTargets > 0 && len(hurt) > p.MaxTargets {
		return fmt.Errorf("spec.limits.maxTargets: %w: %d targets would be hurt (%s), and it is %d", ErrLimit, len(hurt), strings.Join(hurt, ", "), p.MaxTargets)
	}
	return nil
}

// cgroupsOf are those that a fault hurts, or has hurt.
func cgroupsOf(f *v1.Fault) (paths []string) {
	if f.GetTarget() != nil {
		return []string{f.GetTarget().GetPath()}
	}
	for _, t := range f.GetTargets() {
		paths = append(paths, t.GetTarget().GetPath())
	}
	return paths
}

// aim reads who is hurt. One target that is named by a selector that means one needs no choice, and has none.
func (d *document) aim(field string, t *v1.ExperimentTarget) target {
	selectors := t.GetSelectors()
	if t.GetSelector() != nil {
		selectors = append([]string{selector(t)}, selectors...)
	}
	if t.GetFollow() {
		return d.following(field, t)
	}
	several := mayBeSeveral(t)
	switch given := t.GetValue() != 0; {
	case len(selectors) == 0, t.GetSelector() != nil && len(t.GetSelectors()) > 0:
		d.wrong(field, "give one of cgroup, unit, pid, container, pod, pods and selectors")
		return target{}
	case several && t.GetMode() == "":
		d.wrong(field+".mode", "missing; there may be several targets: it must be all, one, fixed, percent or random-max-percent")
	case !several && t.GetMode() != "":
		d.wrong(field+".mode", "%s was given, and %s means one target; write selectors, pods, or a path with wildcards", t.GetMode(), selectors[0])
	case needsValue(t.GetMode()) && !given:
		d.wrong(field+".value", "missing; %s needs it", t.GetMode())
	case !needsValue(t.GetMode()) && given:
		d.wrong(field+".value", "%v was given; it has a meaning with fixed, percent and random-max-percent", t.GetValue())
	case t.GetMode() == "fixed" && t.GetValue() != float64(int(t.GetValue())):
		d.wrong(field+".value", "%v is no whole number of targets", t.GetValue())
	case strings.HasSuffix(t.GetMode(), "percent") && t.GetValue() > 100:
		d.wrong(field+".value", "%v is out of range; it must be in (0,100]", t.GetValue())
	}
	if !several {
		return target{selector: selectors[0]}
	}
	return target{selector: strings.Join(selectors, ","), aim: &Aim{Selectors: selectors, Mode: t.GetMode(), Value: t.GetValue()}}
}

// following reads who is hurt where that may change while the faults are on: the daemon keeps to it, so all that come are hurt.
func (d *document) following(field string, t *v1.ExperimentTarget) target {
	switch {
	case t.GetContainer() == "" && t.GetPod() == "" && t.GetPods() == "", len(t.GetSelectors()) > 0:
		d.wrong(field+".follow", "true was given; it has a meaning with container, pod and pods, which come and go")
	case t.GetMode() != "" && t.GetMode() != "all":
		d.wrong(field+".mode", "%s was given with follow, which hurts all that come; it must be all, or left out", t.GetMode())
	case t.GetValue() != 0:
		d.wrong(field+".value", "%v was given; it has a meaning with fixed, percent and random-max-percent", t.GetValue())
	}
	return target{selector: selector(t), follow: true}
}

// mayBeSeveral goes by what is written: a pod that a kubelet made is one target.
func mayBeSeveral(t *v1.ExperimentTarget) bool {
	return len(t.GetSelectors()) > 0 || strings.ContainsAny(t.GetCgroup(), "*?[{") ||
		t.GetPods() != "" || strings.HasPrefix(t.GetContainer(), "~") || strings.Contains(t.GetPod(), ",")
}

func needsValue(mode string) bool {
	return mode == "fixed" || mode == "percent" || mode == "random-max-percent"
}
