package daemon_test

import (
	"bufio"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/kernels"
	"faultd/test/nft"
)

// household is a network namespace in which two targets and a sibling live, each with a server of lines and one of datagrams that are bound to
// any address, and connections to the far end.
type household struct {
	*homed
	members []*member
}

// member is one of them, with its ports.
type member struct {
	name     string
	target   cgroup.Target
	w        *worker
	tcp, udp string
}

func startHousehold(t *testing.T) *household {
	t.Helper()
	return inhabited(startHomed(t), "first", "second", "sibling")
}

// inhabited has members in a namespace, of which the first is the target's worker.
func inhabited(home *homed, names ...string) *household {
	home.t.Helper()
	x := &household{homed: home}
	for _, name := range names {
		m := &member{name: name, target: x.target, w: x.w}
		if len(x.members) > 0 {
			m.target = x.n.target()
			x.inside(x.near, func() { m.w = x.n.worker(m.target) })
		}
		m.tcp, m.udp = portOf(m.w.do("serve [::]:0")), portOf(m.w.do("answer [::]:0"))
		x.members = append(x.members, m)
	}
	return x
}

func portOf(address string) string { return strconv.Itoa(int(netip.MustParseAddrPort(address).Port())) }

// trip is how long something takes by the network.
type trip struct {
	name string
	took time.Duration
}

// trips are all ways to a member, and its own to the far end; of what is asked several times the median.
func (x *household) trips(m *member, times int) (all []trip) {
	x.t.Helper()
	for _, near := range []string{near4, near6} {
		opened, echoed := x.lines(net.JoinHostPort(near, m.tcp), times)
		all = append(all, trip{"opening a connection to " + near, opened}, trip{"a line to " + near, echoed},
			trip{"a datagram to " + near, x.datagrams(net.JoinHostPort(near, m.udp), times)})
	}
	return append(all, trip{"an echo by IPv4", m.w.median(x.far4.address, times)}, trip{"an echo by IPv6", m.w.median(x.far6.address, times)})
}

// lines opens connections from the far end, and has lines sent back by the last.
func (x *household) lines(address string, times int) (opened, echoed time.Duration) {
	x.t.Helper()
	var c net.Conn
	opened = medianOf(times, func() {
		one := x.dial("tcp", address)
		x.t.Cleanup(func() { one.Close() })
		c = one
	})
	answers := bufio.NewReader(c)
	return opened, medianOf(times, func() {
		_, err := c.Write([]byte("line\n"))
		x.must(err)
		_, err = answers.ReadString('\n')
		x.must(err)
	})
}

func (x *household) datagrams(address string, times int) time.Duration {
	x.t.Helper()
	c := x.dial("udp", address)
	defer c.Close()
	buffer := make([]byte, 16)
	return medianOf(times, func() {
		_, err := c.Write([]byte("datagram"))
		x.must(err)
		_, err = c.Read(buffer)
		x.must(err)
	})
}

func (x *household) dial(network, address string) (c net.Conn) {
	x.t.Helper()
	x.inside(x.far, func() {
		var err error
		c, err = net.DialTimeout(network, address, patience)
		x.must(err)
	})
	x.must(c.SetDeadline(time.Now().Add(patience)))
	return c
}

