package daemon_test

import (
	"os"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/vm/guest"
)

// withoutMemory fails allocations in socketpair. Where this kernel cannot, the test is skipped.
func (n *node) withoutMemory(t cgroup.Target, change ...func(*v1.FaultSpec)) *v1.Fault {
	n.t.Helper()
	spec := refuse(t)
	spec.Kind = &v1.FaultSpec_Kernel{Kernel: &v1.Kernel{Calls: []string{hookedCall}, Alloc: "slab"}}
	for _, c := range change {
		c(spec)
	}
	f, err := n.tryInject(spec)
	if connect.CodeOf(err) == connect.CodeUnimplemented && err != nil && os.Getenv(guest.RequireFailingMemoryVar) != "1" {
		n.t.Skip(err)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return f
}

// Ten pairs of sockets, and ten that the kernel finds no memory for.
const (
	pairs    = "call " + hookedCall + " 10 1"
	made     = "map[ok:10]"
	noneMade = "map[ENFILE:10]"
)

// TestAllocationsFail: the target's calls fail, its sibling's do not, and whatever ends the fault, nobody's do.
func TestAllocationsFail(t *testing.T) {
	n := startNode(t)
	n.stop(n.withoutMemory(n.target()).GetId())
	for name, end := range map[string]func(*node, *v1.Fault){
		"stop":          func(n *node, f *v1.Fault) { n.stop(f.GetId()) },
		"kill switch":   func(n *node, _ *v1.Fault) { n.kill() },
		"kill -9":       func(n *node, _ *v1.Fault) { n.end(syscall.SIGKILL); n.start() },
		"daemon's stop": func(n *node, _ *v1.Fault) { n.end(syscall.SIGTERM); n.start() },
	} {
		t.Run(name, func(t *testing.T) {
			n := startNode(t)
			target, sibling := n.target(), n.target()
			w, other := n.worker(target), n.worker(sibling)
			f := n.withoutMemory(target)
			w.wants(noneMade, pairs)
			other.wants(made, pairs)
			if c := n.settled(f.GetId()); c.GetInjected() != 10 || c.GetMatched() != 10 {
				t.Errorf("counted %v", c)
			}
			end(n, f)
			w.wants(made, pairs)
			n.idle()
		})
	}
}

// TestAllocationsFailSometimes: the dice are those of all kinds.
func TestAllocationsFailSometimes(t *testing.T) {
	n := startNode(t)
	target := n.target()
	w := n.worker(target)
	f := n.withoutMemory(target, func(s *v1.FaultSpec) { s.MaxHits = 3 })
	w.wants("map[ENFILE:3 ok:7]", pairs)
	if c := n.stop(f.GetId()).GetCounters(); c.GetInjected() != 3 {
		t.Errorf("counted %v", c)
	}
	w.wants(made, pairs)
}
