package faults

import (
	"context"
	"errors"
	"fmt"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/cgroup"
)

// Partition cuts the target from peers: every packet is lost, in silence.
type Partition struct {
	// Traffic says from whom; peers, or exceptions, are needed.
	Traffic Traffic
	// Direction is "egress": the target is not heard, "ingress": it does not hear, or "both" (also when empty).
	Direction string
	// HalfOpen lets TCP without data pass, so that connections open and then stand still.
	HalfOpen bool
}

func newPartition(spec *v1.FaultSpec) (Fault, error) {
	p := spec.GetPartition()
	if p == nil {
		return nil, nil
	}
	if err := noDice(spec, "peers", "a partition loses every packet; some of them are lost by the kind packet"); err != nil {
		return nil, err
	}
	return Partition{Traffic: newTraffic(p), Direction: p.GetDirection(), HalfOpen: p.GetHalfOpen()}, nil
}

func partitionParameters() []Parameter {
	return append([]Parameter{
		{"direction", "egress|ingress|both", "egress: the target is not heard, ingress: it does not hear; empty: both"},
		{"halfOpen", "bool", "TCP without data passes: connections open, and then stand still"},
	}, trafficParameters()...)
}

// Validate implements Fault.
func (p Partition) Validate() error {
	if len(p.Traffic.Peers) == 0 && len(p.Traffic.Except) == 0 {
		return errors.New("peers: missing; give the peers to cut from, or those that are left by traffic.except. 0.0.0.0/0 and ::/0 are everybody")
	}
	if p.HalfOpen && p.Traffic.Protocol != "" && p.Traffic.Protocol != "tcp" {
		return fmt.Errorf("halfOpen: %s has no connections that could open; leave protocol out, or give tcp", p.Traffic.Protocol)
	}
	_, err := p.rule(Common{Percent: 100})
	return err
}

func (p Partition) rule(common Common) (bpf.Rule, error) {
	rule := common.rule()
	rule.Action = bpf.ActionLose
	var err error
	if rule.Egress, rule.Ingress, err = parseDirection(p.Direction); err != nil {
		return rule, err
	}
	rule.Traffic, err = p.Traffic.kernel(nil)
	rule.Traffic.Payload = p.HalfOpen
	return rule, err
}

// Mechanism implements Fault.
func (p Partition) Mechanism(_ context.Context, env Env) (string, error) {
	rule, err := p.rule(Common{Percent: 100})
	if err != nil {
		return "", err
	}
	return env.Kernel.PacketMechanism(rule)
}

// Inject implements Fault.
func (p Partition) Inject(ctx context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	mechanism, err := p.Mechanism(ctx, env)
	if err != nil {
		return nil, err
	}
	rule, err := p.rule(common)
	if err != nil {
		return nil, err
	}
	meant, err := p.Traffic.meant(ctx, env, target, "partition", rule.Traffic)
	if err != nil {
		return nil, err
	}
	rule.Traffic = meant.traffic
	installed, err := installPacket(ctx, meant, common.ID, rule)
	if err != nil {
		return nil, err
	}
	return meant.follow(ctx, &ruleHandle{installed: installed, mechanism: mechanism, rule: func(f Fault, common Common) (bpf.Rule, error) { return f.(Partition).rule(common) }}), nil
}