func medianOf(times int, f func()) time.Duration {
	took := make([]time.Duration, times)
	for i := range took {
		begun := time.Now()
		f()
		took[i] = time.Since(begun)
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// late checks that of some members all is late, and of the others nothing.
func (x *household) late(when string, who ...*member) {
	x.t.Helper()
	for _, m := range x.members {
		hurt, times := slices.Contains(who, m), 3
		if hurt {
			times = 1
		}
		for _, trip := range x.trips(m, times) {
			if hurt != (trip.took >= slow) {
				x.t.Errorf("%s: of %s %s takes %s; late by %s: %v", when, m.name, trip.name, trip.took, slow, hurt)
			}
			x.t.Logf("%s: of %s %s takes %s", when, m.name, trip.name, trip.took)
		}
	}
}

// TestIncomingShared hurts what comes to one member's sockets, then to two members' at once, and to nobody else's.
func TestIncomingShared(t *testing.T) {
	kernels.OnEdges(t)
	x := startHousehold(t)
	first, second := x.members[0], x.members[1]
	one := x.n.inject(x.comingTo(first, &v1.Packet{Delay: slow.String()}))
	if notes := strings.Join(one.GetNotes(), "; "); !strings.Contains(notes, "by socket look-up") || !strings.Contains(notes, "is in it too") || strings.Contains(notes, "opens a connection") {
		t.Errorf("it notes %q", notes)
	}
	x.late("one", first)
	x.wantsCounted(one)
	two := x.n.inject(x.comingTo(second, &v1.Packet{Delay: slow.String()}))
	x.late("both", first, second)
	x.n.stop(one.GetId())
	x.late("the second alone", second)
	if got := x.n.stop(two.GetId()); got.GetVerdict() != "injected" {
		t.Errorf("stopped as %v", got)
	}
	x.late("after")
	x.asBefore()
	x.n.idle()
}

// comingTo is a fault of what comes to a member.
func (x *household) comingTo(m *member, p *v1.Packet) *v1.FaultSpec {
	p.Direction = "ingress"
	return lose(m.target, p)
}

// wantsCounted: of all that was hurt nothing was spared, and what comes to others is not even looked at.
func (x *household) wantsCounted(f *v1.Fault) {
	x.t.Helper()
	before := x.n.settled(f.GetId())
	if before.GetInjected() < 10 || before.GetInjected() != before.GetMatched() {
		x.t.Errorf("counted %v", before)
	}
	for _, m := range x.members[1:] {
		x.trips(m, 1)
	}
	if after := x.n.settled(f.GetId()); after.GetEvaluated() != before.GetEvaluated() {
		x.t.Errorf("of others are counted: %v, before %v", after, before)
	}
}

// TestIncomingForwarded: what comes for somebody else, whom the namespace forwards it to, is not taken for a socket's that is bound to the same
// port of any address; of IPv6 neither by a device that is said to forward nothing, while the namespace does.
func TestIncomingForwarded(t *testing.T) {
	kernels.OnEdges(t)
	x := startHousehold(t)
	first := x.members[0]
	beyond := newNetNS(t)
	x.forwardTo(beyond)
	var w *worker
	x.inside(beyond, func() { w = x.n.worker(x.n.target()) })
	w.wants("[::]:"+first.tcp, "serve [::]:%s", first.tcp)
	w.wants("[::]:"+first.udp, "answer [::]:%s", first.udp)
	for _, address := range []string{beyond4, beyond6} { // the first packets of all look for their neighbours
		x.lines(net.JoinHostPort(address, first.tcp), 1)
	}
	f := x.n.inject(x.comingTo(first, &v1.Packet{Delay: slow.String()}))
	for _, off := range []string{"", "near"} {
		x.inside(x.near, func() {
			if off != "" {
				x.must(os.WriteFile("/proc/sys/net/ipv6/conf/"+off+"/forwarding", []byte("0"), 0))
			}
		})
		before := x.n.settled(f.GetId())
		for _, address := range []string{beyond4, beyond6} {
			opened, echoed := x.lines(net.JoinHostPort(address, first.tcp), 1)
			datagrams := x.datagrams(net.JoinHostPort(address, first.udp), 1)
			if max(opened, echoed, datagrams) >= slow {
				t.Errorf("to %s, beyond the namespace, opening a connection takes %s, a line %s, a datagram %s", address, opened, echoed, datagrams)
			}
		}
		if after := x.n.settled(f.GetId()); after.GetEvaluated() != before.GetEvaluated() {
			t.Errorf("what is forwarded is counted: %v, before %v", after, before)
		}
	}
	x.late("with forwarding", first)
	x.n.stop(f.GetId())
	x.n.idle()
}

// The addresses beyond the namespace.
const beyond4, beyond6 = "10.99.0.2", "fd99::2"

// forwardTo makes the near namespace a router between the far one and another.
func (x *household) forwardTo(beyond *os.File) {
	x.t.Helper()
	x.inside(x.near, func() {
		x.must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "out"}, PeerName: "in", PeerNamespace: netlink.NsFd(beyond.Fd())}))
		x.up("out", "10.99.0.1/24", "fd99::1/64")
		for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			x.must(os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0))
		}
	})
	route := func(destination, gateway string) {
		_, to, err := net.ParseCIDR(destination)
		x.must(err)
		x.must(netlink.RouteAdd(&netlink.Route{Dst: to, Gw: net.ParseIP(gateway)}))
	}
	x.inside(beyond, func() {
		x.up("lo")
		x.up("in", beyond4+"/24", beyond6+"/64")
		route("10.77.0.0/24", "10.99.0.1")
		route("fd77::/64", "fd99::1")
	})
	x.inside(x.far, func() {
		route("10.99.0.0/24", near4)
		route("fd99::/64", near6)
	})
}

