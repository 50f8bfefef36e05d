package faults

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/cgroup"
)

// Syscall delays system calls of the target.
type Syscall struct {
	// Calls are names such as "openat".
	Calls []string
	// Delay is how long each hurt call sleeps, at most bpf.MaxDelay with its jitter.
	Delay time.Duration
	// Jitter spreads the delay evenly over delay - jitter .. delay + jitter.
	Jitter time.Duration
}

func newSyscall(spec *v1.FaultSpec) (Fault, error) {
	s := spec.GetSyscall()
	if s == nil {
		return nil, nil
	}
	delay, err := ParseDuration("delay", s.GetDelay(), time.Microsecond, bpf.MaxDelay)
	if err != nil {
		return nil, err
	}
	var jitter time.Duration
	if s.GetJitter() != "" {
		if jitter, err = ParseDuration("jitter", s.GetJitter(), 0, bpf.MaxDelay); err != nil {
			return nil, err
		}
	}
	return Syscall{Calls: s.GetCalls(), Delay: delay, Jitter: jitter}, nil
}

func syscallParameters() []Parameter {
	return []Parameter{
		{"calls", "names", "the calls that are delayed, such as openat"},
		{"delay", "duration", "how long each sleeps, at most 5s"},
		{"jitter", "duration", "spreads the delay evenly over delay - jitter .. delay + jitter"},
	}
}

// Validate implements Fault.
func (s Syscall) Validate() error {
	if s.Jitter > s.Delay {
		return fmt.Errorf("jitter: %s is more than the delay of %s", s.Jitter, s.Delay)
	}
	if s.Delay+s.Jitter > bpf.MaxDelay {
		return fmt.Errorf("delay: with jitter it is %s; at most %s are possible", s.Delay+s.Jitter, bpf.MaxDelay)
	}
	_, err := s.rule(Common{})
	return err
}

func (s Syscall) rule(common Common) (bpf.Rule, error) {
	rule := common.rule()
	rule.Action, rule.Delay, rule.Jitter = bpf.ActionDelay, s.Delay, s.Jitter
	var err error
	if rule.Calls, err = bpf.CallNumbers(s.Calls); err != nil {
		return rule, fmt.Errorf("calls: %w", err)
	}
	return rule, nil
}

// Mechanism implements Fault.
func (s Syscall) Mechanism(_ context.Context, env Env) (string, error) {
	m, err := env.Kernel.SyscallMechanism(s.Calls, s.Delay+s.Jitter)
	if err == nil && m.Sleeps() {
		err = env.CanSleep()
	}
	return string(m), err
}

// Inject implements Fault.
func (s Syscall) Inject(_ context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	rule, err := s.rule(common)
	if err != nil {
		return nil, err
	}
	installed, mechanism, err := env.Kernel.InstallDelay(kernelTarget(env, target), s.Calls, rule)
	if err != nil {
		return nil, err
	}
	if mechanism.Sleeps() {
		if err := env.CanSleep(); err != nil {
			return nil, errors.Join(err, installed.Close())
		}
	}
	return &ruleHandle{installed, string(mechanism), func(f Fault, common Common) (bpf.Rule, error) { return f.(Syscall).rule(common) }}, nil
}
