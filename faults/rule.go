package faults

import (
	"faultd/bpf"
	"faultd/cgroup"
)

// rule starts a kernel rule with what all faults share.
func (c Common) rule() bpf.Rule {
	return bpf.Rule{Until: c.Until, Percent: c.Percent, Seed: c.Seed, EveryNth: c.EveryNth, SkipFirst: c.SkipFirst, MaxHits: c.MaxHits}
}

func kernelTarget(env Env, t cgroup.Target) bpf.Target {
	return bpf.Target{Ancestors: t.Ancestors, Dir: env.Cgroups.Dir(t)}
}

// ruleHandle is the handle of a fault that is one kernel rule.
type ruleHandle struct {
	installed *bpf.Installed
	mechanism string
	// rule makes the kernel rule anew from changed parameters.
	rule func(Fault, Common) (bpf.Rule, error)
}

func (h *ruleHandle) Update(fault Fault, common Common) error {
	rule, err := h.rule(fault, common)
	if err != nil {
		return err
	}
	return h.installed.Update(rule)
}

func (h *ruleHandle) Counters() bpf.Counters { return h.installed.Counters() }
func (h *ruleHandle) Mechanism() string      { return h.mechanism }
func (h *ruleHandle) Disarm() error          { return h.installed.Disarm() }
func (h *ruleHandle) Close() error           { return h.installed.Close() }
