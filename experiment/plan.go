package experiment

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	v1 "faultd/api/faultd/v1alpha1"
)

// What durations may be, and are when they are not given.
const (
	leastDuration  = time.Millisecond
	mostDuration   = 7 * 24 * time.Hour
	defaultWatched = 5 * time.Second
	defaultTry     = time.Second
)

// plan checks what goes across fields, and makes a plan of a message that the rules of the schema allow.
func (d *document) plan(m *v1.Experiment, check func(*v1.FaultSpec) error) *Plan {
	spec := m.GetSpec()
	p := &Plan{
		File: d.file, Source: d.text,
		Name: m.GetMetadata().GetName(), Labels: m.GetMetadata().GetLabels(), Owner: m.GetMetadata().GetOwner(), Links: m.GetMetadata().GetLinks(),
		Hypothesis: spec.GetHypothesis(),
		Seed:       uint64(rand.Uint32()), // short, as people copy it
		Before:     d.duration("spec.before", spec.GetBefore(), 0, defaultWatched),
		Recovery:   d.duration("spec.recovery", spec.GetRecovery(), 0, 0),
		After:      d.duration("spec.after", spec.GetAfter(), 0, defaultWatched),
	}
	if spec.Seed != nil {
		p.Seed = spec.GetSeed()
	}
	targets := d.targets(spec)
	schedule := d.schedule(spec)
	times := d.times(spec, schedule)
	for i, f := range spec.GetFaults() {
		p.Faults = append(p.Faults, d.fault(i, f, targets, times[i], p.Seed, check))
	}
	d.ramps(spec, p, check)
	d.steps(spec.GetSchedule().GetSteps(), p, check)
	stepped := make([]bool, len(p.Faults))
	for i, f := range p.Faults {
		stepped[i] = f.Steps != nil
	}
	p.Changes, p.Bursts = schedule.changes(times, stepped), schedule.count > 1 || spec.GetSchedule().GetContinuous() != nil
	for i, probe := range spec.GetProbes() {
		p.Probes = append(p.Probes, d.probe(fmt.Sprintf("spec.probes[%d]", i), probe, spec))
	}
	p.Stop = d.stop(spec.GetStop())
	p.Continuous = d.continuous(spec, p, schedule.on)
	d.initialDelays(p)
	d.unique("spec.faults", len(p.Faults), func(i int) string { return p.Faults[i].Name })
	d.unique("spec.probes", len(p.Probes), func(i int) string { return p.Probes[i].Name })
	p.WaitForTargets = d.wait(spec, p)
	p.Length = p.Before + p.harmLength() + p.Recovery + p.After
	d.limits(spec.GetLimits(), p)
	p.Repeat = d.repeat(spec.GetRepeat(), p)
	return p
}

// duration reads a duration of the field named; otherwise is for one that is not given.
func (d *document) duration(field, text string, least, otherwise time.Duration) time.Duration {
	if text == "" {
		return otherwise
	}
	got, err := time.ParseDuration(text)
	if err != nil {
		d.wrong(field, "%q is no duration; write it as 150ms, 2s or 5m", text)
		return max(least, otherwise)
	}
	if got < least || got > mostDuration {
		d.wrong(field, "%s is out of range; it must be in %s..%s", text, least, mostDuration)
		return max(least, otherwise)
	}
	return got
}

// wait reads how long the targets are waited for. Of a process nobody knows the number before it is there.
func (d *document) wait(spec *v1.ExperimentSpec, p *Plan) time.Duration {
	if spec.GetWaitForTargets() == "" {
		return 0
	}
	for _, f := range p.Faults {
		for _, s := range f.Selectors() {
			if strings.HasPrefix(s, "pid:") {
				d.wrong("spec.waitForTargets", "%s was given, and %s is a target of fault %s: a process that is not there yet has no number; name its cgroup, unit, container or pod", spec.GetWaitForTargets(), s, f.Name)
			}
		}
	}
	return d.duration("spec.waitForTargets", spec.GetWaitForTargets(), leastDuration, 0)
}

// initialDelays checks that there is time left for a try.
func (d *document) initialDelays(p *Plan) {
	last := map[Phase]time.Duration{Before: p.Before, During: p.harmLength(), After: p.After}
	for i, probe := range p.Probes {
		for _, phase := range Phases() {
			lasts := last[phase]
			if probe.InitialDelay > 0 && probe.in(phase) && probe.InitialDelay >= lasts {
				d.wrong(fmt.Sprintf("spec.probes[%d].initialDelay", i), "%s is not below the %s that are watched %s the faults: there would be no try", probe.InitialDelay, lasts, phase)
			}
		}
	}
}

func (d *document) unique(field string, n int, name func(int) string) {
	seen := map[string]int{}
	for i := range n {
		if first, twice := seen[name(i)]; twice {
			d.wrong(fmt.Sprintf("%s[%d].name", field, i), "%q is the name of %s[%d] already", name(i), field, first)
			continue
		}
		seen[name(i)] = i
	}
}

// target is who is hurt: the one that a selector means, or those that aim chooses.
type target struct {
	selector string
	aim      *Aim
	// follow: whoever the selector means while the fault is on.
	follow bool
}

