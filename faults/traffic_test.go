package faults

import (
	"net/netip"
	"slices"
	"testing"

	"faultd/bpf"
)

// TestDecide: of peers and exceptions that hold an address the longest decides.
func TestDecide(t *testing.T) {
	for name, c := range map[string]struct {
		traffic      Traffic
		hurt, spared []string
	}{
		"exception":              {Traffic{Except: []string{"10.0.0.0/8"}}, []string{"11.0.0.1", "::1"}, []string{"10.1.2.3"}},
		"peers":                  {Traffic{Peers: []string{"10.0.0.0/8"}}, []string{"10.1.2.3"}, []string{"11.0.0.1", "::1"}},
		"duplicates, contained":  {Traffic{Peers: []string{"10.0.0.0/8", "10.0.0.0/8", "10.1.0.0/16"}}, []string{"10.1.2.3", "10.2.2.3"}, []string{"11.0.0.1"}},
		"exception in peers":     {Traffic{Peers: []string{"10.0.0.0/8"}, Except: []string{"10.1.0.0/16"}}, []string{"10.2.0.1"}, []string{"10.1.0.1"}},
		"peers in an exception":  {Traffic{Peers: []string{"10.1.0.0/16"}, Except: []string{"10.0.0.0/8"}}, []string{"10.1.0.1"}, []string{"10.2.0.1", "11.0.0.1"}},
		"three deep":             {Traffic{Peers: []string{"10.0.0.0/8", "10.1.1.0/24"}, Except: []string{"10.1.0.0/16", "10.1.1.1"}}, []string{"10.2.0.1", "10.1.1.2"}, []string{"10.1.2.1", "10.1.1.1"}},
		"all but one":            {Traffic{Peers: []string{"10.0.0.0/30"}, Except: []string{"10.0.0.0/31", "10.0.0.3"}}, []string{"10.0.0.2"}, []string{"10.0.0.1", "10.0.0.3"}},
		"all IPv6 is no IPv4":    {Traffic{Peers: []string{"::/0"}}, []string{"::1"}, []string{"10.1.2.3"}},
		"all IPv6 is no IPv4, 2": {Traffic{Except: []string{"::/0"}}, []string{"10.1.2.3"}, []string{"::1"}},
	} {
		k, err := c.traffic.kernel(nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, address := range slices.Concat(c.hurt, c.spared) {
			if got, want := k.Peers.Of(netip.MustParseAddr(address)).Hurt, slices.Contains(c.hurt, address); got != want {
				t.Errorf("%s: %s is hurt: %v, want %v", name, address, got, want)
			}
		}
	}
	if k, err := (Traffic{}).kernel(nil); err != nil || k.Peers != nil {
		t.Errorf("no peers mean %v, %v", k.Peers, err)
	}
}

func TestTrafficRefuses(t *testing.T) {
	for _, c := range []struct {
		traffic      Traffic
		field, value string
	}{
		{Traffic{Except: []string{"10.0.0.0/33"}}, "traffic.except", "10.0.0.0/33"},
		{Traffic{Except: []string{"::/0", "0.0.0.0/0"}}, "traffic.except", "::/0"},
		{Traffic{Peers: []string{"10.0.0.0/8"}, Except: []string{"10.2.0.0/8"}}, "traffic.except", "10.0.0.0/8"},
		{Traffic{Peers: []string{"10.0.0.0/8"}, Except: []string{"10.0.0.0/9", "10.128.0.0/9"}}, "traffic.except", "10.0.0.0/9"},
		{Traffic{Except: []string{"::/0", "128.0.0.0/1", "0.0.0.0/1"}}, "traffic.except", "::/0"},
		{Traffic{Peers: []string{"fd00::/127"}, Except: []string{"fd00::", "fd00::1"}}, "traffic.except", "fd00::"},
		{Traffic{Peers: []string{"10.0.0.0/8", "10.0.0.0/9"}, Except: []string{"10.128.0.0/9", "10.0.0.0/10", "10.64.0.0/10"}}, "traffic.except", "10.128.0.0/9"},
		{Traffic{Ports: []string{"0"}}, "ports", "0"},
		{Traffic{Ports: []string{"65536"}}, "ports", "65536"},
		{Traffic{LocalPorts: []string{"0"}}, "traffic.localPorts", "0"},
		{Traffic{LocalPorts: []string{"1-65536"}}, "traffic.localPorts", "1-65536"},
		{Traffic{LocalPorts: make([]string, 9)}, "traffic.localPorts", "9 ranges"},
		{Traffic{Protocol: "gre"}, "protocol", "gre"},
		{Traffic{Protocol: "TCP"}, "protocol", "TCP"},
		{Traffic{Protocol: "icmp", Ports: []string{"80"}}, "ports", "80"},
		{Traffic{Protocol: "icmp", LocalPorts: []string{"80"}}, "traffic.localPorts", "80"},
		{Traffic{Protocol: "udp", State: "new"}, "traffic.state", "new"},
		{Traffic{State: "established"}, "traffic.state", "established"},
		{Traffic{Protocol: "tcp", State: "old"}, "traffic.state", "old"},
		{Traffic{TCPFlags: []string{"syn"}}, "traffic.tcpFlags", "syn"},
		{Traffic{Protocol: "tcp", TCPFlags: []string{"SYN"}}, "traffic.tcpFlags", "SYN"},
		{Traffic{Protocol: "tcp", TCPFlags: []string{"syn", "!syn"}}, "traffic.tcpFlags", "syn"},
		{Traffic{Protocol: "tcp", State: "new", TCPFlags: []string{"ack"}}, "traffic.tcpFlags", "ack"},
		{Traffic{Protocol: "tcp", State: "new", TCPFlags: []string{"psh", "!syn"}}, "traffic.tcpFlags", "!syn"},
		{Traffic{Protocol: "tcp", State: "established", TCPFlags: []string{"!ack", "syn"}}, "traffic.tcpFlags", "!ack,syn"},
		{Traffic{DSCP: []string{"64"}}, "traffic.dscp", "64"},
		{Traffic{DSCP: []string{"af44"}}, "traffic.dscp", "af44"},
	} {
		_, err := c.traffic.kernel(nil)
		refused(t, c.field, c.value, err)
	}
}

func TestTrafficNumbers(t *testing.T) {
	k, err := Traffic{Protocol: "tcp", State: "established", TCPFlags: []string{"psh", "!fin", "psh"}, DSCP: []string{"EF", "af41", "cs1", "0", "le"}, MinLength: 99,
		Ports: []string{"443"}, LocalPorts: []string{"1-2", "9"}}.kernel(nil)
	if err != nil {
		t.Fatal(err)
	}
	if k.Protocol != 6 || !k.Established || k.Opening || k.TCPMask != 0x09 || k.TCPFlags != 0x08 || k.MinLength != 99 {
		t.Errorf("got %+v", k)
	}
	if want := uint64(1<<46 | 1<<34 | 1<<8 | 1<<0 | 1<<1); k.DSCP != want {
		t.Errorf("DSCP is %#x, want %#x", k.DSCP, want)
	}
	if !slices.Equal(k.Ports, []bpf.Ports{{Low: 443, High: 443}}) || !slices.Equal(k.LocalPorts, []bpf.Ports{{Low: 1, High: 2}, {Low: 9, High: 9}}) {
		t.Errorf("ports are %v and %v", k.Ports, k.LocalPorts)
	}
	for name, want := range map[string]uint16{"": 0, "tcp": 6, "udp": 17, "icmp": 1, "sctp": 132} {
		if got, err := parseProtocol(name); err != nil || got != want {
			t.Errorf("%q is %d, %v", name, got, err)
		}
	}
}
