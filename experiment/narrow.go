package experiment

import (
	"slices"

	"google.golang.org/protobuf/proto"
)

// Selectors are how the document names the targets of a fault.
func (f Fault) Selectors() []string {
	if f.Aim != nil {
		return f.Aim.Selectors
	}
	return []string{f.Spec.GetTarget()}
}

// Narrow gives the plan for a node that has a part of the targets: those of each fault become all that the selectors mean which here
// gives for it. A fault for which it gives none is taken away, with the probes that count it; when the others are on does not change.
func (p *Plan) Narrow(here func(Fault) []string) *Plan {
	there := *p
	there.Faults, there.Changes, there.Probes = nil, nil, nil
	there.WaitForTargets = 0 // they are found
	at, aims := map[int]int{}, map[*Aim]*Aim{}
	for i, f := range p.Faults {
		selectors := here(f)
		if len(selectors) == 0 {
			continue
		}
		if aims[f.Aim] == nil || f.Aim == nil {
			aims[f.Aim] = &Aim{Selectors: selectors, Mode: "all"}
		}
		f.Spec, f.Aim = proto.CloneOf(f.Spec), aims[f.Aim]
		at[i] = len(there.Faults)
		there.Faults = append(there.Faults, f)
	}
	for _, c := range p.Changes {
		if i, ok := at[c.Fault]; ok {
			c.Fault = i
			there.Changes = append(there.Changes, c)
		}
	}
	names := there.faultNames()
	for _, probe := range p.Probes {
		if counter, ok := probe.check.(counterProbe); !ok || slices.Contains(names, counter.fault) {
			there.Probes = append(there.Probes, probe)
		}
	}
	return &there
}
