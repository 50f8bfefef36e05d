package daemon_test

import (
	"fmt"
	"testing"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/kernels"
)

// TestLossIsSilent has a sender that asks to be told of losses.
func TestLossIsSilent(t *testing.T) {
	kernels.OnEdges(t)
	const sends = 50
	n := startNode(t)
	target, sibling := n.target(), n.target()
	w, other := n.worker(target), n.worker(sibling)
	all := fmt.Sprintf("map[ok:%d]", sends)
	f := n.inject(lose(target, &v1.Packet{Loss: 100, Direction: "egress", Protocol: "udp"}))
	receivers := []*receiver{receive(t, "127.0.0.1:0"), receive(t, "[::1]:0")}
	for _, r := range receivers {
		w.wants(all, "send %s %d 1", r.address, sends)
		other.wants(all, "send %s %d 1", r.address, sends)
		n.until("the sibling's arrive", func() bool { return r.count() == sends })
	}
	if c := n.settled(f.GetId()); c.GetInjected() != 2*sends || c.GetEvaluated() != 2*sends {
		t.Errorf("counted %v", c)
	}
	n.stop(f.GetId())
	for _, r := range receivers {
		w.wants(all, "send %s %d 1", r.address, sends)
		n.until("they arrive again", func() bool { return r.count() == 2*sends })
	}
}

// TestTCPSurvivesLoss sends lines to and fro while every fifth segment is lost in each direction.
func TestTCPSurvivesLoss(t *testing.T) {
	kernels.OnOldest(t)
	const lines = "20"
	n, server := startNode(t), tcpServer(t, "127.0.0.1:0")
	target := n.target()
	w := n.worker(target)
	w.wants("opened", "open %s", server)
	without, err := echoed(w.do("echo %s", lines))
	if err != nil {
		t.Fatal(err)
	}
	spec := lose(target, &v1.Packet{Loss: 20, Protocol: "tcp"})
	seed := uint64(1)
	spec.Seed = &seed
	f := n.inject(spec)
	with, err := echoed(w.do("echo %s", lines))
	if err != nil || with.hash != without.hash || with.again <= without.again {
		t.Errorf("with loss: %v, %v, without: %v", with, err, without)
	}
	if c := n.settled(f.GetId()); c.GetInjected() == 0 || c.GetSpared() == 0 {
		t.Errorf("counted %v", c)
	}
}

// TestFlowsAreLostWhole sends many datagrams each from many sockets.
func TestFlowsAreLostWhole(t *testing.T) {
	kernels.OnOldest(t)
	const flows, each = 64, 8
	n, udp := startNode(t), receive(t, "127.0.0.1:0")
	target := n.target()
	w := n.worker(target)
	f := n.inject(lose(target, &v1.Packet{Loss: 50, PerFlow: true, Direction: "egress"}))
	w.wants("sent", "flows %s %d %d", udp.address, flows, each)
	c := n.settled(f.GetId())
	n.until("what is not lost arrives", func() bool { return uint64(udp.count()) == c.GetSpared() })
	arrived := udp.flows()[each]
	if len(udp.flows()) != 1 || arrived == 0 || arrived == flows {
		t.Errorf("datagrams per flow: %v", udp.flows())
	}
	if want := uint64((flows - arrived) * each); c.GetInjected() != want || c.GetMatched() != flows*each {
		t.Errorf("counted %v, want %d lost", c, want)
	}
}

func TestPacketFilters(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target := n.target()
	w := n.worker(target)
	one, two, six := receive(t, "127.0.0.1:0"), receive(t, "127.0.0.2:0"), receive(t, "[::1]:0")
	receivers := []*receiver{one, two, six}
	elsewhere := n.target()
	n.worker(elsewhere)
	n.inject(lose(elsewhere, &v1.Packet{Loss: 1})) // keeps the programs loaded
	for name, c := range map[string]struct {
		filter *v1.Packet
		lost   [3]bool
	}{
		"everything":              {&v1.Packet{}, [3]bool{true, true, true}},
		"address":                 {&v1.Packet{Peers: []string{"127.0.0.2"}}, [3]bool{false, true, false}},
		"CIDR":                    {&v1.Packet{Peers: []string{"127.0.0.0/8"}}, [3]bool{true, true, false}},
		"IPv6":                    {&v1.Packet{Peers: []string{"::/64"}}, [3]bool{false, false, true}},
		"all":                     {&v1.Packet{Peers: []string{"::/0", "0.0.0.0/0"}}, [3]bool{true, true, true}},
		"elsewhere":               {&v1.Packet{Peers: []string{"10.0.0.0/8", "2001:db8::/32"}}, [3]bool{}},
		"protocol":                {&v1.Packet{Protocol: "tcp"}, [3]bool{}},
		"port":                    {&v1.Packet{Ports: []string{port(one.address)}, Peers: []string{"127.0.0.1"}, Protocol: "udp"}, [3]bool{true, false, false}},
		"other port":              {&v1.Packet{Ports: []string{"1"}}, [3]bool{}},
		"except":                  {&v1.Packet{Traffic: &v1.Traffic{Except: []string{"127.0.0.1"}}}, [3]bool{false, true, true}},
		"except IPv4":             {&v1.Packet{Traffic: &v1.Traffic{Except: []string{"0.0.0.0/0"}}}, [3]bool{false, false, true}},
		"except IPv6":             {&v1.Packet{Traffic: &v1.Traffic{Except: []string{"::/0"}}}, [3]bool{true, true, false}},
		"peer in except in peers": {&v1.Packet{Peers: []string{"127.0.0.0/8", "127.0.0.2/32", "127.0.0.0/8"}, Traffic: &v1.Traffic{Except: []string{"127.0.0.0/16", "127.0.0.0/24"}}}, [3]bool{false, true, false}},
		"except inside of peers":  {&v1.Packet{Peers: []string{"127.0.0.0/8", "::/0"}, Traffic: &v1.Traffic{Except: []string{"127.0.0.2", "::2/127"}}}, [3]bool{true, false, true}},
		"1000 CIDRs":              {&v1.Packet{Peers: thousand("127.0.0.2")}, [3]bool{false, true, false}},
		"short":                   {&v1.Packet{Traffic: &v1.Traffic{MinLength: 30}}, [3]bool{false, false, true}},
		"marked":                  {&v1.Packet{Traffic: &v1.Traffic{Dscp: []string{"ef", "af41"}}}, [3]bool{}},
		"not marked":              {&v1.Packet{Traffic: &v1.Traffic{Dscp: []string{"ef", "cs0"}}}, [3]bool{true, true, true}},
		"local port":              {&v1.Packet{Traffic: &v1.Traffic{LocalPorts: []string{"1"}}}, [3]bool{}},
		"any local port":          {&v1.Packet{Traffic: &v1.Traffic{LocalPorts: []string{"1-65535"}}}, [3]bool{true, true, true}},
	} {
		c.filter.Loss, c.filter.Direction = 100, "egress"
		f := n.inject(lose(target, c.filter))
		for i, r := range receivers {
			before := r.count()
			w.wants("map[ok:2]", "send %s 2 1", r.address)
			if !c.lost[i] {
				n.until(name+": it arrives", func() bool { return r.count() == before+2 })
			}
		}
		want := uint64(0)
		for _, lost := range c.lost {
			if lost {
				want += 2
			}
		}
		if c := n.settled(f.GetId()); c.GetInjected() != want || c.GetMatched() != want || c.GetEvaluated() != 6 {
			t.Errorf("%s: counted %v, want %d lost of 6", name, c, want)
		}
		n.stop(f.GetId())
	}
}

