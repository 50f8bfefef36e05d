package daemon_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/kernels"
)

// homed is a target that has a network namespace for itself, and a sibling that has another.
type homed struct {
	*lane
	n        *node
	target   cgroup.Target
	w, other *worker
	before   []string
	// far hears what they send; elsewhere does in the other namespace.
	far4, far6, elsewhere *listener
}

func startHomed(t *testing.T) *homed {
	t.Helper()
	needsNetem(t)
	return homeBy(t, startNode(t), byVeth)
}

// homeBy makes a target of a node to which packets come by a device.
func homeBy(t *testing.T, n *node, end nearEnd) *homed {
	t.Helper()
	x, sibling := &homed{lane: newLaneBy(t, end), n: n, target: n.target()}, newLane(t)
	x.inside(x.near, func() { x.w = n.worker(x.target) })
	sibling.inside(sibling.near, func() { x.other = n.worker(n.target()) })
	x.far4, x.far6, x.elsewhere = x.listen(far4+":0"), x.listen("["+far6+"]:0"), sibling.listen(far4+":0")
	x.before = x.shown()
	// The first packets of all look for their neighbour.
	x.w.median(x.far4.address, 1)
	x.w.median(x.far6.address, 1)
	return x
}

// shown is what `ip link`, `tc qdisc` and `tc filter` show of the target's namespace.
func (x *homed) shown() (all []string) {
	x.t.Helper()
	x.inside(x.near, func() {
		devices, err := netlink.LinkList()
		x.must(err)
		for _, device := range devices {
			all = append(all, fmt.Sprintf("device %s %s", device.Type(), device.Attrs().Name))
			for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
				filters, _ := netlink.FilterList(device, parent) // without clsact it is an error on some kernels
				for _, f := range filters {
					all = append(all, fmt.Sprintf("filter %s %x on %s", f.Type(), f.Attrs().Parent, device.Attrs().Name))
				}
			}
		}
	})
	return append(all, x.qdiscs(x.near)...)
}

// asBefore checks that the namespace is as it was, and the target free.
func (x *homed) asBefore() {
	x.t.Helper()
	x.n.until("the devices, filters and qdiscs are those of before", func() bool { return slices.Equal(x.shown(), x.before) })
	if got := x.w.median(x.far4.address, 5); got >= slow {
		x.t.Errorf("afterwards an echo takes %s", got)
	}
}

// incoming is a fault of what comes in.
func (x *homed) incoming(p *v1.Packet) *v1.FaultSpec {
	p.Direction = "ingress"
	return lose(x.target, p)
}

// TestIncoming hurts what comes in in all ways, one after the other.
func TestIncoming(t *testing.T) {
	kernels.OnEdges(t)
	x := startHomed(t)
	for _, test := range []func(*homed){(*homed).isLate, (*homed).hurtsInKinds, (*homed).isHeldBack, (*homed).hasOneQueue, (*homed).sharesClsact, (*homed).leavesOthers} {
		test(x)
		x.asBefore()
	}
	x.n.idle()
}

