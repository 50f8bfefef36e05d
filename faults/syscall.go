package faults

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/cgroup"
)

// Syscall makes system calls of the target late, or gives them another result. Exactly one of Delay, Errnos, Drop and Short.
type Syscall struct {
	// Calls are names such as "openat", or groups such as "write" (bpf.Groups).
	Calls []string
	// Delay makes each hurt call sleep.
	Delay Delay
	// Errnos are the errors that calls fail with, without being made: "EIO", or "EIO:3" for three times the weight.
	Errnos []string
	// Drop: calls are not made and pretend success.
	Drop bool
	// Result is what a dropped call returns: a number, or "count". Empty: count where the call writes bytes, else 0.
	Result string
	// Short calls are made with a smaller count: "50%" of it, or "512" bytes at most.
	Short string
	// Filter says which calls of the target are meant.
	Filter Filter
}

func newSyscall(spec *v1.FaultSpec) (Fault, error) {
	s := spec.GetSyscall()
	if s == nil {
		return nil, nil
	}
	return Syscall{
		Calls: s.GetCalls(), Delay: Delay{s.GetDelay(), s.GetJitter(), s.GetDistribution()}, Errnos: s.GetErrnos(),
		Drop: s.GetDrop(), Result: s.GetResult(), Short: s.GetShort(), Filter: newFilter(s.GetFilter()),
	}, nil
}

func syscallParameters() []Parameter {
	return append([]Parameter{
		{"calls", "names", "the calls that are hurt, such as openat, or groups such as write"},
		{"delay", "duration", "how long each sleeps, at most 5s"},
		{"jitter", "duration", "how far the delay is spread"},
		{"distribution", "uniform|normal|exponential|pareto", "how it is spread; uniform: delay - jitter to delay + jitter"},
		{"errnos", "names", "errors that the calls fail with, such as EIO; EIO:3 is three times as likely as another"},
		{"drop", "bool", "the calls are not made and pretend success"},
		{"result", "number|count", "what a dropped call returns; empty: the count where it writes bytes, else 0"},
		{"short", "percent|bytes", "calls are made with a smaller count, such as 50% or 512"},
	}, filterParameters()...)
}

// Validate implements Fault.
func (s Syscall) Validate() error {
	_, _, err := s.rule(Common{})
	return err
}

// rule is the kernel's, but for the conditions on arguments, which need the kernel.
func (s Syscall) rule(common Common) (bpf.Rule, bpf.Calls, error) {
	rule := common.rule()
	calls, err := bpf.ExpandCalls(s.Calls)
	if err != nil {
		return rule, calls, fmt.Errorf("calls: %w", err)
	}
	if err := s.harm(&rule, calls); err != nil {
		return rule, calls, err
	}
	rule.Filter, err = s.Filter.rule()
	return rule, calls, err
}

// harm fills in what is done.
func (s Syscall) harm(rule *bpf.Rule, calls bpf.Calls) error {
	if err := exactlyOne([]choice{{"delay", s.Delay.given()}, {"errnos", len(s.Errnos) > 0}, {"drop", s.Drop}, {"short", s.Short != ""}}); err != nil {
		return err
	}
	if s.Result != "" && !s.Drop {
		return fmt.Errorf("result: %s is what a dropped call returns, and drop is not given", s.Result)
	}
	switch {
	case s.Delay.given():
		return s.Delay.fill(rule)
	case len(s.Errnos) > 0:
		return fillErrnos(rule, s.Errnos, calls.All())
	case s.Drop:
		return s.pretend(rule, calls)
	default:
		return s.shorten(rule, calls)
	}
}

func fillErrnos(rule *bpf.Rule, errnos []string, calls []string) error {
	rule.Action = bpf.ActionErrno
	var err error
	if rule.Errnos, err = parseErrnos(errnos); err != nil {
		return err
	}
	for _, call := range calls {
		if call == "brk" {
			return errors.New("errnos: brk returns an address and no error: its caller would take the error for one; use mmap")
		}
	}
	return nil
}

