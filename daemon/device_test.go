package daemon_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/kernels"
)

// A wire that comes later, from the near end to the far one.
const (
	laterName = "later0"
	later4    = "10.98.0.1"
	laterFar4 = "10.98.0.2"
)

// wireLater makes it, from a network namespace.
func (l *lane) wireLater(ns *os.File) {
	l.t.Helper()
	const peer = "later1"
	l.inside(ns, func() {
		l.must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: laterName}, PeerName: peer, PeerNamespace: netlink.NsFd(l.far.Fd())}))
		l.up(laterName, later4+"/24")
	})
	l.inside(l.far, func() { l.up(peer, laterFar4+"/24") })
}

func (l *lane) unwireLater(ns *os.File) {
	l.t.Helper()
	l.inside(ns, func() {
		device, err := netlink.LinkByName(laterName)
		l.must(err)
		l.must(netlink.LinkDel(device))
	})
}

// carries waits until a packet comes through: the ends of a new wire are up a while after they were set up, and what is sent while a qdisc
// is put on a device, a clsact too, is lost (dev_deactivate, net/sched/sch_generic.c).
func (l *lane) carries(n *node, from *worker, to *listener) {
	l.t.Helper()
	before := to.count()
	n.until("the wire carries", func() bool {
		from.wants("sent", "wire stream %s 1 10", to.address)
		return to.count() > before
	})
}

// TestDeviceThatComes: what leaves by a device that the target gets while the fault runs is lost too, of the target alone; one that goes
// does no harm.
func TestDeviceThatComes(t *testing.T) {
	kernels.OnOldest(t)
	n, l := startNode(t), newLane(t)
	target := n.target()
	var w, other *worker
	l.inside(l.near, func() { w, other = n.worker(target), n.worker(n.target()) })
	f := n.inject(lose(target, &v1.Packet{Loss: 100, Direction: "egress", Protocol: "udp"}))
	l.wireLater(l.near)
	l.carries(n, other, l.listen(laterFar4+":0"))
	injected := func() uint64 { return n.settled(f.GetId()).GetInjected() }
	before := l.listen(laterFar4 + ":0")
	n.until("the device is seen to", func() bool {
		w.wants("sent", "wire stream %s 1 10", before.address)
		return injected() > 0
	})
	send := func(from *worker) *listener {
		to := l.listen(laterFar4 + ":0")
		from.wants("sent", "wire stream %s 20 10", to.address)
		return to
	}
	counted := injected()
	lost := send(w)
	if got := injected() - counted; got != 20 {
		t.Errorf("counted %d of 20", got)
	}
	counted = injected()
	theirs := send(other)
	n.until("the sibling's packets arrive", func() bool { return theirs.count() == 20 })
	if got := injected() - counted; got > 0 {
		t.Errorf("of the sibling's %d are counted", got)
	}
	if got := n.stop(f.GetId()); got.GetVerdict() != "injected" || strings.Contains(strings.Join(got.GetNotes(), "; "), laterName) {
		t.Errorf("stopped as %v", got)
	}
	l.carries(n, other, l.listen(laterFar4+":0"))
	afterwards := send(w)
	n.until("packets arrive again", func() bool { return afterwards.count() == 20 })
	if got := lost.count(); got > 0 {
		t.Errorf("%d of 20 packets arrived", got)
	}
	f = n.inject(lose(target, &v1.Packet{Loss: 100, Direction: "egress", Protocol: "udp"}))
	l.unwireLater(l.near)
	n.stop(f.GetId())
	n.idle()
}

// TestDeviceThatComesQueues: packets are late there too; where a device comes with a root qdisc of somebody's, a note says so.
func TestDeviceThatComesQueues(t *testing.T) {
	kernels.OnOldest(t)
	x := startWired(t)
	f := x.n.inject(lose(x.target, &v1.Packet{Delay: slow.String()}))
	x.wireLater(x.near)
	var index int
	x.inside(x.near, func() {
		device, err := netlink.LinkByName(laterName)
		x.must(err)
		index = device.Attrs().Index
	})
	// Not before: what is sent while a root qdisc is replaced is lost.
	x.n.until("the device has our queue", func() bool {
		return slices.ContainsFunc(x.qdiscs(x.near), func(q string) bool { return strings.HasPrefix(q, fmt.Sprintf("prio 7a17: dev %d ", index)) })
	})
	far := x.listen(laterFar4 + ":0")
	x.carries(x.n, x.other, far)
	x.n.until("packets are late there", func() bool { return x.w.median(far.address, 1) >= slow })
	if got := x.other.median(far.address, 3); got >= slow {
		t.Errorf("the sibling's echo takes %s", got)
	}
	// What was made later is in the journal, too.
	x.n.dies(func() {
		x.n.until("the guard has taken the queues away", func() bool {
			return !slices.ContainsFunc(x.qdiscs(x.near), func(q string) bool { return strings.HasPrefix(q, "prio 7a17:") })
		})
	})
	if got := x.w.median(far.address, 3); got >= slow {
		t.Errorf("afterwards an echo takes %s", got)
	}
	x.unwireLater(x.near)
	x.asBefore()

	f = x.n.inject(lose(x.target, &v1.Packet{Delay: slow.String()}))
	x.wireLater(x.near)
	x.inside(x.near, func() {
		device, err := netlink.LinkByName(laterName)
		x.must(err)
		x.must(netlink.QdiscReplace(&netlink.GenericQdisc{QdiscType: "pfifo", QdiscAttrs: netlink.QdiscAttrs{LinkIndex: device.Attrs().Index, Parent: netlink.HANDLE_ROOT, Handle: 0x55 << 16}}))
	})
	x.n.until("a note says that it cannot be had, or the fault gave it up", func() bool {
		got := x.n.get(f.GetId())
		return strings.Contains(strings.Join(got.GetNotes(), "; "), laterName)
	})
	x.n.stop(f.GetId())
	x.unwireLater(x.near)
	x.asBefore()
	x.n.idle()
}
