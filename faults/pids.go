package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
)

// Pids lets the target start only so many more threads and processes, or holds threads beside its own.
type Pids struct {
	// More is how many more than there are when the fault starts; nil: not given.
	More *uint32
	Terms
	// Load holds threads instead; nil: it is not asked for.
	Load *PidsLoad
}

func newPids(spec *v1.FaultSpec) (Fault, error) {
	s := spec.GetPids()
	if s == nil {
		return nil, nil
	}
	if err := noDiceOfLoad(spec, s.GetLoad()); err != nil {
		return nil, err
	}
	terms, err := newTerms(s, spec.GetDuration())
	if err != nil {
		return nil, err
	}
	load, err := newPidsLoad(s)
	return Pids{More: s.More, Terms: terms, Load: load}, err
}

func pidsParameters() []Parameter {
	return slices.Concat([]Parameter{{"more", "number", "how many more threads and processes than there are now; 0: none"}}, termsParameters(), pidsLoadParameters())
}

// Validate implements Fault.
func (p Pids) Validate() error {
	if p.Load != nil {
		if p.More != nil || p.Terms != (Terms{}) {
			return errors.New("load: given together with more, onChange, ramp or pulses; give a load or a limit")
		}
		return p.Load.validate()
	}
	if p.More == nil {
		return errors.New("more: missing; say how many more threads and processes there may be, such as 10, or 0, or load")
	}
	return nil
}

// Mechanism implements Fault. Whether the controller is there depends on the target.
func (p Pids) Mechanism(context.Context, Env) (string, error) {
	if p.Load != nil {
		return mechanismBurner, nil
	}
	return mechanismLimit, nil
}

// Inject implements Fault.
func (p Pids) Inject(_ context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	if p.Load != nil {
		return p.startLoad(env, target, common)
	}
	settings, meters, err := p.limits(env, target)
	if err != nil {
		return nil, err
	}
	return startLimits(p, env, target, common, p.Terms, settings, meters)
}

// limits are what is set of the target as it is now, and what tells how that holds it back.
func (p Pids) limits(env Env, target cgroup.Target) (settings []setting, meters []*meter, err error) {
	now, err := readNumber(env, target, "pids.current")
	if err != nil {
		return nil, nil, err
	}
	most, err := readNumber(env, target, "pids.max")
	if err != nil {
		return nil, nil, err
	}
	limit := now + int64(*p.More)
	if limit >= most {
		return nil, nil, &ParameterError{"pids.more", fmt.Sprintf("there are %d, and %d more are not below the limit of %d that the target has", now, *p.More, most)}
	}
	// Refused forks are counted where they were tried (up to Linux 6.10) or where the limit is (later).
	events := "pids.events.local"
	if _, err := readControl(env, target, events); err != nil {
		events = "pids.events"
	}
	from := min(most, tenfold*limit)
	s := setting{file: "pids.max", write: strconv.FormatInt(limit, 10), way: func(part float64) (string, string) {
		return fmt.Sprintf("%.0f", onTheWay(float64(from), float64(limit), part)), ""
	}}
	return []setting{s}, []*meter{meterBelow(env, target, events, "max")}, nil
}
