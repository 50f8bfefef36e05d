package daemon_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/vishvananda/netlink"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/cgroup"
	"faultd/test/kernels"
)

// wired is a target and its sibling at the near end of a lane.
type wired struct {
	*lane
	n          *node
	target     cgroup.Target
	w, other   *worker
	before     []string
	far4, far6 *listener
}

func startWired(t *testing.T) *wired {
	t.Helper()
	needsNetem(t)
	return wireBy(t, startNode(t), byVeth)
}

// wireBy makes a target of a node that leaves by a device.
func wireBy(t *testing.T, n *node, end nearEnd) *wired {
	t.Helper()
	x := &wired{lane: newLaneBy(t, end), n: n, target: n.target()}
	x.inside(x.near, func() { x.w, x.other = n.worker(x.target), n.worker(n.target()) })
	x.far4, x.far6 = x.listen(far4+":0"), x.listen("["+far6+"]:0")
	x.before = x.qdiscs(x.near)
	// The first packets of all look for their neighbour.
	x.w.median(x.far4.address, 1)
	x.w.median(x.far6.address, 1)
	return x
}

// asBefore checks that the devices are as they were, and the target is free.
func (x *wired) asBefore() {
	x.t.Helper()
	x.n.until("the qdiscs are those of before", func() bool { return slices.Equal(x.qdiscs(x.near), x.before) })
	if got := x.w.median(x.far4.address, 5); got >= slow {
		x.t.Errorf("afterwards an echo takes %s", got)
	}
}

// TestWire hurts packets in all ways, one after the other.
func TestWire(t *testing.T) {
	kernels.OnOldest(t)
	x := startWired(t)
	for _, test := range []func(*wired){(*wired).isLate, (*wired).besideNetem, (*wired).leavesForeignRoots, (*wired).hurtsInKinds,
		(*wired).isHeldBack, (*wired).isLateAndLost, (*wired).hasOneQueue, (*wired).hasTwoWires, (*wired).duplicatesBesideAnother} {
		test(x)
		x.asBefore()
	}
	x.n.idle()
}

// slow is a delay that no machine makes by itself.
const slow = 400 * time.Millisecond

// isLate has the target wait for its echoes on IPv4 and IPv6, as netem makes a whole device wait.
func (x *wired) isLate() {
	t := x.t
	t.Helper()
	f := x.n.inject(lose(x.target, &v1.Packet{Delay: slow.String()}))
	if !strings.HasSuffix(f.GetMechanism(), "+netem") {
		t.Errorf("done by %s", f.GetMechanism())
	}
	const times = 5
	for _, far := range []*listener{x.far4, x.far6, x.listenIn(x.near, "127.0.0.1:0")} {
		got, sibling := x.w.median(far.address, times), x.other.median(far.address, times)
		t.Logf("an echo from %s takes %s, the sibling's %s", far.address, got, sibling)
		if got < slow || sibling >= slow {
			t.Errorf("an echo from %s takes %s, the sibling's %s; the delay is %s", far.address, got, sibling, slow)
		}
	}
	if c := x.n.settled(f.GetId()); c.GetInjected() < 3*times || c.GetNotApplied()+c.GetSpared() != 0 {
		t.Errorf("counted %v", c)
	}
	if got := x.n.stop(f.GetId()); got.GetState() != "ended" || got.GetVerdict() != "injected" {
		t.Errorf("stopped as %v", got)
	}
}

// TestDelayByDevice: what leaves by a device that containers have waits there, once, and is lost there.
func TestDelayByDevice(t *testing.T) {
	kernels.OnNewest(t)
	needsNetem(t)
	n := startNode(t)
	for name, end := range map[string]nearEnd{"bridge": byBridge, "macvlan": byMacvlan, "VLAN": byVLAN, "netkit": byNetkit(netlink.NETKIT_MODE_L2), "netkit L3": byNetkit(netlink.NETKIT_MODE_L3)} {
		t.Run(name, func(t *testing.T) {
			x := wireBy(t, n, end)
			f := x.n.inject(lose(x.target, &v1.Packet{Delay: slow.String()}))
			if got, sibling := x.w.median(x.far4.address, 3), x.other.median(x.far4.address, 3); got < slow || got >= 2*slow || sibling >= slow {
				t.Errorf("an echo takes %s, the sibling's %s; the delay is %s", got, sibling, slow)
			}
			x.n.stop(f.GetId())
			x.asBefore()
		})
	}
}

