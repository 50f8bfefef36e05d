package bpf

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"faultd/test/vm/guest"
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

// TestTaskWorkHook: where the kernel has trampolines the program sits on the call's function, and nobody else pays.
func TestTaskWorkHook(t *testing.T) {
	k := openKernel(t)
	k.disabled["lsm"] = true
	if m, err := k.SyscallMechanism([]string{"getpgid"}, time.Second); err != nil || m != MechanismTaskWork {
		t.Skipf("this kernel has no task work: %s, %v", m, err)
	}
	hook := func() string {
		t.Helper()
		k.mu.Lock()
		defer k.mu.Unlock()
		attached, err := k.attachSyscall(MechanismTaskWork, []string{"getpgid"})
		if err != nil {
			t.Fatal(err)
		}
		info, err := k.shared["syscall/task-work/getpgid"].closer.(*syscallPrograms).programs[0].Info()
		if err := errors.Join(err, attached.Close()); err != nil {
			t.Fatal(err)
		}
		return info.Name
	}
	first := hook()
	t.Logf("%s, trampolines: %v", first, !k.noTrampolines)
	if os.Getenv(guest.KernelVar) == "7.3" && first != "faultd_fexit" {
		t.Errorf("7.3 has trampolines, and the program is %s", first)
	}
	k.disabled[hookFexit] = true
	if second := hook(); !strings.HasPrefix(second, "faultd_return") {
		t.Errorf("without fexit the program is %s", second)
	}
}