// isLate has the target wait for its echoes, once with ingress and twice with both; and more, changed.
func (x *homed) isLate() {
	const times = 3
	t := x.t
	t.Helper()
	for _, c := range []struct {
		direction string
		late      time.Duration
	}{{"ingress", 1}, {"both", 2}} {
		f := x.n.inject(lose(x.target, &v1.Packet{Delay: slow.String(), Direction: c.direction}))
		if !strings.HasSuffix(f.GetMechanism(), "ifb+netem") {
			t.Errorf("%s: done by %s", c.direction, f.GetMechanism())
		}
		late := func(by time.Duration) {
			t.Helper()
			for _, far := range []*listener{x.far4, x.far6} {
				got, sibling := x.w.median(far.address, times), x.other.median(x.elsewhere.address, times)
				t.Logf("%s: an echo from %s takes %s, the sibling's %s", c.direction, far.address, got, sibling)
				if got < by || sibling >= slow {
					t.Errorf("%s: an echo from %s takes %s, the sibling's %s; it is late by %s", c.direction, far.address, got, sibling, by)
				}
			}
		}
		x.onOurs(func(device netlink.Link) error {
			addresses, err := netlink.AddrList(device, netlink.FAMILY_ALL)
			x.must(err)
			all := &netlink.Route{LinkIndex: device.Attrs().Index, Table: unix.RT_TABLE_UNSPEC}
			routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, all, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
			if len(addresses)+len(routes) > 0 {
				t.Errorf("our device has the addresses %v and the routes %v", addresses, routes)
			}
			return err
		})
		late(c.late * slow)
		if got := x.w.median(x.listenIn(x.near, "127.0.0.1:0").address, 1); c.direction == "ingress" && got >= slow {
			t.Errorf("an echo by loopback takes %s", got)
		}
		if _, err := x.n.client.Update(context.Background(), connect.NewRequest(&v1.UpdateRequest{Id: f.GetId(), Delay: (2 * slow).String()})); err != nil {
			t.Fatal(err)
		}
		late(2 * c.late * slow)
		if c := x.n.settled(f.GetId()); c.GetMatched() != c.GetInjected() || c.GetInjected() < 4*times {
			t.Errorf("counted %v", c)
		}
		got := x.n.stop(f.GetId())
		if got.GetState() != "ended" || got.GetVerdict() != "injected" {
			t.Errorf("%s: stopped as %v", c.direction, got)
		}
		if notes := strings.Join(got.GetNotes(), "; "); strings.Contains(notes, "socket look-up") {
			t.Errorf("%s: nobody else lives in the namespace, and it notes %q", c.direction, notes)
		}
		x.asBefore()
	}
}

// hears has the far end send numbered datagrams to the target, and gives those that came, in their order.
func (x *homed) hears(sent int, during func(from *net.UDPConn, to *listener)) []uint32 {
	x.t.Helper()
	to := x.listenIn(x.near, near4+":0")
	var from *net.UDPConn
	x.inside(x.far, func() {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to.address)))
		x.must(err)
		from = c
	})
	defer from.Close()
	packet := make([]byte, 1000)
	for i := range sent {
		binary.BigEndian.PutUint32(packet, uint32(i))
		_, err := from.Write(packet)
		x.must(err)
	}
	during(from, to)
	return to.heard()
}

// hurtsInKinds counts what is duplicated, lost and reordered, of numbered datagrams.
func (x *homed) hurtsInKinds() {
	const sent = 1000
	t := x.t
	t.Helper()
	for _, c := range []struct {
		name   string
		packet *v1.Packet
		share  float64
		count  func(numbers []uint32) int
	}{
		{"duplicated", &v1.Packet{Duplicate: 20}, 0.2, func(numbers []uint32) int { return len(numbers) - sent }},
		{"lost", &v1.Packet{Loss: 20, Delay: "1ms"}, 0.2, func(numbers []uint32) int { return sent - len(numbers) }},
		{"reordered", &v1.Packet{Delay: "300ms", Reorder: 25}, 0.25, early},
	} {
		f := x.n.inject(x.incoming(c.packet))
		got := c.count(x.hears(sent, func(*net.UDPConn, *listener) {
			x.n.stop(f.GetId())           // which waits for what is queued
			x.w.median(x.far4.address, 1) // and what has left the queue has arrived
		}))
		least, most := binomial(sent, c.share)
		t.Logf("%s: %d of %d", c.name, got, sent)
		if got < int(least) || got > int(most) {
			t.Errorf("%s: %d of %d, it must be %d to %d", c.name, got, sent, least, most)
		}
		if c := x.n.settled(f.GetId()); c.GetInjected() < sent || c.GetNotApplied()+c.GetSpared() > 0 {
			t.Errorf("%v: counted %v", f.GetSpec(), c)
		}
		x.asBefore()
	}
}

