package faults

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"faultd/bpf"
	"faultd/cgroup"
)

// othersIn says who lives in a network namespace and is not of the target; "": all that comes in there is the target's. Else the socket tells
// that a packet will come to, and a rule on what has none is an error.
func othersIn(env Env, target cgroup.Target, ns bpf.NetNS, traffic bpf.Traffic) (who string, err error) {
	if who = strangerIn(env, target, ns); who != "" && slices.Contains([]int{unix.IPPROTO_ICMP, unix.IPPROTO_SCTP}, int(traffic.Protocol)) {
		return who, &ParameterError{"packet.protocol", fmt.Sprintf("it is neither tcp nor udp, and in network namespace %d, as %s, only what comes to a socket of these can wait, by which it is known whose it is; give one of them, the whole pod as the target (pod:NAMESPACE/NAME), or direction egress, by which a round trip is as late", ns.Inode, who)}
	}
	return who, nil
}

func strangerIn(env Env, target cgroup.Target, ns bpf.NetNS) string {
	if isNodes(ns) {
		return "it is the node's"
	}
	other, err := env.Cgroups.Stranger(target, ns.Inode)
	if err != nil {
		return fmt.Sprintf("who else is in it cannot be told (%v)", err)
	}
	if other == nil {
		return ""
	}
	return fmt.Sprintf("process %d (%s) is in it too and not of the target", other.PID, nameOf(*other))
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
