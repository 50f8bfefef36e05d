package bpf

import (
	"slices"
	"testing"

	"github.com/cilium/ebpf"

	"faultd/test/kernels"
)

// mostVerified bounds what the verifier may look at in a program: that is most of the time between the order and the first
// harm. A loop body that is not a global function (LOOP_BODY in match.h) costs ten times as much.
const mostVerified = 15000

func TestProgramsAreQuicklyVerified(t *testing.T) {
	kernels.OnEdges(t)
	k := openKernel(t)
	for name, load := range map[string]func() (*ebpf.CollectionSpec, error){
		"connect": loadConnect, "packet": loadPacket, "redirect": loadRedirect, "divert": loadDivert, "task": loadSyscallTask, "fmod": loadResultFmod, "clone": loadSyscallClone, "lsm": loadSyscallLsm, "spin": loadSyscallSpin, "uprobe": loadSyscallUprobe,
		"security": loadSecurity, "reset": loadReset, "pool": loadPool, "arrival": loadArrival, "patience": loadPatience,
	} {
		t.Run(name, func(t *testing.T) { quicklyVerified(t, k, name, load) })
	}
}

func quicklyVerified(t *testing.T, k *Kernel, name string, load func() (*ebpf.CollectionSpec, error)) {
	all, err := load()
	if err != nil {
		t.Fatal(err)
	}
	for program := range all.Programs {
		one := *all
		one.Programs = map[string]*ebpf.ProgramSpec{program: all.Programs[program]}
		if spec := one.Programs[program]; spec.Type == ebpf.Tracing && spec.AttachTo == "" {
			spec.AttachTo = entryPoint("read")
		}
		c, err := k.load(one.Copy())
		if err != nil && slices.Contains([]string{"connect", "packet", "redirect", "divert", "spin", "arrival", "patience"}, name) {
			t.Fatalf("%s %s must load on every kernel: %v", name, program, err)
		}
		if err != nil {
			t.Logf("%s %s does not load on this kernel", name, program)
			continue
		}
		info, err := c.Programs[program].Info()
		if err != nil {
			t.Fatal(err)
		}
		n, ok := info.VerifiedInstructions()
		t.Logf("%s %s: %d instructions were verified", name, program, n)
		if ok && n > mostVerified {
			t.Errorf("%s %s: %d instructions were verified, at most %d should be", name, program, n, mostVerified)
		}
		c.Close()
	}
}