// isHeldBack: 50 datagrams of 1000 bytes take 2 seconds at least, or with a burst less.
func (x *homed) isHeldBack() {
	const sent, bytes = 50, 1000
	sends := func(bytes int) time.Duration { return time.Duration(float64(bytes*8) / 200e3 * float64(time.Second)) }
	t := x.t
	t.Helper()
	for _, burst := range []string{"", "16KiB"} {
		f := x.n.inject(x.incoming(&v1.Packet{Bandwidth: "200kbit", Burst: burst, Protocol: "udp"}))
		begun := time.Now()
		x.hears(sent, func(_ *net.UDPConn, to *listener) {
			x.n.until("all have arrived", func() bool { return to.count() == sent })
		})
		took, least := time.Since(begun), sends((sent-1)*(bytes+42))
		if burst != "" {
			least -= sends(16<<10 + bytes)
		}
		t.Logf("with burst %q: %s, at least %s", burst, took, least)
		if took < least {
			t.Errorf("with burst %q: %d datagrams of %d bytes took %s, at 200 kbit/s it is at least %s", burst, sent, bytes, took, least)
		}
		x.n.stop(f.GetId())
		x.asBefore()
	}
}

// hasOneQueue: the same packets twice are refused, those that leave are others, and so is another target of the same namespace.
func (x *homed) hasOneQueue() {
	t := x.t
	t.Helper()
	first := x.n.inject(x.incoming(&v1.Packet{Delay: slow.String()}))
	_, err := x.n.tryInject(x.incoming(&v1.Packet{Delay: "10ms"}))
	if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "put both into one fault") {
		t.Errorf("the same packets twice: %v", err)
	}
	second := x.n.inject(lose(x.target, &v1.Packet{Delay: slow.String()}))
	if notes := strings.Join(second.GetNotes(), "; "); strings.Contains(notes, "delays do not add up") {
		t.Errorf("what leaves is taken for what comes in: %q", notes)
	}
	if got := x.w.median(x.far4.address, 1); got < 2*slow {
		t.Errorf("with both an echo takes %s", got)
	}
	x.n.stop(first.GetId())
	if got := x.w.median(x.far4.address, 1); got < slow || got >= 2*slow {
		t.Errorf("with what leaves alone an echo takes %s", got)
	}
	x.n.stop(second.GetId())
}

// sharesClsact: whichever of two filters goes first, the qdisc under them goes with the last.
func (x *homed) sharesClsact() {
	x.t.Helper()
	leaves, comes := &v1.Packet{Loss: 100, Direction: "egress", Protocol: "tcp"}, &v1.Packet{Delay: "1ms"}
	for _, order := range [][]int{{0, 1}, {1, 0}} {
		one, two := x.n.inject(lose(x.target, leaves)), x.n.inject(x.incoming(comes))
		both := []*v1.Fault{one, two}
		for _, i := range order {
			x.n.stop(both[i].GetId())
		}
		x.n.until("all is as before", func() bool { return slices.Equal(x.shown(), x.before) })
	}
}

