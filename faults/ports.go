package faults

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
	"faultd/burn"
	"faultd/cgroup"
)

// Ports takes local ports of TCP toward one address, so that the target cannot connect to it.
type Ports struct {
	// Peer is whom new connections shall find no port for.
	Peer netip.AddrPort
	// Ports is how many are taken; 0: all that there are.
	Ports int64
	// Place is "inside" (or empty) or "beside".
	Place string
}

const (
	mostPorts = 65535
	// portMemory is about what the kernel needs for a socket that has a port.
	portMemory = 4 << 10
)

func newPorts(spec *v1.FaultSpec) (Fault, error) {
	s := spec.GetPorts()
	if s == nil {
		return nil, nil
	}
	if err := noDiceOfLoad(spec, "load"); err != nil {
		return nil, err
	}
	p := Ports{Place: s.GetPlace()}
	var err error
	if p.Peer, err = netip.ParseAddrPort(s.GetPeer()); err != nil || p.Peer.Port() == 0 || p.Peer.Addr().IsUnspecified() {
		return nil, fmt.Errorf("peer: %q must be an address with a port, such as 10.0.0.5:5432", s.GetPeer())
	}
	p.Peer = netip.AddrPortFrom(p.Peer.Addr().Unmap(), p.Peer.Port())
	p.Ports, err = countOr("all", s.GetLoad(), "ports")
	return p, err
}

// countOr reads how many are held of what goes by ports: a number, or the word for all, which gives 0.
func countOr(all, load, things string) (int64, error) {
	if load == all {
		return 0, nil
	}
	n, err := strconv.ParseInt(load, 10, 64)
	if err != nil || n < 1 || n > mostPorts {
		return 0, fmt.Errorf("load: %q must be a number of %s in 1..%d, or %s", load, things, mostPorts, all)
	}
	return n, nil
}

func portsParameters() []Parameter {
	return []Parameter{
		{"peer", "address", "whom new connections find no local port for, such as 10.0.0.5:5432"},
		{"load", "number", "how many ports are taken, such as 20000, or all"},
		placeParameter(),
	}
}

// Validate implements Fault.
func (p Ports) Validate() error { return checkPlace(p.Place) }

// Mechanism implements Fault.
func (p Ports) Mechanism(context.Context, Env) (string, error) { return mechanismBurner, nil }

// Inject implements Fault.
func (p Ports) Inject(_ context.Context, env Env, target cgroup.Target, common Common) (Handle, error) {
	homes, err := homesToStandIn(env, target)
	if err != nil {
		return nil, err
	}
	defer closeHomes(homes)
	wanted, err := p.wanted(env, target, homes)
	if err != nil {
		return nil, err
	}
	b, err := startBurner(env, target, common, p.Place, burn.Work{Ports: &burn.Ports{Namespace: homes[0].ns.File, Peer: p.Peer, Most: wanted}})
	if err != nil {
		return nil, err
	}
	return &portsLoad{startHeld(&heldLoad{
		burner: b, fault: p, kind: "ports", amount: wanted,
		refused: "the kernel had no port %d times: all toward " + p.Peer.String() + " are in use, or there is no way to it",
	})}, nil
}

// wanted is how many ports are to be taken in the one network namespace that the target may have.
func (p Ports) wanted(env Env, target cgroup.Target, homes []home) (int64, error) {
	if len(homes) > 1 {
		return 0, &ParameterError{"target", fmt.Sprintf("its processes live in %d network namespaces, each with ports of its own; choose one container", len(homes))}
	}
	if err := p.speaks(homes[0]); err != nil {
		return 0, err
	}
	there, err := homes[0].ns.LocalPorts()
	if err != nil {
		return 0, err
	}
	if p.Ports > there {
		return 0, &ParameterError{"ports.load", fmt.Sprintf("%d are more than the %d ports that the kernel chooses from (net.ipv4.ip_local_port_range); write all", p.Ports, there)}
	}
	wanted := p.Ports
	if wanted == 0 {
		wanted = there
	}
	return wanted, kernelMemoryFits(env, target, p.Place, "ports.load", "sockets", wanted, portMemory)
}

// speaks refuses a peer of IPv6 where the target has none of it.
func (p Ports) speaks(h home) error {
	if p.Peer.Addr().Is4() {
		return nil
	}
	has, err := h.ns.HasIPv6()
	if err == nil && !has {
		err = &ParameterError{"ports.peer", fmt.Sprintf("%s is IPv6, and there is none in the network namespace of the target (net.ipv6.conf.all.disable_ipv6); give a peer of IPv4", p.Peer)}
	}
	return err
}

// portsLoad is a running Ports.
type portsLoad struct{ *heldLoad }

// Counters implements Handle. If all were asked for, those that others have are not missing.
func (l *portsLoad) Counters() bpf.Counters {
	if p, is := l.fault.(Ports); is && p.Ports == 0 && l.Done() > 0 {
		return l.account(bpf.Counters{Injected: uint64(l.Done())})
	}
	return l.heldLoad.Counters()
}
