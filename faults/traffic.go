package faults

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/bpf"
)

// Traffic says which packets or connections of the target are meant: everything that is given must fit. It is what all
// network faults share.
type Traffic struct {
	// Peers are addresses, CIDRs, host names, or selectors of other targets; none: everybody. Except are those that are not
	// meant. Of all that hold an address the longest decides, so that there may be peers inside of an exception.
	Peers, Except []string
	// WaitForNames: peers whose names have no address are hurt once they have; else they are refused.
	WaitForNames bool
	// Include names what is meant though it is spared by default: see exclusionNames.
	Include []string
	// Ports are the peer's, LocalPorts the target's: "6379", "8000-8100"; none: all.
	Ports, LocalPorts []string
	// Protocol is "tcp", "udp", "sctp", "icmp" (also ICMPv6), or empty for all.
	Protocol string
	// State is "new": of TCP the segments that open a connection, or "established": all others.
	State string
	// TCPFlags must be set, such as "syn", or not be set, such as "!ack".
	TCPFlags []string
	// MinLength is that of a packet from its IP header on, in bytes.
	MinLength uint32
	// DSCP are names, such as "ef", or numbers of which a packet must have one; none: any.
	DSCP []string
	// peerless: what is hurt has no peer yet, so nobody can be spared.
	peerless bool
}

// trafficMessage is any kind of the schema that looks at traffic.
type trafficMessage interface {
	GetPeers() []string
	GetPorts() []string
	GetProtocol() string
	GetTraffic() *v1.Traffic
}

func newTraffic(m trafficMessage) Traffic {
	more := m.GetTraffic()
	return Traffic{
		Peers: m.GetPeers(), Ports: m.GetPorts(), Protocol: m.GetProtocol(),
		Except: more.GetExcept(), LocalPorts: more.GetLocalPorts(), State: more.GetState(), TCPFlags: more.GetTcpFlags(),
		MinLength: more.GetMinLength(), DSCP: more.GetDscp(), WaitForNames: more.GetWaitForNames(), Include: more.GetInclude(),
	}
}

func trafficParameters() []Parameter {
	return []Parameter{
		{"peers", "peers", "peers that are hurt: addresses, CIDRs, host names, selectors of other targets; none: all"},
		{"ports", "ports", "ports of the peer, such as 6379 or 8000-8100; none: all"},
		{"protocol", "tcp|udp|icmp|sctp", "icmp means ICMPv6 too; empty: every protocol"},
		{"traffic.except", "peers", "peers that are spared; the longest prefix decides"},
		{"traffic.localPorts", "ports", "ports of the target; none: all"},
		{"traffic.state", "new|established", "of TCP the segments that open a connection, or all others"},
		{"traffic.tcpFlags", "flags", "flags of TCP that must be set (syn) or not be set (!ack)"},
		{"traffic.minLength", "bytes", "only packets so long, from the IP header on"},
		{"traffic.waitForNames", "bool", "peers whose names have no address yet are hurt once they have one, instead of refused"},
		{"traffic.include", "names", "what is hurt though it is spared by default: ssh, gateway, dns, metadata, api-server, faultd"},
		{"traffic.dscp", "names", "only packets marked so, such as ef, af41, cs1 or 46"},
	}
}

// kernel gives the traffic as the kernel side sees it, with the addresses that names have.
func (t Traffic) kernel(named addresses) (k bpf.Traffic, err error) {
	if k.Peers, err = t.peers(named); err != nil {
		return k, err
	}
	if err := checkInclude(t.Include); err != nil {
		return k, err
	}
	if k.Ports, err = parsePorts("ports", t.Ports); err != nil {
		return k, err
	}
	if k.LocalPorts, err = parsePorts("traffic.localPorts", t.LocalPorts); err != nil {
		return k, err
	}
	if k.Protocol, err = parseProtocol(t.Protocol); err != nil {
		return k, err
	}
	if k.DSCP, err = parseDSCP(t.DSCP); err != nil {
		return k, err
	}
	k.MinLength = t.MinLength
	if err := t.ofTransport(k.Protocol); err != nil {
		return k, err
	}
	k.Opening, k.Established = t.State == "new", t.State == "established"
	if k.TCPMask, k.TCPFlags, err = parseTCPFlags(t.TCPFlags); err != nil {
		return k, err
	}
	return k, t.segmentsExist(k)
}

// segmentsExist refuses flags that no segment of the state has: new ones have SYN and no ACK, all others are established.
func (t Traffic) segmentsExist(k bpf.Traffic) error {
	syn, ack := tcpFlag("syn"), tcpFlag("ack")
	opens := k.TCPFlags&ack == 0 && (k.TCPMask&syn == 0 || k.TCPFlags&syn != 0)
	onlyOpens := k.TCPFlags&syn != 0 && k.TCPMask&ack != 0 && k.TCPFlags&ack == 0
	if k.Opening && !opens || k.Established && onlyOpens {
		return fmt.Errorf("traffic.tcpFlags: %s was given with state %s, and no segment is so: what opens a connection has syn and no ack, all others are established; leave one of them out", strings.Join(t.TCPFlags, ","), t.State)
	}
	return nil
}

// peers decides whom the traffic means, with the addresses that names have.
func (t Traffic) peers(named addresses) (bpf.Peers, error) {
	hurt, err := parsePeers("peers", t.Peers)
	if err != nil {
		return nil, err
	}
	except, err := parsePeers("traffic.except", t.Except)
	if err != nil {
		return nil, err
	}
	return decide(named.with(hurt), named.with(except), len(t.Peers) == 0, len(hurt.names)+len(except.names) > 0)
}

