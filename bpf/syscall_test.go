package bpf

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"faultd/test/vm/guest"
)

func delayMechanisms(k *Kernel, delay time.Duration, calls ...string) (Mechanisms, error) {
	return k.CallMechanisms(Calls{Named: calls}, Rule{Action: ActionDelay, Delay: delay})
}

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
			if m, err := delayMechanisms(k, c.delay, c.calls...); err == nil {
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
	_, err := delayMechanisms(k, time.Millisecond, "getppid", "openat")
	if !errors.Is(err, ErrNotSupported) {
		t.Fatalf("got %v", err)
	}
	t.Log(err)
	if m, err := delayMechanisms(k, 50*time.Microsecond, "getppid"); m.String() != "spin" {
		t.Errorf("got %q, %v, want spin", m, err)
	}
}

// TestSyscallMechanisms logs what this kernel has, and loads it.
func TestSyscallMechanisms(t *testing.T) {
	k := openKernel(t)
	for _, m := range mechanismsFor(ActionDelay) {
		k.mu.Lock()
		attached, err := k.attachSyscall(Target{}, m, []string{"openat"})
		t.Logf("%s: %v", m, err)
		if err == nil {
			if err := attached.Close(); err != nil {
				t.Error(err)
			}
		}
		k.mu.Unlock()
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
	_, err := delayMechanisms(k, time.Millisecond, "getppid")
	if !errors.Is(err, ErrNotSupported) || CanSleep() == nil && !strings.Contains(err.Error(), "getppid, as of all calls without arguments") {
		t.Errorf("got %v", err)
	}
}

// TestTaskWorkHook: where the kernel has trampolines the program sits on the call's function, and nobody else pays.
func TestTaskWorkHook(t *testing.T) {
	k := openKernel(t)
	k.disabled["lsm"] = true
	if m, err := delayMechanisms(k, time.Second, "getpgid"); err != nil || m.String() != "task-work" {
		t.Skipf("this kernel has no task work: %s, %v", m, err)
	}
	hook := func() string {
		t.Helper()
		k.mu.Lock()
		defer k.mu.Unlock()
		attached, err := k.attachSyscall(Target{}, MechanismTaskWork, []string{"getpgid"})
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
