package bpf

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestSyscallMechanismRefuses(t *testing.T) {
	k := openKernel(t)
	for name, c := range map[string]struct {
		calls []string
		delay time.Duration
	}{
		"unknown call": {[]string{"gettid_"}, time.Millisecond},
		"exit":         {[]string{"exit_group"}, time.Millisecond},
		"sigreturn":    {[]string{"rt_sigreturn"}, time.Millisecond},
		"none":         {nil, time.Millisecond},
		"too long":     {[]string{"getppid"}, 6 * time.Second},
		"no delay":     {[]string{"getppid"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if m, err := k.SyscallMechanism(c.calls, c.delay); err == nil {
				t.Errorf("it chose %s", m)
			}
		})
	}
}

// TestSyscallMechanismNamesWhatIsMissing switches everything off.
func TestSyscallMechanismNamesWhatIsMissing(t *testing.T) {
	k := openKernel(t)
	for _, m := range []string{"lsm", "task-work", "clones"} {
		k.disabled[m] = true
	}
	_, err := k.SyscallMechanism([]string{"getppid", "openat"}, time.Millisecond)
	if !errors.Is(err, ErrNotSupported) {
		t.Fatalf("got %v", err)
	}
	t.Log(err)
	if m, err := k.SyscallMechanism([]string{"getppid"}, 50*time.Microsecond); m != MechanismSpin {
		t.Errorf("got %q, %v, want spin", m, err)
	}
}

// TestSyscallMechanisms logs what this kernel has, and loads it.
func TestSyscallMechanisms(t *testing.T) {
	k := openKernel(t)
	for _, m := range []SyscallMechanism{MechanismLSM, MechanismTaskWork, MechanismClones, MechanismSpin} {
		t.Logf("%s: %v", m, k.tryMechanism(m, []string{"openat", "execve"}))
	}
	if len(k.shared) != 0 {
		t.Errorf("left attached: %v", k.shared)
	}
}

// TestCallsWithoutArguments are out of reach of clones, and the reason says so.
func TestCallsWithoutArguments(t *testing.T) {
	k := openKernel(t)
	for _, m := range []string{"lsm", "task-work"} {
		k.disabled[m] = true
	}
	_, err := k.SyscallMechanism([]string{"getppid"}, time.Millisecond)
	if !errors.Is(err, ErrNotSupported) || CanSleep() == nil && !strings.Contains(err.Error(), "getppid, as of all calls without arguments") {
		t.Errorf("got %v", err)
	}
}