// names are all host names and selectors of the traffic.
func (t Traffic) names() []peerName {
	hurt, _ := parsePeers("peers", t.Peers) // validated before
	except, _ := parsePeers("traffic.except", t.Except)
	return slices.Concat(hurt.names, except.names)
}

// ofTransport refuses what the protocol does not have.
func (t Traffic) ofTransport(protocol uint16) error {
	if t.State != "" && t.State != "new" && t.State != "established" {
		return fmt.Errorf("traffic.state: %q is unknown; it must be new, established or empty", t.State)
	}
	if t.State != "" && protocol != unix.IPPROTO_TCP {
		return fmt.Errorf("traffic.state: %s is told from the segments of TCP, other protocols have no such thing; give protocol tcp too", t.State)
	}
	if len(t.TCPFlags) > 0 && protocol != unix.IPPROTO_TCP {
		return fmt.Errorf("traffic.tcpFlags: %s is of TCP alone; give protocol tcp too", strings.Join(t.TCPFlags, ","))
	}
	if protocol != unix.IPPROTO_ICMP {
		return nil
	}
	for _, ports := range []struct {
		field string
		given []string
	}{{"ports", t.Ports}, {"traffic.localPorts", t.LocalPorts}} {
		if len(ports.given) > 0 {
			return fmt.Errorf("%s: %s was given, and icmp has no ports; leave one of them out", ports.field, strings.Join(ports.given, ","))
		}
	}
	return nil
}

func parseProtocol(name string) (uint16, error) {
	protocols := map[string]uint16{"": 0, "tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "icmp": unix.IPPROTO_ICMP, "sctp": unix.IPPROTO_SCTP}
	protocol, ok := protocols[name]
	if !ok {
		return 0, fmt.Errorf("protocol: %q is unknown; it must be tcp, udp, icmp, sctp or empty", name)
	}
	return protocol, nil
}

// tcpFlags are in the order of their bits in the header.
func tcpFlags() []string { return []string{"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"} }

// tcpFlag is the bit of one.
func tcpFlag(name string) uint8 { return 1 << slices.Index(tcpFlags(), name) }

// parseTCPFlags reads "syn" and "!ack" as the flags that are looked at, and those of them that must be set.
func parseTCPFlags(texts []string) (mask, set uint8, err error) {
	for _, text := range texts {
		name, not := strings.CutPrefix(text, "!")
		i := slices.Index(tcpFlags(), name)
		if i < 0 {
			return 0, 0, fmt.Errorf("traffic.tcpFlags: %q is unknown; write %s, or !syn for a flag that must not be set", text, strings.Join(tcpFlags(), ", "))
		}
		bit := uint8(1) << i
		if mask&bit != 0 && (set&bit == 0) != not {
			return 0, 0, fmt.Errorf("traffic.tcpFlags: %s shall be set and not set; no packet is so", name)
		}
		mask |= bit
		if !not {
			set |= bit
		}
	}
	return mask, set, nil
}

// parseDSCP reads names and numbers as a set of 1 << DSCP.
func parseDSCP(texts []string) (set uint64, err error) {
	for _, text := range texts {
		n, err := strconv.ParseUint(text, 10, 8)
		if named, ok := dscpNames()[strings.ToLower(text)]; ok {
			n, err = named, nil
		}
		if err != nil || n > 63 {
			return 0, fmt.Errorf("traffic.dscp: %q is unknown; write a number in 0-63, or cs0 to cs7, af11 to af43, ef, va, le", text)
		}
		set |= 1 << n
	}
	return set, nil
}

// dscpNames are those of RFC 2474, 2597, 3246, 5865 and 8622.
func dscpNames() map[string]uint64 {
	names := map[string]uint64{"ef": 46, "va": 44, "le": 1}
	for class := range uint64(8) {
		names[fmt.Sprintf("cs%d", class)] = class << 3
		for drop := uint64(1); class >= 1 && class <= 4 && drop <= 3; drop++ {
			names[fmt.Sprintf("af%d%d", class, drop)] = class<<3 | drop<<1
		}
	}
	return names
}

// ofConnections refuses what a connection does not have before its first packet is made, or, with blackhole, what that packet
// decides by itself.
func (t Traffic) ofConnections(blackhole bool) error {
	if !blackhole && (t.Protocol == "icmp" || t.Protocol == "sctp") {
		return fmt.Errorf("protocol: %s runs none of the hooks that an errno needs; it must be tcp, udp or empty, or give blackhole instead of errno", t.Protocol)
	}
	for _, of := range []struct {
		field string
		given bool
		why   string
	}{
		{"localPorts", len(t.LocalPorts) > 0 && !blackhole, "the local port is not chosen yet when a connection fails with an errno; with blackhole it works"},
		{"state", t.State != "", "a connection that is hurt is new"},
		{"tcpFlags", len(t.TCPFlags) > 0, "connections are hurt by their first packet, whose flags are known"},
		{"minLength", t.MinLength > 0, "it is of packets"},
		{"dscp", len(t.DSCP) > 0, "it is of packets"},
	} {
		if of.given {
			return fmt.Errorf("traffic.%s: it has no meaning here: %s; the kind packet has it", of.field, of.why)
		}
	}
	return nil
}