// TestIncomingRewritten: where addresses may be rewritten before a socket is looked for, only connections wait, as long as that is so.
func TestIncomingRewritten(t *testing.T) {
	kernels.OnOldest(t)
	if why := nft.Missing(); why != nil {
		t.Skip(why)
	}
	x := startHousehold(t)
	first := x.members[0]
	x.inside(x.near, func() { nft.AddChain(t, "rewriting") })
	f := x.n.inject(x.comingTo(first, &v1.Packet{Delay: slow.String()}))
	named := func() bool {
		return strings.Contains(strings.Join(x.n.get(f.GetId()).GetNotes(), "; "), "as there is the chain rewriting of nftables")
	}
	if !named() {
		t.Errorf("it notes %q", x.n.get(f.GetId()).GetNotes())
	}
	for _, near := range []string{near4, near6} {
		opened, echoed := x.lines(net.JoinHostPort(near, first.tcp), 1)
		datagrams := x.datagrams(net.JoinHostPort(near, first.udp), 1)
		if opened >= slow || echoed < slow || datagrams >= slow {
			t.Errorf("to %s opening a connection takes %s, a line %s, a datagram to a socket without a peer %s", near, opened, echoed, datagrams)
		}
	}
	if got := x.w.median(x.far4.address, 3); got < slow {
		t.Errorf("an echo to a socket with a peer takes %s", got)
	}
	x.inside(x.near, func() { nft.DeleteTable(t) })
	x.n.until("it is noticed that nothing is rewritten any more", func() bool { return !named() })
	x.late("when nothing is rewritten", first)
	x.n.stop(f.GetId())
	x.n.idle()
}

// TestIncomingSharedIsUndone once the daemon is killed.
func TestIncomingSharedIsUndone(t *testing.T) {
	kernels.OnOldest(t)
	x := startHousehold(t)
	x.n.inject(x.comingTo(x.members[0], &v1.Packet{Delay: slow.String()}))
	x.n.inject(x.comingTo(x.members[1], &v1.Packet{Delay: "10ms"}))
	x.late("both", x.members[0])
	x.n.dies(func() {
		x.late("killed")
		x.asBefore()
	})
	x.n.idle()
}

// TestIncomingOfPodAndContainer: what comes to a container's sockets is hurt by its own faults, and by those of the pod, which has the network
// namespace for itself; what comes to others in the pod by those of the pod.
func TestIncomingOfPodAndContainer(t *testing.T) {
	kernels.OnOldest(t)
	needsNetem(t)
	n, l := startNode(t), newLane(t)
	pod := n.target()
	container := n.child(pod)
	var w, sibling *worker
	l.inside(l.near, func() { w, sibling = n.worker(container), n.worker(pod) })
	far4, far6 := l.listen(far4+":0"), l.listen("["+far6+"]:0")
	w.median(far4.address, 1)
	w.median(far6.address, 1)
	late := func(when string, w4, w6, sibling4, sibling6 bool) {
		t.Helper()
		for _, c := range []struct {
			of   *worker
			to   *listener
			late bool
		}{{w, far4, w4}, {w, far6, w6}, {sibling, far4, sibling4}, {sibling, far6, sibling6}} {
			if got := c.of.median(c.to.address, 1); (got >= slow) != c.late || got >= 2*slow {
				t.Errorf("%s: an echo from %s takes %s, late: %v", when, c.to.address, got, c.late)
			}
		}
	}
	ofPod := lose(pod, &v1.Packet{Delay: slow.String(), Direction: "ingress", Peers: []string{"0.0.0.0/0"}})
	ofContainer := lose(container, &v1.Packet{Delay: slow.String(), Direction: "ingress", Peers: []string{"::/0"}})
	for _, podFirst := range []bool{true, false} {
		order := []*v1.FaultSpec{ofPod, ofContainer}
		if !podFirst {
			slices.Reverse(order)
		}
		faults := []*v1.Fault{n.inject(order[0]), n.inject(order[1])}
		for i, f := range faults {
			byLookUp := strings.Contains(strings.Join(f.GetNotes(), "; "), "by socket look-up")
			if byLookUp != (order[i] == ofContainer) {
				t.Errorf("the fault of %s notes %q", order[i].GetTarget(), f.GetNotes())
			}
		}
		late("both", true, true, true, false)
		n.stop(faults[0].GetId())
		late("the second alone", !podFirst, podFirst, !podFirst, false)
		n.stop(faults[1].GetId())
		late("after", false, false, false, false)
	}
	n.idle()
}
