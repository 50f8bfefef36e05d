package bpf

import (
	"fmt"
)

const (
	// MaxPorts is how many ranges of one side's ports a rule may have.
	MaxPorts = 8
	// MaxPeers is how many prefixes of peers a rule may have.
	MaxPeers = 4096
)

// Flags of traffic (enum traffic_flag).
const (
	trafficPeers       = 1
	trafficOpening     = 2
	trafficEstablished = 4
	trafficPayload     = 8
	trafficSpareSSH    = 16
)

// Ports is a range of ports, both ends included.
type Ports struct{ Low, High uint16 }

// Traffic says which connections or packets a rule means: everything must fit. The zero Traffic means all.
type Traffic struct {
	// Peers decides by the peer's address; nil: every peer fits.
	Peers Peers
	// Ports are the peer's, LocalPorts the target's; none: any.
	Ports, LocalPorts []Ports
	// Protocol is IPPROTO_*, where IPPROTO_ICMP means ICMPv6 too; 0: any.
	Protocol uint16
	// Opening: of TCP only the segments that open a connection. Established: of TCP only the others.
	Opening, Established bool
	// Payload: of TCP only segments that carry data.
	Payload bool
	// SpareSSH spares TCP of the local port 22.
	SpareSSH bool
	// TCPMask are the flags of TCP that are looked at, TCPFlags those of them that must be set.
	TCPMask, TCPFlags uint8
	// MinLength is that of a packet from its IP header on.
	MinLength uint32
	// DSCP is a set of 1 << DSCP; 0: any.
	DSCP uint64
}

func (t Traffic) check() error {
	if len(t.Ports) > MaxPorts || len(t.LocalPorts) > MaxPorts {
		return fmt.Errorf("ports: %d and %d local ranges, at most %d are possible", len(t.Ports), len(t.LocalPorts), MaxPorts)
	}
	if t.TCPFlags&^t.TCPMask != 0 {
		return fmt.Errorf("flags of TCP: %#x are not among those that are looked at, %#x", t.TCPFlags, t.TCPMask)
	}
	return t.Peers.check()
}

func (t Traffic) encode() sharedTraffic {
	e := sharedTraffic{
		Dscp: t.DSCP, MinLength: t.MinLength, Protocol: t.Protocol, Ports: uint8(len(t.Ports)), LocalPorts: uint8(len(t.LocalPorts)),
		TcpMask: t.TCPMask, TcpFlags: t.TCPFlags,
	}
	for _, f := range []struct {
		on   bool
		flag uint32
	}{{t.Peers != nil, trafficPeers}, {t.Opening, trafficOpening}, {t.Established, trafficEstablished}, {t.Payload, trafficPayload}, {t.SpareSSH, trafficSpareSSH}} {
		if f.on {
			e.Flags |= f.flag
		}
	}
	for i, p := range t.Ports {
		e.Port[i] = sharedPortRange{Low: p.Low, High: p.High}
	}
	for i, p := range t.LocalPorts {
		e.LocalPort[i] = sharedPortRange{Low: p.Low, High: p.High}
	}
	return e
}
