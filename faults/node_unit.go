package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"faultd/bpf"
	"faultd/cgroup"
	"faultd/undo"
)

const mechanismSystemd = "systemd"

// stopPatience is how long a fault waits until a service has stopped: it may take a minute and more to end its work.
const stopPatience = 3 * time.Second

// hasUnit says whether an action is about a service.
func (f Node) hasUnit() bool { return f.Action == ActionPauseUnit || f.Action == ActionStopUnit }

// unit is the cgroup of the service, which may be one that is protected otherwise.
func (f Node) unit(ctx context.Context, env Env, wouldBe string) (cgroup.Target, error) {
	selector, err := cgroup.ParseSelector("unit:" + f.Unit)
	if err != nil {
		return cgroup.Target{}, &ParameterError{"node.unit", err.Error()}
	}
	unit, err := env.Cgroups.Resolve(ctx, selector)
	if err != nil {
		return cgroup.Target{}, &ParameterError{"node.unit", err.Error()}
	}
	for _, p := range []struct {
		pid  int
		what string
	}{{1, "the node's first process"}, {os.Getpid(), "faultd itself"}} {
		if held, err := env.Cgroups.Holds(unit, p.pid); err != nil {
			return cgroup.Target{}, err
		} else if held {
			return cgroup.Target{}, &ParameterError{"node.unit", fmt.Sprintf("%s is in %s, and %s", p.what, f.Unit, wouldBe)}
		}
	}
	return unit, nil
}

func (f Node) unitToPause(ctx context.Context, env Env) (cgroup.Target, error) {
	return f.unit(ctx, env, "would stand still for ever")
}

// pauseUnit freezes the service.
func (f Node) pauseUnit(ctx context.Context, env Env, common Common) (Handle, error) {
	unit, err := f.unitToPause(ctx, env)
	if err != nil {
		return nil, err
	}
	permit, err := newPermit(env, common.Until)
	if err != nil {
		return nil, err
	}
	return startPause(env, unit, common.ID, permit)
}

// canStopUnits says why no service can be stopped.
func canStopUnits(ctx context.Context) error {
	if _, err := undo.UnitState(ctx, "init.scope"); errors.Is(err, undo.ErrNoSystemd) {
		return fmt.Errorf("stop-unit: %w: %w; pause-unit lets a service stand still without", bpf.ErrNotSupported, err)
	} else if err != nil {
		return err
	}
	return nil
}

// unitMeans is what became of a service that was stopped.
var unitMeans = map[undo.Outcome]string{undo.AlreadyGone: "it ran already when the fault ended"}

// canStop refuses a service that cannot be stopped and started again.
func (f Node) canStop(ctx context.Context, env Env) error {
	if _, err := f.unit(ctx, env, "would be stopped with it"); err != nil {
		return err
	}
	if state, err := undo.UnitState(ctx, f.Unit); err != nil {
		return err
	} else if state != "active" {
		return &ParameterError{"node.unit", fmt.Sprintf("%s is %s; only what is active can be stopped, and started again", f.Unit, state)}
	}
	return nil
}

// stopUnit has systemd stop the service.
func (f Node) stopUnit(ctx context.Context, env Env, common Common) (Handle, error) {
	if err := f.canStop(ctx, env); err != nil {
		return nil, err
	}
	action := undo.Action{Version: undo.Version, StartUnit: &undo.StartUnit{Unit: f.Unit}}
	s := &nodeChange{node: f, mechanism: mechanismSystemd, means: unitMeans}
	return s.make(env, common, action, func() error {
		waiting, cancel := context.WithTimeout(ctx, stopPatience)
		defer cancel()
		err := action.StartUnit.Stop(waiting)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			s.notes = append(s.notes, fmt.Sprintf("after %s %s was still stopping", stopPatience, f.Unit))
			return nil
		}
		return err
	})
}
