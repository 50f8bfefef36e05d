package experiment

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	v1 "faultd/api/faultd/v1alpha1"
)

// Monitor makes the plan one that harms nobody: its faults are put in place and count what they would hurt, and are told to spare more
// matches than there will ever be. check is that of Read. A fault that has no matches cannot be monitored, and is an error.
func (p *Plan) Monitor(check func(*v1.FaultSpec) error) error {
	for i := range p.Faults {
		f := &p.Faults[i]
		f.Monitored = proto.CloneOf(f.Spec)
		for _, spec := range f.specs() {
			spec.SkipFirst = math.MaxUint64
			if err := check(spec); err != nil && check(f.Monitored) == nil {
				return fmt.Errorf("spec.faults[%d] (%s): it cannot be monitored, only done: %w", i, f.Name, err)
			}
		}
	}
	return nil
}

// IsMonitored says whether nobody is to be harmed.
func (p *Plan) IsMonitored() bool { return len(p.Faults) > 0 && p.Faults[0].Monitored != nil }

// wouldInject is how often a fault would have done harm with so many matches: exactly if the dice have no choice, about so often if they
// have. A rate is left out: it can only make it less.
func wouldInject(spec *v1.FaultSpec, matched uint64) (n uint64, exact bool) {
	matched -= min(matched, spec.GetSkipFirst())
	matched /= max(spec.GetEveryNth(), 1)
	percent := 100.0
	if spec.Percent != nil {
		percent = spec.GetPercent()
	}
	if loss := spec.GetPacket().GetLoss(); loss > 0 {
		percent = loss
	}
	n, exact = matched, percent == 100 && spec.GetRate() == 0
	if percent != 100 {
		n = uint64(float64(matched) * percent / 100)
	}
	if most := spec.GetMaxHits(); most > 0 {
		n = min(n, most)
	}
	return n, exact
}

// watched comes to the verdict of a run that harmed nobody.
func (r *Result) watched() {
	r.Verdict = Monitored
	for _, name := range r.Plan.faultNames() {
		var would, matched, injected uint64
		exact := true
		for i, f := range r.Plan.Faults {
			if f.Name != name {
				continue
			}
			c := r.countersOf(i)
			n, sure := wouldInject(f.Monitored, c.GetMatched())
			would, matched, injected, exact = would+n, matched+c.GetMatched(), injected+c.GetInjected(), exact && sure
		}
		about := ""
		if !exact {
			about = "about "
		}
		r.because("%s would have injected %s%d, of %d that matched", name, about, would, matched)
		if injected > 0 {
			r.Verdict, r.Err = Failed, fmt.Errorf("%s did harm %d times, though it was monitored", name, injected)
			r.because("%v", r.Err)
		}
		if matched == 0 && r.Verdict == Monitored {
			r.Verdict = Inert
		}
	}
}

// countersOf adds up what a fault counted at one target.
func (r *Result) countersOf(fault int) *v1.Counters {
	return added(r.Activations, func(f int) bool { return f == fault })
}
