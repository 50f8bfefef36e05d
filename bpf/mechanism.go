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

// SyscallMechanism chooses the one mechanism that delays all these calls on this kernel, by trying. delay is the longest,
// jitter included. Without one the error wraps ErrNotSupported and says per mechanism why not, and what would work.
func (k *Kernel) SyscallMechanism(calls []string, delay time.Duration) (SyscallMechanism, error) {
	if _, err := CallNumbers(calls); err != nil {
		return "", fmt.Errorf("calls: %w", err)
	}
	if delay <= 0 || delay > MaxDelay {
		return "", fmt.Errorf("delay %v: must be above 0 and at most %v, jitter included", delay, MaxDelay)
	}
	sleep := CanSleep()
	var reasons []string
	for _, m := range []SyscallMechanism{MechanismLSM, MechanismTaskWork, MechanismClones, MechanismSpin} {
		err := sleep
		if m == MechanismSpin {
			err = nil
		}
		if k.disabled[string(m)] {
			err = errors.New("switched off")
		}
		if err == nil {
			err = k.tryMechanism(m, calls, delay)
		}
		if err == nil {
			return m, nil
		}
		reasons = append(reasons, fmt.Sprintf("%s: %v", m, err))
	}
	return "", fmt.Errorf("delay %s: %w: %s. %s", strings.Join(calls, ", "), ErrNotSupported, strings.Join(reasons, "; "), nearest(calls))
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

// tryMechanism attaches everything once, while the calls of no target are delayed yet, and lets go. What worked once is
// not tried again.
func (k *Kernel) tryMechanism(m SyscallMechanism, calls []string, delay time.Duration) error {
	if m == MechanismSpin && delay > maxSpin {
		return fmt.Errorf("%v is too long to wait on the CPU, the limit is %v", delay, maxSpin)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	tried := strings.Join(attachKeys(m, calls), " ")
	if k.works[tried] {
		return nil
	}
	if m == MechanismLSM {
		if err := k.precheckLSM(calls); err != nil {
			return err
		}
	}
	attached, err := k.attachSyscall(m, calls)
	if err != nil {
		return err
	}
	k.works[tried] = true
	return attached.Close()
}

// precheckLSM finds what attaching would not.
func (k *Kernel) precheckLSM(calls []string) error {
	for _, call := range calls {
		if lsmHook(call) == "" {
			return fmt.Errorf("%s has no security hook that may sleep", call)
		}
	}
	return k.lsmRuns()
}
