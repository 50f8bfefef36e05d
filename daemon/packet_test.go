package daemon_test

import (
	"fmt"
	"testing"

	v1 "faultd/api/faultd/v1alpha1"
)

// TestLossIsSilent has a sender that asks to be told of losses.
func TestLossIsSilent(t *testing.T) {
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
		"everything": {&v1.Packet{}, [3]bool{true, true, true}},
		"address":    {&v1.Packet{Peers: []string{"127.0.0.2"}}, [3]bool{false, true, false}},
		"CIDR":       {&v1.Packet{Peers: []string{"127.0.0.0/8"}}, [3]bool{true, true, false}},
		"IPv6":       {&v1.Packet{Peers: []string{"::/64"}}, [3]bool{false, false, true}},
		"all":        {&v1.Packet{Peers: []string{"::/0", "0.0.0.0/0"}}, [3]bool{true, true, true}},
		"elsewhere":  {&v1.Packet{Peers: []string{"10.0.0.0/8", "2001:db8::/32"}}, [3]bool{}},
		"protocol":   {&v1.Packet{Protocol: "tcp"}, [3]bool{}},
		"port":       {&v1.Packet{Ports: []string{port(one.address)}, Peers: []string{"127.0.0.1"}, Protocol: "udp"}, [3]bool{true, false, false}},
		"other port": {&v1.Packet{Ports: []string{"1"}}, [3]bool{}},
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
