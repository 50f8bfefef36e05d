package daemon_test

import (
	"testing"

	"github.com/vishvananda/netlink"

	v1 "faultd/api/faultd/v1alpha1"
	"faultd/test/kernels"
)

// TestQueueLength: the queue of a device has no length, as that of a pod's veth. The kernel gives it one when faultd puts a qdisc there, and it
// has none again however the fault ends.
func TestQueueLength(t *testing.T) {
	kernels.OnOldest(t) // which needs a clsact qdisc for what is lost, too
	x := startHomed(t)
	length := func() (length int) {
		x.inside(x.near, func() {
			device, err := netlink.LinkByName(nearName)
			x.must(err)
			length = device.Attrs().TxQLen
		})
		return length
	}
	if before := length(); before != 0 {
		t.Fatalf("the queue has the length %d before", before)
	}
	gone := func() { x.n.until("the queue has no length again", func() bool { return length() == 0 }) }
	for _, c := range append(x.n.endings(gone), ending{"told to stop", func(f *v1.Fault) { x.n.stop(f.GetId()) }}) {
		lost := x.n.inject(lose(x.target, &v1.Packet{Loss: 50, Direction: "egress"}))
		late := x.n.inject(lose(x.target, &v1.Packet{Delay: slow.String(), Direction: "both"}))
		if length() == 0 {
			t.Errorf("%s: the kernel has given the queue no length", c.name)
		}
		if c.name == "expired" || c.name == "told to stop" { // one after the other
			x.n.stop(lost.GetId())
			if got := x.w.median(x.far4.address, 1); got < 2*slow || length() == 0 {
				t.Errorf("%s: an echo takes %s while one fault is on, and the queue has the length %d", c.name, got, length())
			}
		}
		c.end(late)
		gone()
		t.Logf("%s: as before", c.name)
	}
	x.n.idle()
}