// besideNetem compares with netem itself on the same device.
func (x *wired) besideNetem() {
	const times = 5
	x.t.Helper()
	f := x.n.inject(lose(x.target, &v1.Packet{Delay: slow.String()}))
	ours := x.w.median(x.far4.address, times)
	x.n.stop(f.GetId())
	x.rootNetem(func() {
		theirs := x.w.median(x.far4.address, times)
		x.t.Logf("medians with a delay of %s: %s, with netem on the device %s", slow, ours, theirs)
		if ours > 2*theirs || theirs > 2*ours {
			x.t.Errorf("medians with a delay of %s: %s, with netem on the device %s", slow, ours, theirs)
		}
	})
}

// rootNetem does something while somebody else's netem is the root of the near end.
func (x *wired) rootNetem(f func()) {
	x.t.Helper()
	var root *netlink.Netem
	x.inside(x.near, func() {
		device, err := netlink.LinkByName(nearName)
		x.must(err)
		root = netlink.NewNetem(netlink.QdiscAttrs{LinkIndex: device.Attrs().Index, Parent: netlink.HANDLE_ROOT, Handle: 0x77 << 16},
			netlink.NetemQdiscAttrs{Latency: uint32(slow.Microseconds())})
		x.must(netlink.QdiscAdd(root))
	})
	f()
	x.inside(x.near, func() { x.must(netlink.QdiscDel(root)) })
}

// leavesForeignRoots: somebody else's root stays, and is named.
func (x *wired) leavesForeignRoots() {
	t := x.t
	t.Helper()
	x.rootNetem(func() {
		with := x.qdiscs(x.near)
		_, err := x.n.tryInject(lose(x.target, &v1.Packet{Delay: "10ms"}))
		if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "netem 77:") || !strings.Contains(err.Error(), nearName) {
			t.Errorf("with a foreign root: %v", err)
		}
		if now := x.qdiscs(x.near); !slices.Equal(now, with) {
			t.Errorf("the devices have %q, before %q", now, with)
		}
		// What does not queue does not mind.
		f := x.n.inject(lose(x.target, &v1.Packet{Loss: 100, Protocol: "tcp"}))
		x.n.stop(f.GetId())
	})
	x.asBefore()
}

// TestWireIsUndone ends a fault in all ways while packets are late.
func TestWireIsUndone(t *testing.T) {
	kernels.OnOldest(t)
	x := startWired(t)
	n := x.n
	for _, c := range append(n.endings(x.asBefore), []ending{
		{"switched off", func(f *v1.Fault) {
			x.w.tell("wire stream %s %d 100", x.far4.address, 1000)
			n.kill()
			x.w.wantsHeard("sent")
			x.asBefore()
			n.ended(f)
			n.arm()
		}},
		{"replaced by somebody", func(f *v1.Fault) {
			x.withRoot(func() { n.gaveUp(f, "has put pfifo 55: in the place of faultd's root qdisc on "+nearName) })
		}},
		{"removed by somebody", func(f *v1.Fault) {
			x.removeRoot()
			n.gaveUp(f, "has removed faultd's root qdisc from "+nearName)
		}},
		{"changed by somebody", func(f *v1.Fault) {
			x.changeQueue()
			n.gaveUp(f, "has changed the parameters of faultd's netem on "+nearName)
		}},
	}...) {
		f := n.inject(lose(x.target, &v1.Packet{Delay: slow.String()}))
		if got := x.w.median(x.far4.address, 1); got < slow {
			t.Errorf("%s: an echo takes %s", c.name, got)
		}
		if slices.Equal(x.qdiscs(x.near), x.before) {
			t.Errorf("%s: there is no qdisc to undo", c.name)
		}
		c.end(f)
		x.asBefore()
		t.Logf("%s: undone", c.name)
	}
	f := n.inject(lose(x.target, &v1.Packet{Delay: slow.String()}))
	x.inside(x.near, func() {
		device, err := netlink.LinkByName(nearName)
		x.must(err)
		x.must(netlink.LinkDel(device))
	})
	if got := n.stop(f.GetId()); got.GetState() != "ended" {
		t.Errorf("without its device it was stopped as %v", got)
	}
	n.idle()
}

