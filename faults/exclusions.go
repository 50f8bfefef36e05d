package faults

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"faultd/bpf"
)

// Exclusions of network faults, by the names that Traffic.Include takes.
const (
	excludeSSH       = "ssh"
	excludeGateway   = "gateway"
	excludeDNS       = "dns"
	excludeMetadata  = "metadata"
	excludeAPIServer = "api-server"
	excludeFaultd    = "faultd"
)

func exclusionNames() []string {
	return []string{excludeSSH, excludeGateway, excludeDNS, excludeMetadata, excludeAPIServer, excludeFaultd}
}

const (
	sshPort = 22
	dnsPort = 53
)

// Infrastructure is what of the node network faults spare, beside what the target's own namespaces tell.
type Infrastructure struct {
	// APIServers are those of Kubernetes. Listeners are faultd's own; an unspecified address means all of its namespace.
	APIServers, Listeners []netip.AddrPort
}

// metadataAddresses answer on nodes of AWS, Google, Azure, Oracle and Alibaba, some for credentials of containers.
func metadataAddresses() []string {
	return []string{"169.254.169.254", "169.254.170.2", "169.254.170.23", "168.63.129.16", "100.100.100.200", "192.0.0.192",
		"fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254"}
}

// excluded is an address that is spared, or one port of it.
type excluded struct {
	name    string
	address netip.Addr
	port    uint16 // 0: all
}

func (e excluded) String() string {
	if e.port == 0 {
		return e.address.String()
	}
	return netip.AddrPortFrom(e.address, e.port).String()
}

// exclusions finds what is to be spared for the target, but for ssh, which is no address.
func exclusions(env Env, homes []home) (found []excluded, err error) {
	for _, h := range homes {
		gateways, err := h.ns.Gateways()
		if err != nil {
			return nil, err
		}
		for _, address := range gateways {
			found = append(found, excluded{excludeGateway, address, 0})
		}
		for _, address := range h.resolvConf().servers {
			found = append(found, excluded{excludeDNS, address, dnsPort})
		}
	}
	for _, text := range metadataAddresses() {
		found = append(found, excluded{excludeMetadata, netip.MustParseAddr(text), 0})
	}
	for _, server := range env.Infrastructure.APIServers {
		found = append(found, excluded{excludeAPIServer, server.Addr().Unmap(), server.Port()})
	}
	for _, listener := range env.Infrastructure.Listeners {
		for _, address := range addressesOf(listener.Addr()) {
			found = append(found, excluded{excludeFaultd, address, listener.Port()})
		}
	}
	return found, nil
}

// addressesOf is the address itself, or all of faultd's own namespace if it is unspecified.
func addressesOf(address netip.Addr) []netip.Addr {
	if !address.IsUnspecified() {
		return []netip.Addr{address.Unmap()}
	}
	// What cannot be listed is not spared: faultd is then short of its metrics, and nobody else of anything.
	all, _ := net.InterfaceAddrs()
	var addresses []netip.Addr
	for _, a := range all {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			addresses = append(addresses, prefix.Addr().Unmap())
		}
	}
	return addresses
}

// spare takes what is excluded, and not included again, out of the traffic; the notes say what. It refuses traffic that names
// exactly what would be spared.
func (t Traffic) spare(k *bpf.Traffic, found []excluded) (notes []string, err error) {
	named := k.Peers // what was asked for, before anything is spared
	if named == nil {
		k.Peers = bpf.PeersOf(everybody()...)
	} else {
		k.Peers = k.Peers.Clone()
	}
	spared := map[string][]string{}
	for _, e := range found {
		if slices.Contains(spared[e.name], e.String()) || slices.Contains(t.Include, e.name) || !portsFit(*k, e.port) || !k.Peers.Of(e.address).Hurt {
			continue
		}
		if err := e.asked(named, *k); err != nil {
			return nil, err
		}
		k.Peers.Spare(e.address, e.port)
		spared[e.name] = append(spared[e.name], e.String())
	}
	for _, name := range slices.Sorted(maps.Keys(spared)) {
		notes = append(notes, fmt.Sprintf("spared: the %s, %s; --include %s hurts it too", titles[name], strings.Join(spared[name], ", "), name))
	}
	return notes, nil
}

// titles are what people call them.
var titles = map[string]string{
	excludeGateway: "gateway", excludeDNS: "target's DNS server", excludeMetadata: "metadata service of a cloud",
	excludeAPIServer: "API server of Kubernetes", excludeFaultd: "metrics of faultd",
}

// asked refuses traffic that names the excluded address, or the port of DNS.
func (e excluded) asked(named bpf.Peers, k bpf.Traffic) error {
	if _, is := named[netip.PrefixFrom(e.address, e.address.BitLen())]; is {
		return fmt.Errorf("peers: %s is the %s and spared by default; include %s (--include %s) to hurt it, or leave it out", e, titles[e.name], e.name, e.name)
	}
	if e.name == excludeDNS && slices.Contains(k.Ports, bpf.Ports{Low: dnsPort, High: dnsPort}) {
		return fmt.Errorf("ports: %d is that of %s, the %s, which is spared by default; include %s (--include %s) to hurt it, or name other peers", dnsPort, e, titles[e.name], e.name, e.name)
	}
	return nil
}

// portsFit says whether traffic may be of that port of the peer; 0 means all ports.
func portsFit(k bpf.Traffic, port uint16) bool {
	if port == 0 {
		return true
	}
	if k.Protocol != 0 && k.Protocol != unix.IPPROTO_TCP && k.Protocol != unix.IPPROTO_UDP {
		return false
	}
	return len(k.Ports) == 0 || slices.ContainsFunc(k.Ports, func(p bpf.Ports) bool { return p.Low <= port && port <= p.High })
}

// spareSSH spares sessions of people who log in.
func (t Traffic) spareSSH(k *bpf.Traffic) (notes []string, err error) {
	covered := len(k.LocalPorts) == 0 || slices.ContainsFunc(k.LocalPorts, func(p bpf.Ports) bool { return p.Low <= sshPort && sshPort <= p.High })
	if slices.Contains(t.Include, excludeSSH) || !covered || k.Protocol != 0 && k.Protocol != unix.IPPROTO_TCP {
		return nil, nil
	}
	if slices.Contains(k.LocalPorts, bpf.Ports{Low: sshPort, High: sshPort}) {
		return nil, fmt.Errorf("traffic.localPorts: %d is that of SSH, which is spared by default; include %s (--include %s) to hurt it, or leave it out", sshPort, excludeSSH, excludeSSH)
	}
	k.SpareSSH = true
	return []string{fmt.Sprintf("spared: SSH, the local port %d of TCP; --include %s hurts it too", sshPort, excludeSSH)}, nil
}

func checkInclude(names []string) error {
	for _, name := range names {
		if !slices.Contains(exclusionNames(), name) {
			return fmt.Errorf("traffic.include: %q is no exclusion; it must be one of %s", name, strings.Join(exclusionNames(), ", "))
		}
	}
	return nil
}
