package bpf

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// SyscallMechanism is a way in which system calls are delayed.
type SyscallMechanism string

// The mechanisms, best first.
const (
	MechanismLSM      SyscallMechanism = "lsm"
	MechanismTaskWork SyscallMechanism = "task-work"
	MechanismClones   SyscallMechanism = "clones"
	MechanismSpin     SyscallMechanism = "spin"
)

// maxSpin is the longest delay that is waited out on the CPU.
const maxSpin = 100 * time.Microsecond

// MaxDelay is the longest delay of one call: while a thread sleeps, the kernel frees no sleepable program.
const MaxDelay = 5 * time.Second

// number is the mechanism's in the ABI (enum mechanism).
func (m SyscallMechanism) number() uint32 {
	switch m {
	case MechanismLSM:
		return 1
	case MechanismTaskWork:
		return 2
	case MechanismClones:
		return 3
	case MechanismSpin:
		return 4
	}
	return 0
}

// Sleeps says whether the mechanism needs a guard.
func (m SyscallMechanism) Sleeps() bool { return m != MechanismSpin }

// SyscallMechanism says which mechanism delays all these calls on this kernel, by trying. delay is the longest,
// jitter included. Without one the error wraps ErrNotSupported and says per mechanism why not, and what would work.
func (k *Kernel) SyscallMechanism(calls []string, delay time.Duration) (SyscallMechanism, error) {
	return k.chooseMechanism(calls, delay, func(m SyscallMechanism) error { return k.tryMechanism(m, calls) })
}

// attachError says that a mechanism does not work here; any other error has nothing to do with mechanisms.
type attachError struct{ error }

// Unwrap gives what went wrong.
func (e attachError) Unwrap() error { return e.error }

// chooseMechanism goes through the mechanisms, best first, to the first one that use can attach.
func (k *Kernel) chooseMechanism(calls []string, delay time.Duration, use func(SyscallMechanism) error) (SyscallMechanism, error) {
	if _, err := CallNumbers(calls); err != nil {
		return "", fmt.Errorf("calls: %w", err)
	}
	if delay <= 0 || delay > MaxDelay {
		return "", fmt.Errorf("delay %v: must be above 0 and at most %v, jitter included", delay, MaxDelay)
	}
	var reasons []string
	for _, m := range []SyscallMechanism{MechanismLSM, MechanismTaskWork, MechanismClones, MechanismSpin} {
		err := k.precheck(m, calls, delay)
		if err == nil {
			if err = use(m); err == nil {
				return m, nil
			}
			if !errors.As(err, new(attachError)) {
				return "", err
			}
		}
		reasons = append(reasons, fmt.Sprintf("%s: %v", m, err))
	}
	return "", fmt.Errorf("delay %s: %w: %s. %s", strings.Join(calls, ", "), ErrNotSupported, strings.Join(reasons, "; "), nearest(calls))
}

// precheck finds what attaching would not.
func (k *Kernel) precheck(m SyscallMechanism, calls []string, delay time.Duration) error {
	if k.disabled[string(m)] {
		return errors.New("switched off")
	}
	if m.Sleeps() {
		if err := CanSleep(); err != nil {
			return err
		}
	}
	switch m {
	case MechanismLSM:
		return k.precheckLSM(calls)
	case MechanismSpin:
		if delay > maxSpin {
			return fmt.Errorf("%v is too long to wait on the CPU, the limit is %v", delay, maxSpin)
		}
	}
	return nil
}

// precheckLSM: the calls need hooks, and the hooks must run; that they do is found out once.
func (k *Kernel) precheckLSM(calls []string) error {
	for _, call := range calls {
		if lsmHook(call) == "" {
			return fmt.Errorf("%s has no security hook that may sleep", call)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lsmFired {
		return nil
	}
	err := k.lsmRuns()
	k.lsmFired = err == nil
	return err
}

// tryMechanism attaches everything once, while the calls of no target are delayed yet, and lets go.
func (k *Kernel) tryMechanism(m SyscallMechanism, calls []string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	attached, err := k.attachSyscall(m, calls)
	if err != nil {
		return err
	}
	return attached.Close()
}

// nearest says what would work instead.
func nearest(calls []string) string {
	var reachable []string
	for _, call := range calls {
		if lsmHook(call) != "" {
			reachable = append(reachable, call)
		}
	}
	advice := "What would work: Linux 6.18 or newer, a kernel with CONFIG_FUNCTION_ERROR_INJECTION, or a delay of at most " + maxSpin.String()
	if len(reachable) > 0 && len(reachable) < len(calls) {
		advice += "; " + strings.Join(reachable, ", ") + " alone can be delayed where bpf is among the active LSMs"
	}
	return advice
}
