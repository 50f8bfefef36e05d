package faults

import (
	"context"

	"faultd/bpf"
	"faultd/cgroup"
)

// Network faults look at who the peers are, and at where the target lives.
var (
	_ Rehearser = Packet{}
	_ Rehearser = Partition{}
	_ Rehearser = Connect{}
	_ Rehearser = HTTP{}
	_ Rehearser = DNS{}
)

// rehearse gives the error with which traffic of the target would be refused. What leaves, or waits when it comes in, needs
// a place, and of some it cannot be told whose it is.
func (t Traffic) rehearse(env Env, target cgroup.Target, kind string, rule bpf.Rule) error {
	if _, err := t.meant(context.Background(), env, target, kind, rule.Traffic); err != nil {
		return err
	}
	homes, err := homesOf(env, target)
	if err != nil {
		return err
	}
	defer closeHomes(homes)
	if err := needsHome(rule, homes); err != nil || !rule.Incoming {
		return err
	}
	for _, h := range homes {
		if _, err := othersIn(env, target, h.ns, rule.Traffic); err != nil {
			return err
		}
	}
	return nil
}

// Rehearse implements Rehearser.
func (p Packet) Rehearse(env Env, target cgroup.Target) error {
	rule, err := p.rule(Common{})
	if err != nil {
		return err
	}
	return p.Traffic.rehearse(env, target, "packet", rule)
}

// Rehearse implements Rehearser.
func (p Partition) Rehearse(env Env, target cgroup.Target) error {
	rule, err := p.rule(Common{Percent: 100})
	if err != nil {
		return err
	}
	return p.Traffic.rehearse(env, target, "partition", rule)
}

// Rehearse implements Rehearser.
func (c Connect) Rehearse(env Env, target cgroup.Target) error {
	rule, err := c.rule(Common{Percent: 100})
	if err != nil {
		return err
	}
	return c.Traffic.rehearse(env, target, "connect", rule)
}

// Rehearse implements Rehearser.
func (h HTTP) Rehearse(env Env, target cgroup.Target) error {
	rule, err := h.rule(Common{})
	if err != nil {
		return err
	}
	if err := rehearseStandIn(env, target); err != nil {
		return err
	}
	return h.Traffic.rehearse(env, target, "http", rule)
}

// Rehearse implements Rehearser.
func (d DNS) Rehearse(env Env, target cgroup.Target) error { return rehearseStandIn(env, target) }

func rehearseStandIn(env Env, target cgroup.Target) error {
	homes, err := homesToStandIn(env, target)
	closeHomes(homes)
	return err
}
