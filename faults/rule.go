package faults

import (
	"slices"

	"faultd/bpf"
	"faultd/cgroup"
)

// rule starts a kernel rule with what all faults share.
func (c Common) rule() bpf.Rule {
	return bpf.Rule{
		Until: c.Until, Percent: c.Percent, Seed: c.Seed, EveryNth: c.EveryNth, SkipFirst: c.SkipFirst, MaxHits: c.MaxHits, Rate: c.Rate,
		PerThread: c.Dice == DiceThread, PerProcess: c.Dice == DiceProcess,
	}
}

func kernelTarget(env Env, t cgroup.Target) bpf.Target {
	return bpf.Target{Ancestors: t.Ancestors, Dir: env.Cgroups.Dir(t)}
}

// installed is one kernel rule, or several as one: *bpf.Installed and bpf.Parts.
type installed interface {
	Update(bpf.Rule) error
	Counters() bpf.Counters
	Harmed() bool
	// Uncovered are notes on devices and network namespaces of the target that have come since and could not be had.
	Uncovered() []string
	Disarm() error
	Close() error
}

// ruleHandle is the handle of a fault that lives in the kernel's rules alone.
type ruleHandle struct {
	installed installed
	mechanism string
	notes     []string
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
func (h *ruleHandle) Harmed() bool           { return h.installed.Harmed() }
func (h *ruleHandle) Mechanism() string      { return h.mechanism }
func (h *ruleHandle) Disarm() error          { return h.installed.Disarm() }
func (h *ruleHandle) Close() error           { return h.installed.Close() }

// Notes are those of the beginning, and what came since and is out of reach.
func (h *ruleHandle) Notes() []string {
	return slices.Concat(h.notes, arrivalNotes(h.installed.Counters().Arrived), h.installed.Uncovered())
}
