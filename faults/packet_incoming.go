package faults

import (
	"fmt"

	"golang.org/x/sys/unix"

	"faultd/bpf"
	"faultd/cgroup"
)

// whatElse is what works where not all that comes into a network namespace is the target's.
const whatElse = "what works: the whole pod as the target (pod:NAMESPACE/NAME), or whatever has all these processes; the target's outgoing packets late (direction egress), by which a round trip is as late; the peer's outgoing ones; or the target's calls (syscall --call receive --delay)"

// othersIn says why what comes into a network namespace is not the target's alone; nil: it is. Before a packet has come to a socket nobody
// can tell for sure whose it is, so all that comes in must be.
func othersIn(env Env, target cgroup.Target, ns bpf.NetNS) error {
	if isNodes(ns) {
		return &ParameterError{"target", "it is in the network namespace of the node, where what comes in may be anybody's, and only what is a target's alone can wait before it is known whose it is; " + whatElse}
	}
	other, err := env.Cgroups.Stranger(target, ns.Inode)
	if err != nil {
		return fmt.Errorf("look who else is in the network namespace of the target: %w", err)
	}
	if other == nil {
		return nil
	}
	return &ParameterError{"target", fmt.Sprintf("process %d (%s) is in its network namespace too and not of the target, and only what is a target's alone can wait before it is known whose it is; %s", other.PID, nameOf(*other), whatElse)}
}

func nameOf(p cgroup.Process) string {
	if p.CommandLine != "" {
		return p.CommandLine
	}
	return p.Executable
}

// isNodes says whether a network namespace is the node's: that of its first process or, as that may be a container's, faultd's own.
func isNodes(ns bpf.NetNS) bool {
	for _, process := range []string{"1", "self"} {
		var st unix.Stat_t
		if err := unix.Stat("/proc/"+process+"/ns/net", &st); err == nil && st.Ino == ns.Inode {
			return true
		}
	}
	return false
}
