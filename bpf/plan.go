package bpf

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// part is what one mechanism serves of a fault: calls, or what security hooks are about in any call.
type part struct {
	mechanism SyscallMechanism
	calls     []string
	ops       Ops
}

// Calls are system calls by name. The grouped ones come from a group such as "write": one that cannot be reached is left out
// and reported, as long as any of the fault's calls can be; the named ones are all reached or none.
type Calls struct{ Named, Grouped []string }

// All gives both.
func (c Calls) All() []string { return slices.Concat(c.Named, c.Grouped) }

// Files is what is done to files: Ops fail by their security hooks, in whatever call; what has no hook goes by Calls.
type Files struct {
	Ops   Ops
	Calls Calls
}

// lookedAt are the calls whose arguments may be looked at: of hooks that know no path the descriptor leads to it.
func (f Files) lookedAt() []string {
	calls := f.Calls.All()
	if f.Ops&OpSetattr != 0 {
		calls = append(calls, "fsetxattr", "fremovexattr")
	}
	return calls
}

// plan is how calls are reached.
type plan struct {
	parts []part
	// held keeps attached what was tried, until it is closed.
	held closers
	// left says which grouped calls cannot be reached, and why.
	left []string
}

// planFiles is plan for files; grouped calls that cannot be reached are left out if there are ops.
func (k *Kernel) planFiles(t Target, f Files, r Rule) (p plan, err error) {
	if len(f.Calls.All()) > 0 {
		p, err = k.plan(t, f.Calls, r)
		if (errors.Is(err, ErrNotSupported) || errors.Is(err, ErrDecided)) && !Exhausted(err) && f.Ops != 0 && len(f.Calls.Named) == 0 {
			p, err = plan{left: []string{err.Error()}}, nil
		}
	}
	if err != nil || f.Ops == 0 {
		return p, err
	}
	m, release, err := k.chooseHooks(f.Ops)
	if err != nil {
		return p, errors.Join(err, p.held.Close())
	}
	p.held = append(p.held, release)
	p.parts = append([]part{{mechanism: m, ops: f.Ops}}, p.parts...)
	return p, nil
}

// plan finds for each call the first mechanism that can be attached to it, by attaching; all stays attached until the caller
// closes held. Without a mechanism the error wraps ErrNotSupported and says per mechanism why not, and what would work, or is an
// ErrDecided if that is why. Call with k.mu held.
func (k *Kernel) plan(t Target, calls Calls, r Rule) (p plan, err error) {
	var decided *decidedError
	var left unreached
	for i, call := range calls.All() {
		m, release, err := k.choose(t, call, r)
		switch {
		case err == nil:
			p.add(m, call, r, release)
		case Exhausted(err):
			return p, errors.Join(fmt.Errorf("%s: %w", call, err), p.held.Close())
		case i < len(calls.Named) && errors.Is(err, ErrDecided):
			return p, errors.Join(err, p.held.Close())
		case i < len(calls.Named):
			return p, errors.Join(fmt.Errorf("%s: %w: %w. %s", call, ErrNotSupported, err, nearest(calls.All(), r)), p.held.Close())
		case errors.Is(err, ErrDecided):
			decided = decided.and(err)
		default:
			left.add(call, err)
		}
	}
	p.left = left.lines()
	if decided != nil {
		p.left = append(p.left, decided.Error())
	}
	switch {
	case len(p.parts) > 0:
		return p, nil
	case decided != nil:
		return p, decided
	}
	return p, fmt.Errorf("%w: %s. %s", ErrNotSupported, strings.Join(p.left, "; "), nearest(calls.All(), r))
}

// unreached are calls without a mechanism, by the reasons.
type unreached []unreachedCalls

type unreachedCalls struct {
	calls []string
	why   string
}

func (u *unreached) add(call string, why error) {
	for i, known := range *u {
		if known.why == why.Error() {
			(*u)[i].calls = append(known.calls, call)
			return
		}
	}
	*u = append(*u, unreachedCalls{[]string{call}, why.Error()})
}

func (u unreached) lines() (lines []string) {
	for _, one := range u {
		lines = append(lines, strings.Join(one.calls, ", ")+": "+one.why)
	}
	return lines
}

func (p *plan) add(m SyscallMechanism, call string, r Rule, release closerFunc) {
	p.held = append(p.held, release)
	i := slices.IndexFunc(p.parts, func(known part) bool { return known.mechanism == m })
	if i < 0 {
		i, p.parts = len(p.parts), append(p.parts, part{mechanism: m})
	}
	p.parts[i] = r.part(m, append(p.parts[i].calls, call)...)
}

func (p plan) mechanisms() (m Mechanisms) {
	for _, one := range p.parts {
		m = append(m, one.mechanism)
	}
	return m
}

