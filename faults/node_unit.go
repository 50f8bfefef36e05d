package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
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
	for pid, what := range map[int]string{1: "the node's first process", os.Getpid(): "faultd itself"} {
		if held, err := env.Cgroups.Holds(unit, pid); err != nil {
			return cgroup.Target{}, err
		} else if held {
			return cgroup.Target{}, &ParameterError{"node.unit", fmt.Sprintf("%s is in %s, and %s", what, f.Unit, wouldBe)}
		}
	}
	return unit, nil
}

// pauseUnit freezes the service.
func (f Node) pauseUnit(ctx context.Context, env Env, common Common) (Handle, error) {
	unit, err := f.unit(ctx, env, "would stand still for ever")
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

// stoppedUnit is a service that systemd was told to stop. The journal knows of it before, and the guard has it started when the daemon is
// killed or stopped, or the switch is off.
type stoppedUnit struct {
	node  Node
	start *change
	began time.Time

	// mu guards what follows.
	mu    sync.Mutex
	over  bool
	notes []string
}

func (f Node) stopUnit(ctx context.Context, env Env, common Common) (Handle, error) {
	if _, err := f.unit(ctx, env, "would be stopped with it"); err != nil {
		return nil, err
	}
	if state, err := undo.UnitState(ctx, f.Unit); err != nil {
		return nil, err
	} else if state != "active" {
		return nil, &ParameterError{"node.unit", fmt.Sprintf("%s is %s; only what is active can be stopped, and started again", f.Unit, state)}
	}
	permit, err := newPermit(env, common.Until)
	if err != nil {
		return nil, err
	}
	action := undo.Action{Version: undo.Version, StartUnit: &undo.StartUnit{Unit: f.Unit}}
	start, err := begin(env, common.ID, action)
	if err != nil {
		return nil, err
	}
	s := &stoppedUnit{node: f, start: start, began: time.Now()}
	if !permit.given() {
		return nil, errors.Join(bpf.ErrKilled, s.Close())
	}
	waiting, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	if err := action.StartUnit.Stop(waiting); errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		s.notes = append(s.notes, fmt.Sprintf("after %s %s was still stopping", stopPatience, f.Unit))
	} else if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Update implements Handle: only the end can change, which the daemon sees to.
func (s *stoppedUnit) Update(fault Fault, _ Common) error {
	return onlyEnd("node.action", "fault of this kind", s.node, fault)
}

// Counters implements Handle.
func (s *stoppedUnit) Counters() bpf.Counters {
	return bpf.Counters{Evaluated: 1, Matched: 1, Injected: 1, First: s.began}
}

// Mechanism implements Handle.
func (s *stoppedUnit) Mechanism() string { return mechanismSystemd }

// Notes implements Handle.
func (s *stoppedUnit) Notes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.notes
}

// Disarm implements Handle: it has the service started, and does not wait until it has.
func (s *stoppedUnit) Disarm() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return nil
	}
	outcome, err := s.start.undo()
	if err != nil {
		return err
	}
	s.over = true
	if outcome == undo.AlreadyGone {
		s.notes = append(s.notes, "it ran already when the fault ended")
	}
	return nil
}

// Close implements Handle.
func (s *stoppedUnit) Close() error {
	if err := s.Disarm(); err != nil {
		return err
	}
	return s.start.strike()
}