// TestIngressLoss loses what is sent to the target.
func TestIngressLoss(t *testing.T) {
	kernels.OnOldest(t)
	n := startNode(t)
	target, sibling := n.target(), n.target()
	w, other := n.worker(target), n.worker(sibling)
	address, otherAddress := w.do("hear 127.0.0.1:0"), other.do("hear 127.0.0.1:0")
	f := n.inject(lose(target, &v1.Packet{Loss: 100, Direction: "ingress"}))
	if f.GetMechanism() != "cgroup-skb" {
		t.Errorf("done by %s", f.GetMechanism())
	}
	sender := n.worker(n.target())
	sender.wants("map[ok:10]", "send %s 10 1", address)
	n.until("all are lost", func() bool { return n.get(f.GetId()).GetCounters().GetInjected() == 10 })
	w.wants("0", "heard")
	heard := func(by *worker) func() bool {
		sum := 0
		return func() bool {
			var got int
			fmt.Sscan(by.do("heard"), &got)
			sum += got
			return sum == 10
		}
	}
	sender.wants("map[ok:10]", "send %s 10 1", otherAddress)
	n.until("the sibling hears", heard(other))
	n.stop(f.GetId())
	sender.wants("map[ok:10]", "send %s 10 1", address)
	n.until("the target hears again", heard(w))
}

// thousand gives so many prefixes: most are elsewhere, overlap and repeat; one is an address.
func thousand(address string) []string {
	prefixes := []string{address}
	for i := len(prefixes); i < 1000; i++ {
		prefixes = append(prefixes, fmt.Sprintf("10.%d.%d.0/%d", i%7, i%250, 16+i%9))
	}
	return prefixes
}

// TestPacketStates tells segments of TCP apart: those that open a connection, and what their flags say.
func TestPacketStates(t *testing.T) {
	kernels.OnOldest(t)
	n, server := startNode(t), tcpServer(t, "127.0.0.1:0")
	target := n.target()
	w := n.worker(target)
	w.wants("opened", "open %s", server)
	for name, c := range map[string]struct {
		traffic *v1.Traffic
		// dials says what becomes of a new connection, lost whether something of the old one is lost.
		dials string
		lost  bool
	}{
		"new":         {&v1.Traffic{State: "new"}, "timeout", false},
		"SYN":         {&v1.Traffic{TcpFlags: []string{"syn", "!ack"}}, "timeout", false},
		"established": {&v1.Traffic{State: "established"}, "ok", true}, // for the sender: its ACK is lost, and it does not wait for anything
		"data":        {&v1.Traffic{TcpFlags: []string{"psh"}}, "ok", true},
		"resets":      {&v1.Traffic{TcpFlags: []string{"rst"}}, "ok", false},
	} {
		spec := lose(target, &v1.Packet{Loss: 100, Direction: "egress", Protocol: "tcp", Ports: []string{port(server)}, Traffic: c.traffic})
		spec.MaxHits = 2 // so that what is lost of the old connection gets through in the end
		f := n.inject(spec)
		if _, err := echoed(w.do("echo 3")); err != nil {
			t.Errorf("%s: the old connection: %v", name, err)
		}
		if lost := n.settled(f.GetId()).GetInjected() > 0; lost != c.lost {
			t.Errorf("%s: of the old connection something was lost: %v, want %v", name, lost, c.lost)
		}
		n.stop(f.GetId())
		f = n.inject(lose(target, &v1.Packet{Loss: 100, Direction: "egress", Protocol: "tcp", Ports: []string{port(server)}, Traffic: c.traffic}))
		w.wants("map["+c.dials+":1]", "dial tcp4 %s 200ms 1 1", server)
		n.stop(f.GetId())
	}
	if _, err := echoed(w.do("echo 3")); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
