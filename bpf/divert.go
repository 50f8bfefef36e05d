package bpf

import (
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
)

var divertHooks = cgroupPrograms{"divert", HookDivert, "divert", loadDivert, 0, map[string]ebpf.AttachType{
	"faultd_divert_connect4":     ebpf.AttachCGroupInet4Connect,
	"faultd_divert_connect6":     ebpf.AttachCGroupInet6Connect,
	"faultd_divert_getpeername4": ebpf.AttachCgroupInet4GetPeername,
	"faultd_divert_getpeername6": ebpf.AttachCgroupInet6GetPeername,
	"faultd_divert_sockops":      ebpf.AttachCGroupSockOps,
}}

// DivertEnv is what a diversion needs beside the kernel.
type DivertEnv struct {
	// Namespaces are those of the target's processes; used only during the call. Those that come later: CoverNamespaces.
	Namespaces []NetNS
	// Serve begins to serve a gate; closing the result ends that, and waits for it.
	Serve func(*Gate) io.Closer
}

// InstallDivert makes the TCP connections that the target opens to the rule's peers and ports go to a gate, in each of the
// namespaces. The rules of one target share its gates, which ask them (Gate.Rules); harm is done and counted there. The caller closes the rule.
func (k *Kernel) InstallDivert(t Target, r Rule, env DivertEnv) (*Installed, error) {
	open := func(ns NetNS) (io.Closer, error) { return k.openGate(t, ns, env.Serve) }
	return k.installPosted(HookDivert, t, r, k.newPostings("gate", t, open), env.Namespaces, divertHooks)
}

// openGate makes the sockets, has them served, and shows them to the kernel.
func (k *Kernel) openGate(t Target, ns NetNS, serve func(*Gate) io.Closer) (io.Closer, error) {
	g, err := newGate(ns)
	if err != nil {
		return nil, err
	}
	g.target, g.hook, g.diverted = t.id(), k.hooks[HookDivert], k.maps["faultd_diverted"]
	opened := closers{closerFunc(g.close), closerFunc(g.forget), serve(g), closerFunc(func() error { return k.hideStandIn(&g.post, HookDivert, g.families()) })}
	for _, l := range g.Listeners {
		port := sharedStandIn{Ports: [maxServers]uint16{l.port()}}
		if err := k.maps["faultd_stand_ins"].Put(g.key(HookDivert, l.family), port); err != nil {
			return nil, errors.Join(fmt.Errorf("show the stand-in to the kernel: %w", err), opened.Close())
		}
	}
	return opened, nil
}
