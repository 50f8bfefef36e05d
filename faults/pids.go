package faults

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
)

// Pids lets the target start only so many more threads and processes.
type Pids struct {
	// More is how many more than there are when the fault starts; nil: not given.
	More *uint32
	Terms
}

func newPids(spec *v1.FaultSpec) (Fault, error) {
	s := spec.GetPids()
	if s == nil {
		return nil, nil
	}
	if err := noDice(spec, "more", "a limit holds for all"); err != nil {
		return nil, err
	}
	terms, err := newTerms(s, spec.GetDuration())
	return Pids{More: s.More, Terms: terms}, err
}

func pidsParameters() []Parameter {
	return append([]Parameter{{"more", "number", "how many more threads and processes than there are now; 0: none"}}, termsParameters()...)
}

// Validate implements Fault.
func (p Pids) Validate() error {
	if p.More == nil {
		return errors.New("more: missing; say how many more threads and processes there may be, such as 10, or 0")
	}
	return nil
}

// Mechanism implements Fault. Whether the controller is there depends on the target.
func (p Pids) Mechanism(context.Context, Env) (string, error) { return mechanismLimit, nil }

// Inject implements Fault.
func (p Pids) Inject(_ context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	now, err := readNumber(env, target, "pids.current")
	if err != nil {
		return nil, err
	}
	most, err := readNumber(env, target, "pids.max")
	if err != nil {
		return nil, err
	}
	limit := now + int64(*p.More)
	if limit >= most {
		return nil, &ParameterError{"pids.more", fmt.Sprintf("there are %d, and %d more are not below the limit of %d that the target has", now, *p.More, most)}
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
	return startLimits(p, env, target, common, p.Terms, []setting{s}, []*meter{meterBelow(env, target, events, "max")})
}
