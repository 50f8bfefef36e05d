package bpf

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
)

// openFmodRet attaches to a call's function; kernels take one program for each (there is no fmod_ret for many).
func (k *Kernel) openFmodRet(call string, s *syscallPrograms) error {
	if err := k.hasEntryPoint(call); err != nil {
		return err
	}
	if err := k.decidedOtherwise(MechanismFmodRet, call); err != nil {
		return err
	}
	if err := k.sleepsApart(MechanismClones, call); err != nil {
		return err
	}
	program, err := k.ownBefore("resultFmod", loadResultFmod, "faultd_fmod", "faultd_fmod_target", entryPoint(call), s)
	if err != nil {
		return err
	}
	return s.trace(program, entryPoint(call))
}

// openOverride puts a kprobe on a call's function.
func (k *Kernel) openOverride(call string, s *syscallPrograms) error {
	if err := k.decidedOtherwise(MechanismOverride, call); err != nil {
		return err
	}
	if err := features.HaveProgramHelper(ebpf.Kprobe, asm.FnOverrideReturn); err != nil {
		return errors.New("the kernel has no bpf_override_return (CONFIG_BPF_KPROBE_OVERRIDE)")
	}
	spec, err := k.object("resultOverride", loadResultOverride, "faultd_override")
	if err != nil {
		return err
	}
	c, err := k.own(spec, s)
	if err != nil {
		return err
	}
	l, err := link.Kprobe(entryPoint(call), c.Programs["faultd_override"], nil)
	if err != nil {
		return fmt.Errorf("attach to %s: %w", entryPoint(call), err)
	}
	s.links = append(s.links, l)
	return nil
}

// decidedOtherwise refuses a call about which another mechanism decides already: rules are tried by age, which two mechanisms
// cannot do together.
func (k *Kernel) decidedOtherwise(m SyscallMechanism, call string) error {
	for _, other := range mechanismsFor(ActionErrno) {
		for key := range k.shared {
			point, ok := strings.CutPrefix(key, attachKey(other, ""))
			if point, _, _ = strings.Cut(point, "@"); ok && other != m && point == call {
				return &decidedError{[]string{call}, other}
			}
		}
	}
	return nil
}

// decidedError is an ErrDecided.
type decidedError struct {
	calls []string
	by    SyscallMechanism
}

// Error implements error.
func (e *decidedError) Error() string {
	return fmt.Sprintf("another fault decides about %s by %s, and only one mechanism can decide about a call; stop that one first", strings.Join(e.calls, ", "), e.by)
}

// Is implements what errors.Is asks for.
func (e *decidedError) Is(target error) bool { return target == ErrDecided }

// and adds the call that err, an ErrDecided, is about; one that somebody else decides about is told once the first is stopped.
func (e *decidedError) and(err error) *decidedError {
	var other *decidedError
	errors.As(err, &other)
	if e == nil {
		return other
	}
	if e.by == other.by {
		e.calls = append(e.calls, other.calls...)
	}
	return e
}
