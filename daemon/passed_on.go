package daemon

import (
	"fmt"
	"slices"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
)

// passesOn says whether a fault passes traffic of its target on itself. To the faults that know the target by its cgroup that is faultd's.
func passesOn(spec *v1.FaultSpec) bool { return spec.GetHttp() != nil || spec.GetDns() != nil }

// missesWhat says whether a fault of one spec does not meet what one of the other passes on. Queries are spared unless they are included.
func missesWhat(network, passing *v1.FaultSpec) bool {
	if network.GetPacket() == nil && network.GetPartition() == nil && network.GetConnect() == nil {
		return false
	}
	included := slices.Concat(network.GetPacket().GetTraffic().GetInclude(), network.GetPartition().GetTraffic().GetInclude(), network.GetConnect().GetTraffic().GetInclude())
	return passing.GetHttp() != nil || passing.GetDns() != nil && slices.Contains(included, "dns")
}

// passedOnNotes tells of the faults on the same targets that do not meet what a new one passes on, or the other way round.
func (d *Daemon) passedOnNotes(spec *v1.FaultSpec, targets []cgroup.Target) (notes []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.ordered() {
		if f.state != stateActive || !slices.ContainsFunc(targets, f.shares) {
			continue
		}
		switch {
		case passesOn(spec) && missesWhat(f.spec, spec):
			notes = append(notes, fmt.Sprintf("what this passes on is sent by faultd: the older fault %s (%s) does not meet it by the addresses and ports of servers", f.id, f.kind))
		case passesOn(f.spec) && missesWhat(spec, f.spec):
			notes = append(notes, fmt.Sprintf("what the older fault %s (%s) passes on is sent by faultd: this does not meet it by the addresses and ports of servers", f.id, f.kind))
		}
	}
	return notes
}

// shares says whether a target is one of the fault's, or one lies in the other.
func (f *fault) shares(t cgroup.Target) bool {
	return f.touches(t) || slices.ContainsFunc(f.targets(), func(hurt cgroup.Target) bool { return slices.Contains(hurt.Ancestors, t.ID) })
}
