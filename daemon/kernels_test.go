package daemon_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/cgroup"
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
		"6.1":     {hookedCall: "", unhookedCall: ""},
		"6.12":    {hookedCall: bpf.MechanismLSM, unhookedCall: ""},
		"6.12-ei": {hookedCall: bpf.MechanismLSM, unhookedCall: bpf.MechanismClones},
		"6.18":    {hookedCall: bpf.MechanismTaskWork, unhookedCall: bpf.MechanismTaskWork},
		"7.3":     {hookedCall: bpf.MechanismLSM, unhookedCall: bpf.MechanismTaskWork},
	}
}

// vmKernel is the virtual machine's kernel by the runner's name, or "" on a host.
func vmKernel() string { return os.Getenv("FAULTD_VM_KERNEL") }

// onlyOnHost is for tests of what is the same on every kernel: an emulated machine would take minutes for them.
func onlyOnHost(t *testing.T) {
	t.Helper()
	if vmKernel() != "" {
		t.Skip("the same on every kernel: runs on the host")
	}
}

// notTwice is for tests of what no kernel does in a way of its own: when all are tested they run on those at the edges, the oldest and the
// newest, which are named (test/machines.sh); and never on the one with error injection, which lacks much that others have built in.
func notTwice(t *testing.T) {
	t.Helper()
	if vmKernel() == "6.12-ei" {
		t.Skip("the same without error injection: runs on others")
	}
	if edges := strings.Fields(os.Getenv("FAULTD_TEST_EDGES")); vmKernel() != "" && len(edges) > 0 && !slices.Contains(edges, vmKernel()) {
		t.Skipf("the same on all kernels: runs on %s, and here with KERNEL=%s", strings.Join(edges, " and "), vmKernel())
	}
}

// kernelName is the row of mechanisms that holds here, if there is one.
func kernelName() string {
	if name := vmKernel(); name != "" {
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