// removeRoot removes the root of the near end, whose ever it is.
func (x *wired) removeRoot() {
	x.t.Helper()
	x.inside(x.near, func() {
		device, err := netlink.LinkByName(nearName)
		x.must(err)
		x.must(netlink.QdiscDel(&netlink.GenericQdisc{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: device.Attrs().Index, Parent: netlink.HANDLE_ROOT, Handle: 0x7a17 << 16}}))
	})
}

// changeQueue is what `tc qdisc change dev NEAR parent 7a17:4 netem delay 1ms` does.
func (x *wired) changeQueue() {
	x.t.Helper()
	x.inside(x.near, func() {
		device, err := netlink.LinkByName(nearName)
		x.must(err)
		all, err := netlink.QdiscList(device)
		x.must(err)
		i := slices.IndexFunc(all, func(q netlink.Qdisc) bool { return q.Type() == "netem" })
		if i < 0 {
			x.t.Fatalf("there is no queue: %v", all)
		}
		x.must(netlink.QdiscChange(netlink.NewNetem(*all[i].Attrs(), netlink.NetemQdiscAttrs{Latency: 1000})))
	})
}

// withRoot does something while somebody has replaced our root, which stays then.
func (x *wired) withRoot(f func()) {
	x.t.Helper()
	var root netlink.Qdisc
	x.inside(x.near, func() {
		device, err := netlink.LinkByName(nearName)
		x.must(err)
		root = &netlink.GenericQdisc{QdiscType: "pfifo", QdiscAttrs: netlink.QdiscAttrs{LinkIndex: device.Attrs().Index, Parent: netlink.HANDLE_ROOT, Handle: 0x55 << 16}}
		x.must(netlink.QdiscReplace(root))
	})
	f()
	x.n.until("loopback is as before", func() bool { return len(x.qdiscs(x.near)) == len(x.before) })
	if !slices.ContainsFunc(x.qdiscs(x.near), func(q string) bool { return strings.HasPrefix(q, "pfifo 55:") }) {
		x.t.Errorf("somebody's qdisc is gone: %q", x.qdiscs(x.near))
	}
	x.inside(x.near, func() { x.must(netlink.QdiscDel(root)) })
}

