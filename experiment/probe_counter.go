package experiment

import (
	"context"
	"fmt"
	"slices"

	v1 "faultd/api/faultd/v1alpha1"
)

// counterProbe reads what a fault of the experiment has counted.
type counterProbe struct{ fault, counter string }

func (d *document) counterProbe(field string, m *v1.CounterProbe, spec *v1.ExperimentSpec, p Probe) check {
	known := func(f *v1.ExperimentFault) bool { return f.GetName() == m.GetFault() }
	if !slices.ContainsFunc(spec.GetFaults(), known) {
		d.wrong(field+".counter.fault", "there is no fault %q", m.GetFault())
	}
	if !slices.Equal(p.When, []Phase{During}) {
		d.wrong(field+".when", "a fault counts only while it is on; it must be [during]")
	}
	return counterProbe{m.GetFault(), m.GetCounter()}
}

func (p counterProbe) ask(ctx context.Context, counters Counters) (string, error) {
	c, err := counters(ctx, p.fault)
	if err != nil {
		return "", err
	}
	n := map[string]uint64{
		"": c.GetInjected(), "injected": c.GetInjected(), "evaluated": c.GetEvaluated(), "matched": c.GetMatched(),
		"notApplied": c.GetNotApplied(), "spared": c.GetSpared(),
	}[p.counter]
	return fmt.Sprint(n), nil
}
