package daemon_test

import (
	"strings"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/cgroup"
	"faultd/test/kernels"
)

// Calls with and without a security hook that may sleep. Go's runtime makes neither by itself.
const (
	hookedCall   = "socketpair"
	unhookedCall = "getpgid"
)

// mechanisms says how the kernels that the tests run on must delay a call: a refusal there is a failure, not a reason to
// skip. Empty: it must be refused. Other kernels may skip.
func mechanisms() map[string]map[string]bpf.SyscallMechanism {
	return map[string]map[string]bpf.SyscallMechanism{
		"6.1":        {hookedCall: "", unhookedCall: ""},
		"6.12":       {hookedCall: bpf.MechanismLSM, unhookedCall: ""},
		"6.12-arm64": {hookedCall: bpf.MechanismLSM, unhookedCall: ""},
		"6.12-ei":    {hookedCall: bpf.MechanismLSM, unhookedCall: bpf.MechanismClones},
		"6.18":       {hookedCall: bpf.MechanismTaskWork, unhookedCall: bpf.MechanismTaskWork},
		"7.3":        {hookedCall: bpf.MechanismLSM, unhookedCall: bpf.MechanismTaskWork},
	}
}

// kernelName is the row of mechanisms that holds here, if there is one.
func kernelName() string {
	if name := kernels.Machine(); name != "" {
		return name
	}
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	parts := strings.SplitN(unix.ByteSliceToString(u.Release[:]), ".", 3)
	if len(parts) < 3 {
		return ""
	}
	return parts[0] + "." + parts[1]
}

// tryDelay delays a call of the target; nil if this kernel rightly refuses.
func (n *node) tryDelay(t cgroup.Target, call, by string, change ...func(*v1.FaultSpec)) *v1.Fault {
	n.t.Helper()
	spec := delay(t, call, by)
	for _, c := range change {
		c(spec)
	}
	f, err := n.tryInject(spec)
	want, known := mechanisms()[kernelName()][call]
	switch {
	case connect.CodeOf(err) == connect.CodeUnimplemented && err != nil:
		if want != "" {
			n.t.Fatalf("%s must be delayed by %s here: %v", call, want, err)
		}
		n.t.Logf("this kernel (known: %v) cannot delay %s by %s: %v", known, call, by, err)
		return nil
	case err != nil:
		n.t.Fatal(err)
	case known && f.GetMechanism() != string(want):
		n.t.Errorf("%s is delayed by %q here, want %q", call, f.GetMechanism(), want)
	}
	return f
}

// delay is tryDelay for tests that are about delays: where there is none, they skip.
func (n *node) delay(t cgroup.Target, call, by string, change ...func(*v1.FaultSpec)) *v1.Fault {
	n.t.Helper()
	f := n.tryDelay(t, call, by, change...)
	if f == nil {
		n.t.Skipf("this kernel cannot delay %s by %s", call, by)
	}
	return f
}

// briefDelay delays a call by a time that every kernel can do, and says which mechanism that must be.
func (n *node) briefDelay(t cgroup.Target, call string, change ...func(*v1.FaultSpec)) *v1.Fault {
	n.t.Helper()
	if want, known := mechanisms()[kernelName()][call]; known && want != "" {
		return n.tryDelay(t, call, "1ms", change...)
	}
	spec := delay(t, call, "50us")
	for _, c := range change {
		c(spec)
	}
	f := n.inject(spec)
	if f.GetMechanism() != string(bpf.MechanismSpin) && mechanisms()[kernelName()] != nil {
		n.t.Errorf("%s is delayed by %q here, want %q", call, f.GetMechanism(), bpf.MechanismSpin)
	}
	return f
}

// delayedCalls are the calls to try so that each mechanism of this kernel is tried once.
func delayedCalls() []string {
	row, known := mechanisms()[kernelName()]
	if known && row[hookedCall] == row[unhookedCall] {
		return []string{hookedCall}
	}
	return []string{hookedCall, unhookedCall}
}