// leavesOthers: what somebody else has put on what comes in stays, and is named; so is who else is in the namespace.
func (x *homed) leavesOthers() {
	t := x.t
	t.Helper()
	packet := &v1.Packet{Delay: "10ms"}
	refused := func(what string, code connect.Code, words ...string) {
		t.Helper()
		with := x.shown()
		_, err := x.n.tryInject(x.incoming(packet))
		for _, word := range words {
			if connect.CodeOf(err) != code || !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %v, want %v with %q", what, err, code, word)
			}
		}
		if now := x.shown(); !slices.Equal(now, with) {
			t.Errorf("%s: there are %q, before %q", what, now, with)
		}
	}
	clsact := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	x.inside(x.near, func() {
		device, err := netlink.LinkByName(nearName)
		x.must(err)
		clsact.LinkIndex = device.Attrs().Index
		x.must(netlink.QdiscAdd(clsact))
	})
	refused("with a clsact qdisc of somebody", connect.CodeFailedPrecondition, nearName+" has a clsact", "tc qdisc del dev "+nearName)
	x.inside(x.near, func() { x.must(netlink.QdiscDel(clsact)) })

	var stranger *worker
	x.inside(x.near, func() { stranger = x.n.worker(x.n.target()) })
	who := fmt.Sprintf("process %d (", stranger.pid())
	packet = &v1.Packet{Delay: "10ms", Protocol: "icmp"}
	refused("pings with a stranger", connect.CodeInvalidArgument, "packet.protocol", who, "pod:", "direction egress")
	_, err := x.n.client.Inject(t.Context(), connect.NewRequest(&v1.InjectRequest{Spec: x.incoming(packet), DryRun: true}))
	if err == nil || !strings.Contains(err.Error(), who) {
		t.Errorf("rehearsed with a stranger: %v", err)
	}
	x.leaves(stranger)
	x.n.inject(x.incoming(packet))
	x.n.kill()
	x.n.arm()
}

// leaves ends a process, and waits until it is in no namespace any more.
func (x *homed) leaves(w *worker) {
	x.t.Helper()
	x.must(w.cmd.Process.Kill())
	x.n.until("the process has left", func() bool {
		_, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", w.pid()))
		return err != nil
	})
}

// TestIncomingOfNode: what comes in there may be anybody's, so the socket tells; what has none is refused.
func TestIncomingOfNode(t *testing.T) {
	kernels.OnEdges(t)
	needsNetem(t)
	n := startNode(t)
	target := n.target()
	n.worker(target)
	spec := lose(target, &v1.Packet{Delay: "10ms", Direction: "both", Protocol: "icmp"})
	_, err := n.tryInject(spec)
	if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "it is the node's") {
		t.Errorf("pings of the node: %v", err)
	}
	if _, rehearsed := n.client.Inject(t.Context(), connect.NewRequest(&v1.InjectRequest{Spec: spec, DryRun: true})); rehearsed == nil || err == nil || rehearsed.Error() != err.Error() {
		t.Errorf("rehearsed: %v, want %v", rehearsed, err)
	}
	f := n.inject(lose(target, &v1.Packet{Delay: "10ms", Direction: "ingress"}))
	if notes := strings.Join(f.GetNotes(), "; "); !strings.Contains(notes, "by socket look-up") || !strings.Contains(notes, "it is the node's") {
		t.Errorf("it notes %q", notes)
	}
	n.stop(f.GetId())
	n.idle()
}

// TestIncomingOfNested: of two targets of which one lies in the other, and has all of its processes, one at a time has what comes in wait.
func TestIncomingOfNested(t *testing.T) {
	kernels.OnOldest(t)
	needsNetem(t)
	n, l := startNode(t), newLane(t)
	outer := n.target()
	inner := n.child(outer)
	var w *worker
	l.inside(l.near, func() { w = n.worker(inner) })
	far := l.listen(far4 + ":0")
	w.median(far.address, 1)
	late := func(target cgroup.Target) *v1.FaultSpec {
		return lose(target, &v1.Packet{Delay: slow.String(), Direction: "ingress"})
	}
	for _, order := range [][2]cgroup.Target{{inner, outer}, {outer, inner}} {
		f := n.inject(late(order[0]))
		_, err := n.tryInject(late(order[1]))
		if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "stop ") {
			t.Errorf("%s after %s: %v", order[1].Path, order[0].Path, err)
		}
		if got := w.median(far.address, 1); got < slow || got >= 2*slow {
			t.Errorf("with a fault of %s an echo takes %s", order[0].Path, got)
		}
		n.stop(f.GetId())
		if got := w.median(far.address, 1); got >= slow {
			t.Errorf("after a fault of %s an echo takes %s", order[0].Path, got)
		}
	}
	n.idle()
}