func (s Syscall) pretend(rule *bpf.Rule, calls bpf.Calls) error {
	rule.Action, rule.Count = bpf.ActionPretend, s.Result == "" || s.Result == "count"
	if s.Result == "count" {
		for _, call := range calls.All() {
			if !bpf.WritesBytes(call) {
				return fmt.Errorf("result: count has no meaning for %s, which does not return how many bytes it wrote; give a number", call)
			}
		}
	}
	if rule.Count {
		return nil
	}
	n, err := strconv.ParseInt(s.Result, 10, 64)
	if err != nil || n > math.MaxInt32 {
		return fmt.Errorf("result: %q must be \"count\" or a number up to %d", s.Result, math.MaxInt32)
	}
	if n < 0 {
		return fmt.Errorf("result: %d would be an error; use errnos", n)
	}
	rule.Result = n
	return nil
}

// shorten reads "50%" or "512".
func (s Syscall) shorten(rule *bpf.Rule, calls bpf.Calls) error {
	rule.Action = bpf.ActionShort
	// Others of a group are left out, as whatever cannot be reached.
	for _, call := range calls.Named {
		if !bpf.TakesCount(call) {
			return fmt.Errorf("short: %s has no count that could be smaller; possible are read, write, pread64, pwrite64, recvfrom and sendto", call)
		}
	}
	if !slices.ContainsFunc(calls.All(), bpf.TakesCount) {
		return fmt.Errorf("short: %s have no count that could be smaller; possible are read, write, pread64, pwrite64, recvfrom and sendto", strings.Join(calls.All(), ", "))
	}
	if share, ok := strings.CutSuffix(s.Short, "%"); ok {
		percent, err := strconv.ParseFloat(share, 64)
		if err != nil || !(percent > 0 && percent < 100) {
			return fmt.Errorf("short: %q must be between 0%% and 100%%, without them", s.Short)
		}
		rule.Share, rule.Result = true, max(1, int64(percent/100*(1<<16)))
		return nil
	}
	n, err := strconv.ParseInt(s.Short, 10, 32)
	if err != nil || n < 1 {
		return fmt.Errorf("short: %q must be a percentage such as 50%% or a number of bytes from 1", s.Short)
	}
	rule.Result = n
	return nil
}

// resolved is rule, with the conditions on arguments as this kernel has them.
func (s Syscall) resolved(common Common) (bpf.Rule, bpf.Calls, error) {
	rule, calls, err := s.rule(common)
	if err != nil {
		return rule, calls, err
	}
	if err := s.checkDescriptors(calls); err != nil {
		return rule, calls, err
	}
	rule.Filter.Predicates, err = s.Filter.predicates(calls)
	return rule, calls, err
}

// checkDescriptors refuses a descriptor's number or kind if no call is about one: nobody would be hurt.
func (s Syscall) checkDescriptors(calls bpf.Calls) error {
	field, asked := "filter.fd", s.Filter.FD
	if asked == "" {
		field, asked = "filter.fdTypes", strings.Join(s.Filter.FDTypes, ",")
	}
	if asked == "" || slices.ContainsFunc(calls.All(), bpf.TakesDescriptor) {
		return nil
	}
	return &ParameterError{field, fmt.Sprintf("%s: no descriptor is among the arguments of %s", asked, strings.Join(calls.All(), ", "))}
}

// Mechanism implements Fault.
func (s Syscall) Mechanism(_ context.Context, env Env) (string, error) {
	rule, calls, err := s.resolved(Common{Percent: 100})
	if err != nil {
		return "", err
	}
	return callMechanisms(env, bpf.Files{Calls: calls}, rule)
}

// Inject implements Fault.
func (s Syscall) Inject(_ context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	rule, calls, err := s.resolved(common)
	if err != nil {
		return nil, err
	}
	installed, reach, err := installCalls(env, target, bpf.Files{Calls: calls}, rule)
	if err != nil {
		return nil, err
	}
	return &ruleHandle{installed: installed, mechanism: reach.Mechanisms.String(), notes: reachNotes(env, target, installed, reach), rule: func(f Fault, common Common) (bpf.Rule, error) {
		rule, _, err := f.(Syscall).resolved(common)
		return rule, err
	}}, nil
}
