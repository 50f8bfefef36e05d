package faults

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
)

// KindNode hurts the whole node. The daemon refuses it unless its configuration allows it.
const KindNode = "node"

// Node hurts the node as a whole.
type Node struct {
	// Action is one of the actions below.
	Action string
	// Unit is the service, with ActionPauseUnit and ActionStopUnit.
	Unit string
	// Amount is how much memory is taken, with ActionMemory, as of MemoryLoad.
	Amount string
	// Floor is how much memory is always left, with ActionMemory; empty: as of MemoryLoad.
	Floor string
	// Offset is by how much the clock is set ahead, with ActionClockJump; negative: back.
	Offset time.Duration
	// Drift is by how many millionths the clocks run faster, with ActionClockDrift; negative: slower.
	Drift float64
	// Meant says that somebody knows what is about to happen.
	Meant bool
}

// Actions of Node.
const (
	// ActionReboot, ActionPowerOff and ActionPanic end this boot, at once.
	ActionReboot   = "reboot"
	ActionPowerOff = "power-off"
	ActionPanic    = "panic"
	// ActionHang keeps all processors busy with work that goes before all else.
	ActionHang = "hang"
	// ActionPauseUnit lets a service stand still.
	ActionPauseUnit = "pause-unit"
	// ActionStopUnit has systemd stop a service, and start it again.
	ActionStopUnit = "stop-unit"
	// ActionMemory takes memory of the node.
	ActionMemory = "memory"
	// ActionClockJump sets the node's clock.
	ActionClockJump = "clock-jump"
	// ActionClockDrift has the node's clocks run faster or slower.
	ActionClockDrift = "clock-drift"
)

func actions() []string {
	return []string{ActionReboot, ActionPowerOff, ActionPanic, ActionHang, ActionPauseUnit, ActionStopUnit, ActionMemory, ActionClockJump, ActionClockDrift}
}

func newNode(spec *v1.FaultSpec) (Fault, error) {
	s := spec.GetNode()
	if s == nil {
		return nil, nil
	}
	if err := noDice(spec, "action", "there is one node"); err != nil {
		return nil, err
	}
	offset, err := parseOffset(s.GetOffset())
	if err != nil {
		return nil, err
	}
	drift, err := parseDrift(s.GetDrift())
	if err != nil {
		return nil, err
	}
	return Node{Action: s.GetAction(), Unit: s.GetUnit(), Amount: s.GetAmount(), Floor: s.GetFloor(), Offset: offset, Drift: drift, Meant: s.GetIMeanThisNode()}, nil
}

func nodeParameters() []Parameter {
	return []Parameter{
		{"action", strings.Join(actions(), "|"), "what happens to the node; the first three at once, without stopping or saving anything first"},
		{"unit", "name", "with pause-unit and stop-unit the service that stands still, or is stopped, until the fault ends, such as kubelet.service"},
		{"amount", "amount", "with memory how much is taken: 8GiB, or 80% of available"},
		{"floor", "amount", "with memory how much is always left; empty: 64MiB"},
		{"offset", "duration", "with clock-jump by how much the clock is set ahead, or with a minus back: 1h, -10m"},
		{"drift", "rate", "with clock-drift by how much the clocks run faster, or with a minus slower: 200ppm, -5%"},
		{"iMeanThisNode", "bool", "needed: says that the whole node is meant"},
	}
}

// Validate implements Fault.
func (f Node) Validate() error {
	switch {
	case f.Action == "":
		return fmt.Errorf("action: missing; give one of %s", strings.Join(actions(), ", "))
	case !slices.Contains(actions(), f.Action):
		return fmt.Errorf("action: %q must be one of %s", f.Action, strings.Join(actions(), ", "))
	case !f.Meant:
		return fmt.Errorf("iMeanThisNode: missing; %s hurts everything on this node, so say that it is meant", f.Action)
	case f.hasUnit() && !strings.HasSuffix(f.Unit, ".service"):
		return fmt.Errorf("unit: %q must be the name of a service, such as kubelet.service", f.Unit)
	case !f.hasUnit() && f.Unit != "":
		return fmt.Errorf("unit: it was given with %s; only pause-unit and stop-unit have one", f.Action)
	case f.Action != ActionMemory && (f.Amount != "" || f.Floor != ""):
		return fmt.Errorf("amount: amount or floor was given with %s; only memory has them", f.Action)
	case (f.Action == ActionClockJump) != (f.Offset != 0):
		return errors.New("offset: clock-jump needs one, such as 1h or -10m, and only clock-jump has one")
	case (f.Action == ActionClockDrift) != (f.Drift != 0):
		return errors.New("drift: clock-drift needs one, such as 200ppm or -5%, and only clock-drift has one")
	case f.Action == ActionMemory:
		_, err := f.memory()
		return err
	}
	return nil
}