// TestIncomingIsUndone ends a fault in all ways while what comes in is late.
func TestIncomingIsUndone(t *testing.T) {
	kernels.OnEdges(t)
	x := startHomed(t)
	n := x.n
	for _, c := range append(n.endings(x.asBefore), []ending{
		{"switched off", func(f *v1.Fault) {
			n.kill()
			x.asBefore()
			n.ended(f)
			n.arm()
		}},
		{"device removed by somebody", func(f *v1.Fault) {
			x.onOurs(netlink.LinkDel)
			n.gaveUp(f, "has removed faultd's device faultd-")
		}},
		{"device set down by somebody", func(f *v1.Fault) {
			x.onOurs(netlink.LinkSetDown)
			n.gaveUp(f, "has set faultd's device faultd-")
		}},
		{"filter removed by somebody", func(f *v1.Fault) {
			x.removeFilter()
			n.gaveUp(f, "has removed faultd's filter from "+nearName)
		}},
	}...) {
		f := n.inject(x.incoming(&v1.Packet{Delay: slow.String()}))
		if got := x.w.median(x.far4.address, 1); got < slow {
			t.Errorf("%s: an echo takes %s", c.name, got)
		}
		if slices.Equal(x.shown(), x.before) {
			t.Errorf("%s: there is nothing to undo", c.name)
		}
		c.end(f)
		x.asBefore()
		t.Logf("%s: undone", c.name)
	}
	f := n.inject(x.incoming(&v1.Packet{Delay: slow.String()}))
	x.inside(x.near, func() {
		device, err := netlink.LinkByName(nearName)
		x.must(err)
		x.must(netlink.LinkDel(device))
	})
	if got := n.stop(f.GetId()); got.GetState() != "ended" {
		t.Errorf("without the device that packets come in by it was stopped as %v", got)
	}
	n.idle()
}

// onOurs does something to faultd's device.
func (x *homed) onOurs(do func(netlink.Link) error) {
	x.t.Helper()
	x.inside(x.near, func() {
		devices, err := netlink.LinkList()
		x.must(err)
		i := slices.IndexFunc(devices, func(d netlink.Link) bool { return d.Type() == "ifb" })
		if i < 0 {
			x.t.Fatalf("there is no device of ours: %v", devices)
		}
		x.must(do(devices[i]))
	})
}

func (x *homed) removeFilter() {
	x.t.Helper()
	x.inside(x.near, func() {
		device, err := netlink.LinkByName(nearName)
		x.must(err)
		filters, err := netlink.FilterList(device, netlink.HANDLE_MIN_INGRESS)
		x.must(err)
		if len(filters) != 1 {
			x.t.Fatalf("there are these filters: %v", filters)
		}
		x.must(netlink.FilterDel(filters[0]))
	})
}

// TestIncomingByDevice: what comes in by a device that containers have waits there, once; also where the socket tells.
func TestIncomingByDevice(t *testing.T) {
	kernels.OnNewest(t)
	needsNetem(t)
	n := startNode(t)
	for name, end := range map[string]nearEnd{"bridge": byBridge, "macvlan": byMacvlan, "VLAN": byVLAN, "netkit": byNetkit(netlink.NETKIT_MODE_L2), "netkit L3": byNetkit(netlink.NETKIT_MODE_L3)} {
		t.Run(name, func(t *testing.T) {
			x := homeBy(t, n, end)
			late := func(others ...*worker) {
				f := x.n.inject(x.incoming(&v1.Packet{Delay: slow.String()}))
				for _, far := range []*listener{x.far4, x.far6} {
					if got := x.w.median(far.address, 3); got < slow || got >= 2*slow {
						t.Errorf("an echo from %s takes %s; the delay is %s", far.address, got, slow)
					}
					for _, other := range others {
						if got := other.median(far.address, 3); got >= slow {
							t.Errorf("somebody else's echo from %s takes %s", far.address, got)
						}
					}
				}
				x.n.stop(f.GetId())
				x.asBefore()
			}
			late()
			var other *worker
			x.inside(x.near, func() { other = x.n.worker(x.n.target()) })
			late(other)
		})
	}
}

