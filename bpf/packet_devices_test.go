package bpf

import (
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"faultd/test/kernels"
)

// TestDepartureDevices: each packet is looked at on one device, however many it leaves by.
func TestDepartureDevices(t *testing.T) {
	kernels.OnHost(t)
	device := func(name string, index, parent, master int) netlink.LinkAttrs {
		return netlink.LinkAttrs{Name: name, Index: index, ParentIndex: parent, MasterIndex: master, NetNsID: -1}
	}
	yes, no := true, false
	elsewhere := device("of-another-namespace", 9, 1, 0)
	elsewhere.NetNsID = 3
	devices := []netlink.Link{
		&netlink.Device{LinkAttrs: device("eth0", 1, 0, 0)},
		&netlink.Vlan{LinkAttrs: device("eth0.7", 2, 1, 0), ReorderHdr: &yes},
		&netlink.Vlan{LinkAttrs: device("eth0.7.8", 3, 2, 0), ReorderHdr: &yes},
		&netlink.Vlan{LinkAttrs: device("eth0.9", 4, 1, 0), ReorderHdr: &no},
		&netlink.Bridge{LinkAttrs: device("br0", 5, 0, 0)},
		&netlink.Device{LinkAttrs: device("port", 6, 0, 5)},
		&netlink.Vlan{LinkAttrs: device("port.7", 7, 6, 0), ReorderHdr: &yes},
		&netlink.Vlan{LinkAttrs: device("br0.7", 8, 5, 0), ReorderHdr: &yes},
		&netlink.Vlan{LinkAttrs: elsewhere, ReorderHdr: &yes},
		&netlink.Macvlan{LinkAttrs: device("macvlan", 10, 1, 0)},
		&netlink.Ifb{LinkAttrs: device("faultd-0badcafe", 11, 0, 0)},
	}
	var got []string
	for _, d := range departureDevices(devices) {
		got = append(got, d.Attrs().Name)
	}
	if want := []string{"eth0", "eth0.7.8", "eth0.9", "br0", "port.7", "of-another-namespace", "macvlan"}; !slices.Equal(got, want) {
		t.Errorf("packets are looked at on %v, want %v", got, want)
	}
}