// targets gives them by name; "" is the one of spec.target.
func (d *document) targets(spec *v1.ExperimentSpec) map[string]target {
	selectors := map[string]target{}
	for i, t := range spec.GetTargets() {
		field := fmt.Sprintf("spec.targets[%d].name", i)
		if t.GetName() == "" {
			d.wrong(field, "missing; faults refer to it")
		} else if _, twice := selectors[t.GetName()]; twice {
			d.wrong(field, "%q is the name of another target already", t.GetName())
		}
		selectors[t.GetName()] = d.aim(fmt.Sprintf("spec.targets[%d]", i), t)
	}
	if spec.GetTarget() == nil {
		return selectors
	}
	selectors[""] = d.aim("spec.target", spec.GetTarget())
	if name := spec.GetTarget().GetName(); name != "" {
		selectors[name] = selectors[""]
	}
	return selectors
}

// selector is a target in the words of the API.
func selector(t *v1.ExperimentTarget) string {
	switch s := t.GetSelector().(type) {
	case *v1.ExperimentTarget_Unit:
		return "unit:" + s.Unit
	case *v1.ExperimentTarget_Pid:
		return fmt.Sprintf("pid:%d", s.Pid)
	case *v1.ExperimentTarget_Container:
		return "container:" + s.Container
	case *v1.ExperimentTarget_Pod:
		return "pod:" + s.Pod
	case *v1.ExperimentTarget_Pods:
		return "pods:" + s.Pods
	default:
		return "cgroup:" + t.GetCgroup()
	}
}

// fault makes what the node is asked for.
func (d *document) fault(i int, f *v1.ExperimentFault, targets map[string]target, on span, seed uint64, check func(*v1.FaultSpec) error) Fault {
	field := fmt.Sprintf("spec.faults[%d]", i)
	spec := faultSpec(f)
	spec.Duration = max(on.length(), leastDuration).String()
	target, known := targets[f.GetTarget()]
	switch {
	case known:
		spec.Target, spec.Follow = target.selector, target.follow
	case f.GetTarget() == "":
		d.wrong(field+".target", "missing, and there is no spec.target; give one")
	default:
		d.wrong(field+".target", "there is no target %q; there is %s", f.GetTarget(), names(targets))
	}
	d.checkFault(field, spec, check)
	// Kinds without dice refuse a seed.
	seeded := proto.CloneOf(spec)
	seeded.Seed = &seed
	if check(seeded) == nil {
		spec = seeded
	}
	return Fault{Name: f.GetName(), Kind: kindOf(f), Spec: spec, Aim: target.aim}
}

// faultSpec copies what a fault of an experiment shares with a FaultSpec: it is called the same.
func faultSpec(f *v1.ExperimentFault) *v1.FaultSpec {
	spec := &v1.FaultSpec{}
	to := spec.ProtoReflect()
	f.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if same := to.Descriptor().Fields().ByName(field.Name()); same != nil && field.Name() != "target" && field.Name() != "duration" {
			to.Set(same, value)
		}
		return true
	})
	return spec
}

// kindOf is the name of a fault's kind.
func kindOf(f *v1.ExperimentFault) string {
	m := f.ProtoReflect()
	if field := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind")); field != nil {
		return string(field.Name())
	}
	return ""
}

// aboutField is an error about a parameter: "connect.errno: what is wrong".
var aboutField = regexp.MustCompile(`^([a-zA-Z][\w.\[\]]*): (.*)$`)

func (d *document) checkFault(field string, spec *v1.FaultSpec, check func(*v1.FaultSpec) error) {
	if err := check(spec); err != nil {
		if m := aboutField.FindStringSubmatch(err.Error()); m != nil {
			d.wrong(field+"."+m[1], "%s", m[2])
			return
		}
		d.wrong(field, "%v", err)
	}
}

// ramps checks that all faults have a percentage that can be raised.
func (d *document) ramps(spec *v1.ExperimentSpec, p *Plan, check func(*v1.FaultSpec) error) {
	ramp := spec.GetSchedule().GetRamp()
	if len(ramp) == 0 {
		return
	}
	for _, percent := range ramp {
		p.Steps = append(p.Steps, fmt.Sprintf("%v %%", percent))
	}
	for _, f := range p.Faults {
		stepped := proto.CloneOf(f.Spec)
		setPercent(stepped, ramp[0])
		if err := check(stepped); err != nil && check(f.Spec) == nil {
			d.wrong("spec.schedule.ramp", "fault %s has no percentage to raise: %v", f.Name, err)
		}
	}
}

// setPercent chooses how many are hurt: of packets that are lost it is the loss.
func setPercent(spec *v1.FaultSpec, percent float64) {
	if packet := spec.GetPacket(); packet.GetLoss() > 0 {
		packet.Loss = percent
		return
	}
	spec.Percent = &percent
}

// limits checks the blast radius.
func (d *document) limits(limits *v1.ExperimentLimits, p *Plan) {
	p.MaxTargets = int(limits.GetMaxTargets())
	least, hurt := 0, map[string]bool{}
	for _, f := range p.Faults {
		if hurt[f.Spec.GetTarget()] {
			continue
		}
		hurt[f.Spec.GetTarget()] = true
		if least++; f.Aim != nil {
			least += f.Aim.Least() - 1
		}
	}
	if p.MaxTargets > 0 && least > p.MaxTargets {
		d.wrong("spec.limits.maxTargets", "%d targets would be hurt (%s), and %d is the limit", least, names(hurt), p.MaxTargets)
	}
	if most := d.duration("spec.limits.duration", limits.GetDuration(), leastDuration, mostDuration); p.Length > most {
		d.wrong("spec.limits.duration", "it takes %s in all, and %s is the limit", p.Length, most)
	}
}

// names lists the names of a map for people.
func names[T any](of map[string]T) string {
	var list []string
	for name := range of {
		if name != "" {
			list = append(list, name)
		}
	}
	if len(list) == 0 {
		return "none that has a name"
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}
