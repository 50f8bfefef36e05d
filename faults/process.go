package faults

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/cgroup"
)

// Process sends signals to processes of the target, kills all of them, or lets them stand still.
type Process struct {
	// Signal is what each chosen process gets; 0: none. Exactly one of Signal, Kill and Pause.
	Signal unix.Signal
	// Kill ends all processes of the target at once.
	Kill bool
	// Pause lets all processes of the target stand still until the end.
	Pause bool
	// Executables are globs for the path of a process' program, as it sees it; none: all.
	Executables []string
	// CommandLine is for the arguments, joined by blanks; nil: all.
	CommandLine *regexp.Regexp
	// Count is how many processes are chosen each time; 0: all that fit.
	Count int
	// Every is the time from one time to the next; 0: once.
	Every time.Duration
	// Starts: only processes that come into the target while the fault runs, each once.
	Starts bool
	// Init: also the first process of a container.
	Init bool
	// PIDs are the only ones that are meant, all of the target; none: all.
	PIDs []uint32

	executables *bpf.GlobTable
}

// leastEvery bounds what looking through the target costs.
const leastEvery = 100 * time.Millisecond

func newProcess(spec *v1.FaultSpec) (Fault, error) {
	s := spec.GetProcess()
	if s == nil {
		return nil, nil
	}
	p := Process{Kill: s.GetKill(), Pause: s.GetPause(), Executables: s.GetExecutables(), Count: int(s.GetCount()), Starts: s.GetStarts(), Init: s.GetInit(), PIDs: s.GetPids()}
	var err error
	if s.GetSignal() != "" {
		if p.Signal, err = parseSignal(s.GetSignal()); err != nil {
			return nil, err
		}
	} else if err := noDice(spec, "signal", "kill and pause are for all processes of the target"); err != nil {
		return nil, err
	}
	if s.GetCommandLine() != "" {
		if p.CommandLine, err = regexp.Compile(s.GetCommandLine()); err != nil {
			return nil, fmt.Errorf("commandLine: %q is no regular expression: %w", s.GetCommandLine(), err)
		}
	}
	if s.GetEvery() != "" {
		if p.Every, err = ParseDuration("every", s.GetEvery(), leastEvery, maxRamp); err != nil {
			return nil, err
		}
	}
	if len(p.Executables) > 0 {
		if p.executables, err = bpf.CompileGlobs(p.Executables, nil); err != nil {
			return nil, fmt.Errorf("executables: %w", err)
		}
	}
	return p, nil
}

// parseSignal finds a signal by its name. Those that stop a process would outlive the fault.
func parseSignal(name string) (unix.Signal, error) {
	signal := unix.SignalNum(name)
	switch signal {
	case 0:
		return 0, fmt.Errorf("signal: %q is unknown; write a name as signal(7) lists them, such as SIGTERM or SIGKILL", name)
	case unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
		return 0, fmt.Errorf("signal: %s would leave the process stopped when the fault has ended; pause lets the target stand still until then", name)
	}
	return signal, nil
}

func processParameters() []Parameter {
	return []Parameter{
		{"signal", "name", "the signal that each chosen process gets, such as SIGTERM; exactly one of signal, kill and pause"},
		{"kill", "bool", "all processes of the target are killed at once"},
		{"pause", "bool", "all processes of the target stand still until the fault ends"},
		{"executables", "globs", "paths of programs, as the processes see them; none: all"},
		{"commandLine", "regexp", "for the arguments, joined by blanks; empty: all"},
		{"pids", "numbers", "only these processes of the target, by their ids as faultd sees them; none: all"},
		{"count", "number", "at most so many processes each time, chosen by chance; 0: all that fit"},
		{"every", "duration", "again and again, each time after so long; empty: once"},
		{"starts", "bool", "only processes that come into the target while the fault runs, each once"},
		{"init", "bool", "also the first process of a container, with which the container ends"},
	}
}

// Validate implements Fault.
func (p Process) Validate() error {
	deeds := 0
	for _, given := range []bool{p.Signal != 0, p.Kill, p.Pause} {
		if given {
			deeds++
		}
	}
	if deeds != 1 {
		return fmt.Errorf("signal: exactly one of signal, kill and pause must be given, not %d", deeds)
	}
	if p.Signal == 0 && (len(p.Executables) > 0 || p.CommandLine != nil || len(p.PIDs) > 0 || p.Count > 0 || p.Starts || p.Init) {
		return errors.New("signal: missing; executables, commandLine, pids, count, starts and init choose who gets a signal, and kill and pause are for all processes of the target")
	}
	if p.Pause && p.Every > 0 {
		return fmt.Errorf("every: %s was given with pause, which lasts until the fault ends", p.Every)
	}
	if p.Starts && p.Every > 0 {
		return fmt.Errorf("every: %s was given with starts, which is whenever a process starts", p.Every)
	}
	if p.Starts && len(p.PIDs) > 0 {
		return fmt.Errorf("pids: %d was given with starts, which is about processes that are not there yet", p.PIDs[0])
	}
	return nil
}

// Mechanisms of Process.
const (
	mechanismPidfd  = "pidfd"
	mechanismFreeze = "cgroup.freeze"
)

// Mechanism implements Fault. All kernels that faultd runs on have it: cgroup.freeze since 5.2, pidfd since 5.3.
func (p Process) Mechanism(context.Context, Env) (string, error) {
	if p.Pause {
		return mechanismFreeze, nil
	}
	return mechanismPidfd, nil
}

// Inject implements Fault. The first time is over when it returns.
func (p Process) Inject(_ context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	permit, err := newPermit(env, common.Until)
	if err != nil {
		return nil, err
	}
	switch {
	case p.Pause:
		return startPause(env, target, common.ID, permit)
	case p.Kill:
		return startRounds(p, &killing{tree: env.Cgroups, target: target, permit: permit, within: killWithin}, permit)
	}
	only, err := p.only(env.Cgroups, target)
	if err != nil {
		return nil, err
	}
	dice, err := bpf.NewDice(common.rule())
	if err != nil {
		return nil, err
	}
	s := newSignalling(p, env, target, dice, common.Seed, permit)
	s.only = only
	return startRounds(p, s, permit)
}

// only gives the start times of PIDs, as another process may get such a number later; nil: all are meant. One that is not in the target is refused.
func (p Process) only(tree *cgroup.Hierarchy, target cgroup.Target) (only map[int]uint64, err error) {
	if len(p.PIDs) == 0 {
		return nil, nil
	}
	only = map[int]uint64{}
	for _, pid := range p.PIDs {
		process, err := tree.Describe(int(pid))
		if err != nil && !errors.Is(err, cgroup.ErrNotFound) {
			return nil, listError(err)
		}
		held := err == nil
		if held {
			if held, err = tree.Holds(target, int(pid)); err != nil {
				return nil, listError(err)
			}
		}
		if !held {
			return nil, &ParameterError{"process.pids", fmt.Sprintf("process %d is not in the target, %s; it has %s", pid, target.Path, someOf(tree, target))}
		}
		only[int(pid)] = process.StartTime
	}
	return only, nil
}

// shownPIDs is how many processes a message names.
const shownPIDs = 10

// someOf names processes of the target for a message.
func someOf(tree *cgroup.Hierarchy, target cgroup.Target) string {
	pids, err := tree.Processes(target)
	switch {
	case err != nil || len(pids) == 0:
		return "none"
	case len(pids) > shownPIDs:
		return fmt.Sprintf("%v and %d more", pids[:shownPIDs], len(pids)-shownPIDs)
	}
	return fmt.Sprint(pids)
}
