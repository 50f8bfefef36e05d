package bpf

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// part is what one mechanism serves of a fault.
type part struct {
	mechanism SyscallMechanism
	calls     []string
}

// Calls are system calls by name. The grouped ones come from a group such as "write": one that cannot be reached is left out
// and reported, as long as any of the fault's calls can be; the named ones are all reached or none.
type Calls struct{ Named, Grouped []string }

// All gives both.
func (c Calls) All() []string { return slices.Concat(c.Named, c.Grouped) }

// plan is how calls are reached.
type plan struct {
	parts []part
	// held keeps attached what was tried, until it is closed.
	held closers
	// left says which grouped calls cannot be reached, and why.
	left []string
}

// plan finds for each call the first mechanism that can be attached to it, by attaching; all stays attached until the caller
// closes held. Without a mechanism the error wraps ErrNotSupported and says per mechanism why not, and what would work. Call
// with k.mu held.
func (k *Kernel) plan(t Target, calls Calls, r Rule) (p plan, err error) {
	for i, call := range calls.All() {
		m, release, err := k.choose(t, call, r)
		if errors.Is(err, ErrNotSupported) && i >= len(calls.Named) {
			p.left = append(p.left, err.Error())
			continue
		}
		if err != nil {
			return p, errors.Join(fmt.Errorf("%w. %s", err, nearest(calls.All(), r)), p.held.Close())
		}
		p.add(m, call, release)
	}
	if len(p.parts) == 0 {
		return p, fmt.Errorf("%w: %s. %s", ErrNotSupported, strings.Join(p.left, "; "), nearest(calls.All(), r))
	}
	return p, nil
}

func (p *plan) add(m SyscallMechanism, call string, release closerFunc) {
	p.held = append(p.held, release)
	i := slices.IndexFunc(p.parts, func(known part) bool { return known.mechanism == m })
	if i < 0 {
		i, p.parts = len(p.parts), append(p.parts, part{mechanism: m})
	}
	p.parts[i].calls = append(p.parts[i].calls, call)
}

func (p plan) mechanisms() (m Mechanisms) {
	for _, one := range p.parts {
		m = append(m, one.mechanism)
	}
	return m
}

// choose goes through the mechanisms, best first, to the first that can be attached to a call, and attaches it.
func (k *Kernel) choose(t Target, call string, r Rule) (SyscallMechanism, closerFunc, error) {
	var reasons []string
	for _, m := range mechanismsFor(r.Action) {
		err := k.precheck(m, call, r)
		if err == nil {
			attached, attachErr := k.attachSyscall(t, m, []string{call})
			if attachErr == nil {
				return m, attached.Close, nil
			}
			err = attachErr
		}
		reasons = append(reasons, fmt.Sprintf("%s: %v", m, err))
	}
	return "", nil, fmt.Errorf("%s: %w: %s", call, ErrNotSupported, strings.Join(reasons, "; "))
}

// checkCalls refuses what no kernel can do.
func checkCalls(calls Calls, r Rule) error {
	if _, err := CallNumbers(calls.All()); err != nil {
		return fmt.Errorf("calls: %w", err)
	}
	if most := r.longest(); r.Action == ActionDelay && (most <= 0 || most > MaxDelay) {
		return fmt.Errorf("delay %v: must be above 0 and at most %v, jitter included", most, MaxDelay)
	}
	return nil
}

// CallMechanisms says by which mechanisms this kernel would reach the calls; it tries, and leaves nothing attached. Without one
// the error wraps ErrNotSupported and says per mechanism why not, and what would work.
func (k *Kernel) CallMechanisms(calls Calls, r Rule) (Mechanisms, error) {
	if err := checkCalls(calls, r); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	p, err := k.plan(Target{}, calls, r)
	if err != nil {
		return nil, err
	}
	return p.mechanisms(), p.held.Close()
}

// NeedsGuard says whether the rule puts threads to sleep by these mechanisms; then there must be a guard (package guard).
func (m Mechanisms) NeedsGuard(r Rule) bool {
	return slices.ContainsFunc(m, r.needsGuard)
}

// Reach is how an installed rule reaches its calls.
type Reach struct {
	Mechanisms Mechanisms
	// Left are the grouped calls that cannot be reached, each with the reasons.
	Left []string
	// Hidden says which calls are partly out of reach: where the target makes them, and why.
	Hidden []string
}

// InstallCalls puts a rule on calls of the target; r.Calls is set here. The caller closes the result. The error is that of
// CallMechanisms.
func (k *Kernel) InstallCalls(t Target, calls Calls, r Rule) (Parts, Reach, error) {
	if err := checkCalls(calls, r); err != nil {
		return nil, Reach{}, err
	}
	if err := k.learnShapes(calls.All(), r); err != nil {
		return nil, Reach{}, err
	}
	k.mu.Lock()
	p, err := k.plan(t, calls, r)
	k.mu.Unlock()
	if err != nil {
		return nil, Reach{}, err
	}
	installed, err := k.installParts(t, p.parts, r)
	k.mu.Lock()
	defer k.mu.Unlock()
	if closeErr := p.held.Close(); err == nil {
		err = closeErr
	}
	return installed, Reach{p.mechanisms(), p.left, k.hidden(t, p.parts)}, err
}

func (k *Kernel) installParts(t Target, parts []part, r Rule) (installed Parts, err error) {
	for _, p := range parts {
		in, err := k.installPart(t, p, r)
		if err != nil {
			if len(installed) > 0 {
				err = errors.Join(err, installed.Close())
			}
			return nil, err
		}
		installed = append(installed, in)
		r.shares = installed[0]
	}
	return installed, nil
}

func (k *Kernel) installPart(t Target, p part, r Rule) (*Installed, error) {
	var err error
	if r.Calls, err = CallNumbers(p.calls); err != nil {
		return nil, err
	}
	r.mechanism = p.mechanism.number()
	var missed *misses
	// Processes may have mapped code after it was looked at, and before there was a rule to be told for.
	rest := func() ([]func() error, error) { return nil, k.followMappings(t, p.mechanism, p.calls) }
	in, err := k.install(r.hook(), t, r, func() ([]func() error, error) {
		attached, err := k.attachSyscall(t, p.mechanism, p.calls)
		if err != nil {
			return nil, err
		}
		missed = k.missesSince(t, p.mechanism, p.calls)
		return []func() error{func() error {
			missed.finish()
			return attached.Close()
		}}, nil
	}, rest)
	if err != nil {
		return nil, err
	}
	in.missed = missed
	return in, nil
}