// byVLAN has a VLAN on the wire, at both ends.
func byVLAN(l *lane) {
	l.wireFrom(l.near)
	for ns, of := range map[*os.File][]string{l.near: {nearName, near4 + "/24", near6 + "/64"}, l.far: {farName, far4 + "/24", far6 + "/64"}} {
		l.inside(ns, func() {
			l.up(of[0])
			under, err := netlink.LinkByName(of[0])
			l.must(err)
			l.addOrSkip(&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "vlan", ParentIndex: under.Attrs().Index}, VlanId: 7})
			l.up("vlan", of[1:]...)
		})
	}
}

// TestIncomingLater: what comes in by a device that the target gets while the fault runs is late too; who comes into its namespace is told, and
// is not hurt, as the socket tells then.
func TestIncomingLater(t *testing.T) {
	kernels.OnOldest(t)
	x := startHomed(t)
	f := x.n.inject(x.incoming(&v1.Packet{Delay: slow.String()}))
	x.wireLater(x.near)
	// Not before: what is sent while the clsact qdisc is added is lost.
	x.n.until("the device has our filter", func() bool {
		return slices.ContainsFunc(x.shown(), func(s string) bool { return strings.HasPrefix(s, "filter ") && strings.HasSuffix(s, " on "+laterName) })
	})
	far := x.listen(laterFar4 + ":0")
	x.carries(x.n, x.w, far)
	if got := x.w.median(far.address, 3); got < slow {
		t.Errorf("by the device that came an echo takes %s", got)
	}
	var stranger *worker
	x.inside(x.near, func() { stranger = x.n.worker(x.n.target()) })
	who := fmt.Sprintf("process %d (", stranger.pid())
	x.n.until("a note names the stranger", func() bool {
		return strings.Contains(strings.Join(x.n.get(f.GetId()).GetNotes(), "; "), who)
	})
	for _, to := range []*listener{x.far4, x.far6, far} {
		got, others := x.w.median(to.address, 3), stranger.median(to.address, 3)
		if got < slow || others >= slow {
			t.Errorf("with a stranger an echo takes %s, the stranger's %s", got, others)
		}
	}
	x.leaves(stranger)
	// What was made later is in the journal, too.
	x.n.dies(func() {
		x.unwireLater(x.near)
		x.asBefore()
	})
	x.n.idle()
}

// TestResidueNamesDevices of which no journal tells.
func TestResidueNamesDevices(t *testing.T) {
	kernels.OnEdges(t)
	needsNetem(t)
	l, p := newLane(t), newPlace(t)
	resident := selfCommand(workCommand)
	in, err := resident.StdinPipe()
	l.must(err)
	l.inside(l.near, func() { l.must(resident.Start()) })
	t.Cleanup(func() {
		in.Close()
		_ = resident.Wait() // it ends with its orders
	})
	device := &netlink.Ifb{LinkAttrs: netlink.LinkAttrs{Name: "faultd-0badcafe"}}
	add := func() { l.inside(l.near, func() { l.must(netlink.LinkAdd(device)) }) }
	add()
	named := fmt.Sprintf("device faultd-0badcafe in /proc/%d/task/%d/ns/net", resident.Process.Pid, resident.Process.Pid)
	p.names(named, func() (err error) {
		l.inside(l.near, func() { err = netlink.LinkDel(device) })
		return err
	})
	add()
	said, err := p.uninstall()
	if err != nil || !slices.Contains(said, "removed "+named) {
		t.Errorf("said %q, %v", said, err)
	}
}