// memory is the load that takes the node's memory.
func (f Node) memory() (Memory, error) {
	l := &MemoryLoad{Amount: f.Amount}
	if f.Floor != "" {
		floor, err := parseAmount("floor", f.Floor, false)
		if err != nil {
			return Memory{}, err
		}
		l.Floor = &floor
	}
	_, _, of, err := l.parse()
	if err == nil && of == "limit" {
		err = fmt.Errorf("load: %q is of a limit, which the node has not; write a percentage of available", f.Amount)
	}
	if err != nil {
		_, problem, _ := strings.Cut(err.Error(), ": ")
		return Memory{}, errors.New("amount: " + problem)
	}
	return Memory{Load: l}, nil
}

// ofAmount names the field of a refused load of memory as it is called here.
func ofAmount(err error) error {
	var parameter *ParameterError
	if errors.As(err, &parameter) && parameter.Field == "memory.load" {
		return &ParameterError{"node.amount", parameter.Problem}
	}
	return err
}

// hang is the load that lets nothing else run.
func (f Node) hang() CPU {
	return CPU{Load: &CPULoad{Processors: float64(runtime.NumCPU()), RealTime: true}}
}

// Mechanism implements Fault.
func (f Node) Mechanism(ctx context.Context, _ Env) (string, error) {
	switch f.Action {
	case ActionReboot, ActionPowerOff:
		return mechanismReboot, canReboot()
	case ActionPanic:
		return mechanismSysRq, canSysRq()
	case ActionPauseUnit:
		return mechanismFreeze, nil
	case ActionStopUnit:
		return mechanismSystemd, canStopUnits(ctx)
	case ActionClockJump:
		return mechanismSetTime, canSetTime(f.Action)
	case ActionClockDrift:
		return mechanismAdjtimex, canSetTime(f.Action)
	}
	return mechanismBurner, nil
}

// Inject implements Fault.
func (f Node) Inject(ctx context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	switch f.Action {
	case ActionHang:
		inner := f.hang()
		handle, err := inner.startLoad(env, target, common)
		return f.around(inner, handle, err)
	case ActionMemory:
		inner, err := f.memory()
		if err != nil {
			return nil, err
		}
		handle, err := inner.startLoad(env, target, common)
		return f.around(inner, handle, ofAmount(err))
	case ActionPauseUnit:
		handle, err := f.pauseUnit(ctx, env, common)
		return f.around(Process{Pause: true}, handle, err)
	}
	if _, err := f.Mechanism(ctx, env); err != nil {
		return nil, err
	}
	switch f.Action {
	case ActionStopUnit:
		return f.stopUnit(ctx, env, common)
	case ActionClockJump:
		return startClockJump(f, env, common)
	case ActionClockDrift:
		return startClockDrift(f, env, common)
	}
	return startDown(f, env, common)
}

// aroundNode is a handle of another fault that does a node fault's work.
type aroundNode struct {
	Handle
	node  Node
	inner Fault
}

func (f Node) around(inner Fault, handle Handle, err error) (Handle, error) {
	if err != nil {
		return nil, ofKind(KindNode, err)
	}
	return &aroundNode{handle, f, inner}, nil
}

// Update implements Handle: only the end can change.
func (h *aroundNode) Update(fault Fault, common Common) error {
	if err := onlyEnd("node.action", "fault of this kind", h.node, fault); err != nil {
		return err
	}
	return h.Handle.Update(h.inner, common)
}