// choose attaches the first mechanism that can be attached to a call. The error says per mechanism why none can, or is an ErrDecided.
func (k *Kernel) choose(t Target, call string, r Rule) (SyscallMechanism, closerFunc, error) {
	var decided *decidedError
	m, release, err := firstOf(mechanismsFor(r.Action), func(m SyscallMechanism) (io.Closer, error) {
		if err := k.precheck(m, call, r); err != nil {
			return nil, err
		}
		attached, err := k.attachPart(t, r.part(m, call), r)
		errors.As(err, &decided)
		return attached, err
	})
	if err != nil && decided != nil {
		err = decided
	}
	return m, release, err
}

// firstOf goes through mechanisms, best first, to the first that attach can attach. If none can, the error says why not, one by one;
// what is exhausted ends the search, as another mechanism would be a worse one without a reason.
func firstOf(mechanisms Mechanisms, attach func(SyscallMechanism) (io.Closer, error)) (SyscallMechanism, closerFunc, error) {
	var reasons []string
	for _, m := range mechanisms {
		attached, err := attach(m)
		if err == nil {
			return m, attached.Close, nil
		}
		if Exhausted(err) {
			return "", nil, fmt.Errorf("%s: %w", m, err)
		}
		reasons = append(reasons, fmt.Sprintf("%s: %v", m, err))
	}
	return "", nil, errors.New(strings.Join(reasons, "; "))
}

// part is what a mechanism serves of calls.
func (r Rule) part(m SyscallMechanism, calls ...string) part {
	p := part{mechanism: m, calls: calls}
	if r.byHook(m) {
		for _, call := range calls {
			p.ops |= hookOps(call)
		}
	}
	return p
}

// attachPart attaches a part's programs. Call with k.mu held; so must be the Close of the result.
func (k *Kernel) attachPart(t Target, p part, r Rule) (io.Closer, error) {
	if r.byHook(p.mechanism) {
		return k.attachHooks(p.mechanism, p.ops)
	}
	return k.attachSyscall(t, p.mechanism, p.calls)
}

// keysOf are the shared attachments that a part needs.
func (k *Kernel) keysOf(p part, t Target, r Rule) []string {
	if r.byHook(p.mechanism) {
		return k.hookKeys(p.mechanism, p.ops)
	}
	return attachKeys(t, p.mechanism, p.calls)
}

// checkFiles refuses what no kernel can do.
func checkFiles(f Files, r Rule) error {
	if f.Ops != 0 && r.Action != ActionErrno {
		return errors.New("security hooks can only fail")
	}
	if len(f.Calls.All()) == 0 && f.Ops != 0 {
		return nil
	}
	if _, err := CallNumbers(f.Calls.All()); err != nil {
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
	return k.FileMechanisms(Files{Calls: calls}, r)
}

// FileMechanisms is CallMechanisms for what is done to files.
func (k *Kernel) FileMechanisms(f Files, r Rule) (Mechanisms, error) {
	if err := checkFiles(f, r); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	p, err := k.planFiles(Target{}, f, r)
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
// CallMechanisms, or an ErrDecided.
func (k *Kernel) InstallCalls(t Target, calls Calls, r Rule) (Parts, Reach, error) {
	return k.InstallFiles(t, Files{Calls: calls}, r)
}

// InstallFiles is InstallCalls for what is done to files; r.Ops is set here too.
func (k *Kernel) InstallFiles(t Target, f Files, r Rule) (Parts, Reach, error) {
	if err := checkFiles(f, r); err != nil {
		return nil, Reach{}, err
	}
	if err := k.learnShapes(f.lookedAt(), r); err != nil {
		return nil, Reach{}, err
	}
	k.mu.Lock()
	p, err := k.planFiles(t, f, r)
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
	r.Calls, r.Ops, r.mechanism = nil, p.ops, p.mechanism.number()
	for _, call := range p.calls {
		number, _ := SyscallNumber(call)
		r.Calls = append(r.Calls, number)
	}
	var spared []string
	rest := func(missed *misses) (releases []func() error, err error) {
		if len(p.calls) > 0 {
			releases, err = k.watchArrivals()
		}
		spared = p.calls
		if t.Programs32 {
			var release func() error
			release, spared = k.attachTwins(p, missed)
			releases = append(releases, release)
		}
		// Processes may have mapped code after it was looked at, and before there was a rule to be told for.
		return releases, errors.Join(err, k.followMappings(t, p.mechanism, p.calls))
	}
	in, err := k.installCounted(r.hook(p.mechanism), t, r, func() (io.Closer, []string, error) {
		attached, err := k.attachPart(t, p, r)
		return attached, k.keysOf(p, t, r), err
	}, rest)
	if err != nil {
		return nil, err
	}
	in.setReach32(reach32{p.calls, spared, false})
	if !t.Programs32 && reachesTwins(p.mechanism) {
		go in.awaitPrograms32(p)
	}
	return in, nil
}
