package undo

import (
	"testing"

	"github.com/vishvananda/netlink"
)

func deviceAction(r *RemoveDevice) Action { return Action{Version: Version, RemoveDevice: r} }

// ourDevice is of a kind that more kernels have than ifb.
func (n *network) ourDevice() *RemoveDevice {
	return &RemoveDevice{NetNSInode: n.inode, Ifname: DevicePrefix + "0badcafe", Kind: "bridge"}
}

// add makes a device, or skips where the kernel has none of its kind.
func (n *network) add(t *testing.T, device netlink.Link) {
	t.Helper()
	if err := n.LinkAdd(device); err != nil {
		t.Skipf("make a device: %v: runs in virtual machines", err)
	}
}

func (n *network) devices(t *testing.T) int {
	t.Helper()
	all, err := n.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestRemoveDevice(t *testing.T) {
	n := testNetwork(t)
	before, r := n.devices(t), n.ourDevice()
	wantUndo(t, deviceAction(r), AlreadyGone) // written down, nothing done yet
	n.add(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: r.Ifname}})
	wantUndo(t, deviceAction(r), Undone)
	if got := n.devices(t); got != before {
		t.Errorf("there are %d devices, before %d", got, before)
	}
	wantUndo(t, deviceAction(r), AlreadyGone)
}

func TestRemoveDeviceInOurPlace(t *testing.T) {
	n := testNetwork(t)
	r := n.ourDevice()
	n.add(t, &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: r.Ifname}, PeerName: "peer"})
	before := n.devices(t)
	wantUndo(t, deviceAction(r), Changed)
	if got := n.devices(t); got != before {
		t.Errorf("somebody's device is gone")
	}
}

func TestRemoveDeviceOfWhatIsGone(t *testing.T) {
	n := testNetwork(t)
	n.Close() // a socket keeps its namespace
	n.leave()
	wantUndo(t, deviceAction(n.ourDevice()), AlreadyGone)
}

func TestRemoveDeviceMakesSense(t *testing.T) {
	for name, r := range map[string]*RemoveDevice{
		"no namespace": {0, "faultd-1", "ifb"}, "no kind": {1, "faultd-1", ""}, "not ours": {1, "eth0", "ifb"}, "no name": {1, "", "ifb"}, "too long": {1, "faultd-0123456789", "ifb"},
	} {
		if err := deviceAction(r).Validate(); err == nil {
			t.Errorf("%s makes sense: %v", name, r)
		}
	}
	if err := deviceAction(&RemoveDevice{1, "faultd-0badcafe", "ifb"}).Validate(); err != nil {
		t.Error(err)
	}
}
