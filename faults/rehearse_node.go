package faults

import (
	"context"

	"faultd/cgroup"
)

// Processes must be the target's, and what is done to the node possible now.
var (
	_ Rehearser = Process{}
	_ Rehearser = Node{}
)

// Rehearse implements Rehearser.
func (p Process) Rehearse(env Env, target cgroup.Target) error {
	if p.Pause {
		return canFreeze(env, target)
	}
	_, err := p.only(env.Cgroups, target)
	return err
}

// Rehearse implements Rehearser.
func (f Node) Rehearse(env Env, target cgroup.Target) error {
	ctx := context.Background()
	switch f.Action {
	case ActionHang:
		return ofKind(KindNode, f.hang().Rehearse(env, target))
	case ActionMemory:
		inner, err := f.memory()
		if err == nil {
			err = ofAmount(inner.Rehearse(env, target))
		}
		return ofKind(KindNode, err)
	case ActionPauseUnit:
		unit, err := f.unitToPause(ctx, env)
		if err == nil {
			err = canFreeze(env, unit)
		}
		return ofKind(KindNode, err)
	case ActionStopUnit:
		return f.canStop(ctx, env)
	case ActionClockJump, ActionClockDrift:
		return onlyClock(env)
	}
	return nil
}