// hurtsInKinds counts what is duplicated, corrupted and reordered, of numbered datagrams.
func (x *wired) hurtsInKinds() {
	const sent = 2000
	t := x.t
	t.Helper()
	for _, c := range []struct {
		name   string
		packet *v1.Packet
		share  float64
		count  func(numbers []uint32) int
	}{
		{"duplicated", &v1.Packet{Duplicate: 20}, 0.2, func(numbers []uint32) int { return len(numbers) - sent }},
		{"corrupted and so not arrived", &v1.Packet{Corrupt: 20}, 0.2, func(numbers []uint32) int { return sent - len(numbers) }},
		{"lost", &v1.Packet{Loss: 20, Delay: "1ms"}, 0.2, func(numbers []uint32) int { return sent - len(numbers) }},
		{"reordered", &v1.Packet{Delay: "300ms", Reorder: 25}, 0.25, early},
	} {
		x.far4.forget()
		f := x.n.inject(lose(x.target, c.packet))
		x.w.wants("sent", "wire stream %s %d 1000", x.far4.address, sent)
		x.n.stop(f.GetId())           // which waits for what is queued
		x.w.median(x.far4.address, 1) // the last that is heard
		numbers := x.far4.heard()
		got := c.count(numbers[:len(numbers)-1])
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

// isHeldBack holds back 100 datagrams of 1000 bytes for 4 seconds, or with a burst some of them not.
func (x *wired) isHeldBack() {
	const sent, bytes = 100, 1000
	t := x.t
	t.Helper()
	for _, burst := range []string{"", "32KiB"} {
		x.far4.forget()
		f := x.n.inject(lose(x.target, &v1.Packet{Bandwidth: "200kbit", Burst: burst, Overhead: 100}))
		begun := time.Now()
		x.w.wants("sent", "wire stream %s %d %d", x.far4.address, sent, bytes)
		x.n.until("all have arrived", func() bool { return x.far4.count() == sent })
		took := time.Since(begun)
		// Each is 1000 bytes, 42 of headers and 100 of overhead; the first may go at once.
		least := time.Duration(float64((sent-1)*(bytes+142)*8) / 200e3 * float64(time.Second))
		if burst != "" {
			least -= time.Duration(float64(32<<10*8+bytes*8) / 200e3 * float64(time.Second))
		}
		t.Logf("with burst %q: %s, at least %s", burst, took, least)
		if took < least {
			t.Errorf("with burst %q: %d datagrams of %d bytes took %s, at 200 kbit/s it is at least %s", burst, sent, bytes, took, least)
		}
		x.n.stop(f.GetId())
		x.asBefore()
	}
}

// early counts the datagrams that came before an earlier one.
func early(numbers []uint32) (n int) {
	lowest := slices.Clone(numbers)
	for i := len(lowest) - 2; i >= 0; i-- {
		lowest[i] = min(lowest[i], lowest[i+1])
	}
	for i := range len(numbers) - 1 {
		if lowest[i+1] < numbers[i] {
			n++
		}
	}
	return n
}

// TestWireUnsupported: a kernel without netem says what it lacks, and nothing changes.
func TestWireUnsupported(t *testing.T) {
	n := startNode(t)
	target := n.target()
	n.worker(target)
	_, err := n.tryInject(lose(target, &v1.Packet{Delay: "10ms"}))
	if err == nil {
		t.Skip("this kernel has netem")
	}
	if connect.CodeOf(err) != connect.CodeUnimplemented || !strings.Contains(err.Error(), "CONFIG_NET_SCH_NETEM") || !strings.Contains(err.Error(), "syscall") {
		t.Errorf("without netem: %v", err)
	}
	_, err = n.tryInject(lose(target, &v1.Packet{Delay: "10ms", Direction: "ingress"}))
	if connect.CodeOf(err) != connect.CodeUnimplemented || !strings.Contains(err.Error(), "CONFIG_") || !strings.Contains(err.Error(), "what works is") {
		t.Errorf("without netem, of what comes in: %v", err)
	}
	n.idle()
}

// isLateAndLost: a packet that is late may be lost by another fault, whichever is older.
func (x *wired) isLateAndLost() {
	const sent = 100
	t := x.t
	t.Helper()
	late, lost := &v1.Packet{Delay: "1ms", Protocol: "udp"}, &v1.Packet{Loss: 100, Direction: "egress", Protocol: "udp"}
	for name, order := range map[string][]*v1.Packet{"first late": {late, lost}, "first lost": {lost, late}} {
		x.far4.forget()
		older, younger := x.n.inject(lose(x.target, order[0])), x.n.inject(lose(x.target, order[1]))
		x.w.wants("sent", "wire stream %s %d 100", x.far4.address, sent)
		counted, next := x.n.settled(older.GetId()), x.n.settled(younger.GetId())
		wanted := uint64(0) // a loss ends the search
		if name == "first late" {
			wanted = sent
		}
		if counted.GetInjected() != sent || next.GetEvaluated() < sent || next.GetInjected() != wanted || next.GetMatched() != wanted {
			t.Errorf("%s: counted %v and %v", name, counted, next)
		}
		x.n.stop(older.GetId())
		x.n.stop(younger.GetId())
		x.w.median(x.far4.address, 1) // the last that is heard
		if got := x.far4.count(); got != 1 {
			t.Errorf("%s: %d of %d arrived", name, got-1, sent)
		}
		x.asBefore()
	}
}

// hasOneQueue: a packet takes one queue. A second fault that could have none of its packets is refused; one that could is told.
func (x *wired) hasOneQueue() {
	t := x.t
	t.Helper()
	far := fmt.Sprint(x.far4.conn.LocalAddr().(*net.UDPAddr).Port)
	first := x.n.inject(lose(x.target, &v1.Packet{Delay: slow.String(), Ports: []string{far}}))
	_, err := x.n.tryInject(lose(x.target, &v1.Packet{Delay: slow.String(), Ports: []string{far}}))
	if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "put both into one fault") {
		t.Errorf("the same packets twice: %v", err)
	}
	second := x.n.inject(lose(x.target, &v1.Packet{Delay: slow.String(), Protocol: "udp"}))
	if notes := strings.Join(second.GetNotes(), "; "); !strings.Contains(notes, "delays do not add up") {
		t.Errorf("the second one is not told: %q", notes)
	}
	for _, listener := range []*listener{x.far4, x.far6} {
		if got := x.w.median(listener.address, 1); got < slow {
			t.Errorf("an echo from %s takes %s; the delay is %s", listener.address, got, slow)
		}
	}
	if c := x.n.settled(second.GetId()); c.GetMatched() < 1 || c.GetEvaluated() <= c.GetMatched() {
		t.Errorf("the second one counted %v", c)
	}
	x.n.stop(first.GetId())
	x.n.stop(second.GetId())
	x.asBefore()
}

// hasTwoWires: two targets share devices, and each has its own delay, which can be changed.
func (x *wired) hasTwoWires() {
	const times = 3
	t := x.t
	t.Helper()
	other, err := x.n.tree.OfProcess(x.other.pid())
	x.must(err)
	one := x.n.inject(lose(x.target, &v1.Packet{Delay: slow.String()}))
	two := x.n.inject(lose(other, &v1.Packet{Delay: (2 * slow).String(), Jitter: "10ms", Distribution: "normal", Correlation: 25, Bandwidth: "1gbit"}))
	takes := func(what string, w *worker, least, most time.Duration) {
		t.Helper()
		if got := w.median(x.far4.address, times); got < least || got >= most {
			t.Errorf("%s: an echo takes %s, it must be %s to %s", what, got, least, most)
		}
	}
	takes("one", x.w, slow, 2*slow)
	takes("two", x.other, 2*slow-50*time.Millisecond, time.Hour)
	if _, err := x.n.client.Update(context.Background(), connect.NewRequest(&v1.UpdateRequest{Id: one.GetId(), Delay: (3 * slow).String()})); err != nil {
		t.Fatal(err)
	}
	takes("one, changed", x.w, 3*slow, time.Hour)
	x.n.stop(one.GetId())
	takes("one, stopped", x.w, 0, slow)
	takes("two, alone", x.other, 2*slow-50*time.Millisecond, time.Hour)
	x.n.stop(two.GetId())
	x.asBefore()
}

// duplicatesBesideAnother: some kernels let no netem stand beside one that duplicates. Then that is said.
func (x *wired) duplicatesBesideAnother() {
	t := x.t
	t.Helper()
	first := x.n.inject(lose(x.target, &v1.Packet{Delay: "10ms"}))
	other, err := x.n.tree.OfProcess(x.other.pid())
	x.must(err)
	second, err := x.n.tryInject(lose(other, &v1.Packet{Duplicate: 50}))
	t.Logf("the second one: %v", err)
	if err != nil && (connect.CodeOf(err) != connect.CodeUnimplemented || !strings.Contains(err.Error(), "duplicate")) {
		t.Errorf("the second one: %v", err)
	}
	for _, f := range []*v1.Fault{first, second} {
		if f != nil {
			x.n.stop(f.GetId())
		}
	}
	x.asBefore()
}

// TestResidueNamesQdiscs of which no journal tells.
func TestResidueNamesQdiscs(t *testing.T) {
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
	before := l.qdiscs(l.near)
	var root netlink.Qdisc
	add := func() {
		l.inside(l.near, func() {
			device, err := netlink.LinkByName(nearName)
			l.must(err)
			root = netlink.NewPrio(netlink.QdiscAttrs{LinkIndex: device.Attrs().Index, Parent: netlink.HANDLE_ROOT, Handle: 0x7a17 << 16})
			l.must(netlink.QdiscAdd(root))
		})
	}
	add()
	namespace := fmt.Sprintf("/proc/%d/task/%d/ns/net", resident.Process.Pid, resident.Process.Pid)
	p.names("root qdisc prio 7a17: on near in "+namespace, func() (err error) {
		l.inside(l.near, func() { err = netlink.QdiscDel(root) })
		return err
	})
	add()
	said, err := p.uninstall()
	if err != nil || !slices.Contains(said, "removed root qdisc prio 7a17: on near in "+namespace) {
		t.Errorf("said %q, %v", said, err)
	}
	if now := l.qdiscs(l.near); !slices.Equal(now, before) {
		t.Errorf("the devices have %q, before %q", now, before)
	}
}
